/**
 * `TLSInfo`: whom a node trusts and who issued its certificate, as it reports it, and as the cluster wants it. While
 * the root is rotated the two differ node by node: that is how managers (and `docker node ls`) see who is still to be
 * renewed.
 */
import "reflect-metadata";
import { X509Certificate } from "@peculiar/x509";
import { ShoalError } from "../lib/errors.ts";
import type { Cluster, TLSInfo } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { certificatesOf } from "./chain.ts";

/** Base64 of the DER forms of an issuer's subject and public key. */
export type Issuer = Required<Pick<TLSInfo, "CertIssuerSubject" | "CertIssuerPublicKey">>;

/** What a node says of itself: the issuer is its leaf's own, which during a rotation is not the first trusted root. */
export function tlsInfoOfNode({ chain, rootCA }: Pick<NodeIdentity, "chain" | "rootCA">): Required<TLSInfo> {
  const [leaf, ...above] = certificatesOf(chain);
  const issuer = [...above, ...certificatesOf(rootCA)].find(
    (candidate) => leaf?.checkIssued(candidate) && leaf.verify(candidate.publicKey),
  );
  if (!issuer) throw new ShoalError("FailedPrecondition", "the certificate is not signed by this cluster's root");
  return { TrustRoot: rootCA, ...issuerOf(issuer.toString()) };
}

/** What every node is to say: the trusted root, and the issuer of certificates that are given out now. */
export function tlsInfoOfCluster({ Certificate, Rotation }: Cluster["RootCA"]): Required<TLSInfo> {
  return { TrustRoot: Certificate, ...issuerOf((Rotation ?? { Certificate }).Certificate) };
}

/** @param certificate PEM; of a bundle the first */
export function issuerOf(certificate: string): Issuer {
  const issuer = new X509Certificate(certificate);
  return {
    CertIssuerSubject: Buffer.from(issuer.subjectName.toArrayBuffer()).toString("base64"),
    CertIssuerPublicKey: Buffer.from(issuer.publicKey.rawData).toString("base64"),
  };
}

export function isIssuedBy(info: TLSInfo | undefined, issuer: Issuer): boolean {
  return (
    info?.CertIssuerSubject === issuer.CertIssuerSubject && info.CertIssuerPublicKey === issuer.CertIssuerPublicKey
  );
}
