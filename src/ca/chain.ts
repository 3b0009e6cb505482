/**
 * Reading and checking what a CA has issued. A node takes a certificate for its own only when all of it holds: the
 * chain is in order and signed up to a trusted root, everything in it is valid now, the key is its own, and the
 * subject names a cluster, a role and a node.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { rfc3339 } from "../lib/clock.ts";
import { ShoalError } from "../lib/errors.ts";
import { between, type Random } from "../lib/random.ts";
import type { NodeRole } from "../model/types.ts";
import { organizationalUnits } from "./root.ts";

const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";
/** A chain is a leaf, and while a root is rotated one cross-signed root; more is nothing that a CA of ours makes. */
const longestChain = 5;
const pemBlock = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

export interface NodeCertificateInfo {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** What the first certificate of a PEM chain says; nothing is verified. Throws InvalidArgument when it says too little. */
export function readNodeCertificate(chain: string): NodeCertificateInfo {
  return infoOf(certificatesOf(chain)[0]!);
}

/**
 * Checks a node's certificate in every way, and gives what it says.
 * @param chain PEM, leaf first
 * @param rootCertificate PEM bundle of the trusted roots
 * @param key PEM of the private key
 * @param now milliseconds since the epoch
 * Throws FailedPrecondition with the reason.
 */
export function verifyNodeCertificate(
  chain: string,
  rootCertificate: string,
  key: string,
  now: number,
): NodeCertificateInfo {
  const certificates = certificatesOf(chain);
  const leaf = certificates[0]!;
  const roots = parseRoots(rootCertificate);
  for (const [index, certificate] of certificates.entries()) {
    const issuer = certificates[index + 1];
    checkValidity(certificate, now);
    if (issuer && !isSignedBy(certificate, issuer)) {
      refuse("the certificate chain is not in order: each must be signed by the next");
    }
  }
  // Any of them: a root that was rotated to is trusted by itself, whoever has signed it as well.
  const root = roots.find((candidate) => certificates.some((certificate) => isSignedBy(certificate, candidate)));
  if (!root) refuse("the certificate is not signed by this cluster's root");
  checkValidity(root, now);
  if (!leaf.keyUsage?.includes(serverAuth) || !leaf.keyUsage.includes(clientAuth)) {
    refuse("the certificate is not for servers and clients");
  }
  if (!leaf.checkPrivateKey(createPrivateKey(key))) refuse("the certificate is of another key");
  return infoOf(leaf);
}

/**
 * Throws FailedPrecondition unless the PEM bundle holds only self-signed authorities, at least one, all valid now.
 * @param now milliseconds since the epoch
 */
export function checkRootCertificate(rootCertificate: string, now: number): void {
  for (const root of parseRoots(rootCertificate)) checkValidity(root, now);
}

/**
 * The authorities in a chain that a trusted root has signed: while a root is rotated, the new one. They are to be trusted
 * by themselves, as a stock manager makes that one without the identifier of the key that signed it: both roots have one
 * name, so that OpenSSL takes it for self-signed and follows it no further.
 * @param chain PEM of what a manager has shown; "" is none
 * @param rootCertificate PEM bundle of the trusted roots
 * @param now milliseconds since the epoch
 * @returns PEM, perhaps ""
 */
export function vouchedFor(chain: string, rootCertificate: string, now: number): string {
  const roots = parseRoots(rootCertificate);
  const vouched = (chain === "" ? [] : certificatesOf(chain)).filter((authority) => {
    const isValid = now >= authority.validFromDate.getTime() && now <= authority.validToDate.getTime();
    return authority.ca && isValid && roots.some((root) => isSignedBy(authority, root));
  });
  return vouched.map(String).join("");
}

/** Throws FailedPrecondition, in Swarm's words where it has expired, unless the node's certificate is valid now. */
export function checkStillValid({ notBefore, notAfter }: NodeCertificateInfo, now: number): void {
  if (now > notAfter) refuse(certificatesExpired);
  if (now < notBefore) refuse(`the node's certificate is not valid before ${rfc3339(notBefore)}${wrongClock(now)}`);
}

/** What a node says that was away for too long. */
export const certificatesExpired = "Swarm certificates have expired. To replace them, leave the swarm and join again.";

/**
 * When to renew a certificate: at a random point between 50 and 80 % of its life, so that a cluster's nodes don't all
 * come at once. Milliseconds since the epoch; it may have passed.
 */
export function renewalTime(chain: string, random: Random): number {
  const { notBefore, notAfter } = readNodeCertificate(chain);
  return notBefore + between(random, 0.5, 0.8) * (notAfter - notBefore);
}

function infoOf(leaf: X509Certificate): NodeCertificateInfo {
  const { O: clusterId, OU: unit, CN: nodeId } = leaf.toLegacyObject().subject as unknown as Record<string, unknown>;
  const role = roleOfUnit(unit);
  if (typeof clusterId !== "string" || typeof nodeId !== "string" || !role) {
    throw new ShoalError("InvalidArgument", "the certificate names no cluster, role and node");
  }
  return {
    nodeId,
    clusterId,
    role,
    notBefore: leaf.validFromDate.getTime(),
    notAfter: leaf.validToDate.getTime(),
  };
}

/** The role that a certificate's OU gives; undefined for any other. */
function roleOfUnit(unit: unknown): NodeRole | undefined {
  if (unit === organizationalUnits.manager) return "manager";
  return unit === organizationalUnits.worker ? "worker" : undefined;
}

/** The certificates of a PEM bundle, at least one; InvalidArgument for anything else. */
export function certificatesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(pemBlock) ?? [];
  if (blocks.length === 0 || blocks.length > longestChain) {
    throw new ShoalError(
      "InvalidArgument",
      `a chain of 1 to ${longestChain} certificates is needed, not ${blocks.length}`,
    );
  }
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (cause) {
    throw new ShoalError("InvalidArgument", "not a certificate", { cause });
  }
}

function parseRoots(pem: string): X509Certificate[] {
  const roots = certificatesOf(pem);
  if (!roots.every((root) => root.ca && isSignedBy(root, root))) refuse("the root certificate is not self-signed");
  return roots;
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function checkValidity(certificate: X509Certificate, now: number): void {
  if (now < certificate.validFromDate.getTime()) {
    refuse(`the certificate is not valid before ${certificate.validFromDate.toISOString()}${wrongClock(now)}`);
  }
  if (now > certificate.validToDate.getTime()) {
    refuse(`the certificate has expired at ${certificate.validToDate.toISOString()}${wrongClock(now)}`);
  }
}

/** Most often it is not the certificate that is wrong. */
function wrongClock(now: number): string {
  return `: it is ${rfc3339(now)} by this node's clock, or a manager's is wrong`;
}

function refuse(reason: string): never {
  throw new ShoalError("FailedPrecondition", reason);
}
