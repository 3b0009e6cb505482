/** The `TLSInfo` of a trust root, as nodes and the swarm show it. */
import "reflect-metadata";
import { X509Certificate } from "@peculiar/x509";
import type { TLSInfo } from "../model/types.ts";

/**
 * @param trustRoot PEM bundle; the issuer is its first certificate
 * @returns subject and public key as base64 of their DER forms
 */
export function tlsInfoOf(trustRoot: string): Required<TLSInfo> {
  const issuer = new X509Certificate(trustRoot);
  return {
    TrustRoot: trustRoot,
    CertIssuerSubject: Buffer.from(issuer.subjectName.toArrayBuffer()).toString("base64"),
    CertIssuerPublicKey: Buffer.from(issuer.publicKey.rawData).toString("base64"),
  };
}
