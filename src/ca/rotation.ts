/**
 * `swarm ca --rotate`: what a request does to the cluster's root. A rotation begins with a new root (made here, or
 * brought along) signed also by the present one; it is replaced by another one, or given up by asking for the present
 * root again, at any time. Nodes are never cut off by it: all that is issued meanwhile verifies under the present root.
 * Swarm's rules and texts; roots whose key is elsewhere (external CAs) are refused.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Cluster, SwarmSpec } from "../model/types.ts";
import { checkRootCertificate } from "./chain.ts";
import { newRoot, RootAuthority, type RootMaterial } from "./root.ts";

type RootCA = Cluster["RootCA"];

/** The root that signs now: while the cluster's is being replaced, the new one. */
export function issuingRoot({ Certificate, Key, Rotation }: RootCA): RootMaterial {
  if (!Rotation) return { certificate: Certificate, key: Key };
  return { certificate: Rotation.Certificate, key: Rotation.Key, crossSigned: Rotation.CrossSigned };
}

const leastRemainingMs = 365 * 24 * 3_600_000;

/**
 * The root as a `CAConfig` wants it: the same object where it asks for no change.
 * @param now milliseconds since the epoch
 * Throws InvalidArgument for a certificate or key that won't do.
 */
export async function rootAsAsked(rootCA: RootCA, asked: SwarmSpec["CAConfig"], now: number): Promise<RootCA> {
  const { SigningCACert = "", SigningCAKey = "", ForceRotate = 0 } = asked ?? {};
  const LastForcedRotation = Math.max(ForceRotate, rootCA.LastForcedRotation ?? 0);
  if (!SigningCACert) {
    if (SigningCAKey) refuse("if a signing CA key is provided, the signing CA cert must also be provided");
    // Only upwards: a client that leaves the counter out must not set off a rotation.
    if (LastForcedRotation === (rootCA.LastForcedRotation ?? 0)) return rootCA;
    return { ...(await rotationTo(rootCA, await newRoot(now), now)), LastForcedRotation };
  }
  const given = checkedRoot(SigningCACert, SigningCAKey, now);
  const { Rotation, ...still } = rootCA;
  if (sameCertificate(given.certificate, still.Certificate)) return { ...still, Key: given.key, LastForcedRotation };
  if (Rotation && sameCertificate(given.certificate, Rotation.Certificate)) {
    return { ...rootCA, Rotation: { ...Rotation, Key: given.key }, LastForcedRotation };
  }
  return { ...(await rotationTo(rootCA, given, now)), LastForcedRotation };
}

/** Always signed by the present root, also when it replaces a rotation that is under way. */
async function rotationTo(rootCA: RootCA, next: RootMaterial, now: number): Promise<RootCA> {
  await RootAuthority.open(next); // a key that can't sign is refused here, not when nodes need it
  const present = await RootAuthority.open({ certificate: rootCA.Certificate, key: rootCA.Key });
  const CrossSigned = await present.crossSign(next.certificate, now);
  return { ...rootCA, Rotation: { Certificate: next.certificate, Key: next.key, CrossSigned } };
}

function checkedRoot(certificateText: string, keyText: string, now: number): RootMaterial {
  let certificate: X509Certificate;
  try {
    checkRootCertificate(certificateText, now);
    certificate = new X509Certificate(certificateText);
  } catch (error) {
    refuse(`could not parse the desired CA certificate: ${messageOf(error)}`);
  }
  if (certificateText.split("-----BEGIN CERTIFICATE-----").length > 2) {
    refuse("the desired CA certificate cannot contain multiple certificates");
  }
  if (certificate.validToDate.getTime() < now + leastRemainingMs) refuse("CA certificate expires too soon");
  if (!keyText) refuse("a CA certificate without its key needs an external CA, which is not supported");
  try {
    const key = createPrivateKey(keyText);
    if (certificate.checkPrivateKey(key)) {
      return { certificate: certificate.toString(), key: key.export({ format: "pem", type: "pkcs8" }).toString() };
    }
  } catch (error) {
    refuse(`could not read the CA key: ${messageOf(error)}`);
  }
  refuse("certificate key mismatch");
}

function sameCertificate(left: string, right: string): boolean {
  return new X509Certificate(left).raw.equals(new X509Certificate(right).raw);
}

function refuse(reason: string): never {
  throw new ShoalError("InvalidArgument", reason);
}
