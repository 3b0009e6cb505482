/**
 * Join tokens: `SWMTKN-1-<digest>-<secret>`. The digest (SHA-256 of the root bundle's exact bytes, 50 digits of base
 * 36) lets a node know the cluster that it meets for the first time; the secret (128 bits, 25 digits) lets the cluster
 * know the node. A token is compared as a whole, in a time that says nothing of where it differs. Not Swarm's: version
 * 2 (FIPS) tokens are refused as malformed.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { ShoalError } from "../lib/errors.ts";
import { toBase36 } from "../lib/ids.ts";
import type { Random } from "../lib/random.ts";

const tokenForm = /^SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})$/;
const digestLength = 50;
const secretBytes = 16;
const secretLength = 25;

/** A fresh token for the cluster with this root bundle (PEM). */
export function newJoinToken(rootCertificate: string, random: Random): string {
  return `SWMTKN-1-${rootDigest(rootCertificate)}-${toBase36(random.bytes(secretBytes), secretLength)}`;
}

/** The digest part of a token. Throws InvalidArgument "invalid join token" for anything that is not one. */
export function digestOfToken(token: string): string {
  const digest = tokenForm.exec(token)?.[1];
  if (!digest) throw new ShoalError("InvalidArgument", "invalid join token");
  return digest;
}

/** Throws FailedPrecondition unless the root bundle is the one that the token was made for. */
export function checkRootAgainstToken(rootCertificate: string, token: string): void {
  if (rootDigest(rootCertificate) !== digestOfToken(token)) {
    throw new ShoalError("FailedPrecondition", "remote CA does not match fingerprint");
  }
}

/** Whether two tokens are the same, in constant time. */
export function sameToken(given: string, expected: string): boolean {
  return timingSafeEqual(sha256(given), sha256(expected));
}

function rootDigest(rootCertificate: string): string {
  return toBase36(sha256(rootCertificate), digestLength);
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
