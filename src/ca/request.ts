/**
 * Certificate requests (PKCS #10): made by a node for its own certificate, checked by the manager that signs it.
 * Nothing in a request counts but its public key: names and extensions are the manager's to decide.
 *
 * Key pairs, signatures and serial numbers come from WebCrypto, not from the `Random` that is handed in elsewhere:
 * WebCrypto takes no source of its own, and nothing ever has to replay a key.
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { ShoalError } from "../lib/errors.ts";

export const keyAlgorithm = { name: "ECDSA", namedCurve: "P-256" } as const;
export const signingAlgorithm = { name: "ECDSA", hash: "SHA-256" } as const;

export type KeyPair = Awaited<ReturnType<typeof newKeyPair>>;

export function newKeyPair() {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
}

/** PEM, PKCS #8. */
export async function privateKeyToPem(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY")}\n`;
}

export interface CertificateRequest {
  /** PEM. */
  readonly csr: string;
  /** PEM, PKCS #8: never leaves the node. */
  readonly key: string;
}

/** A new P-256 key and the request for a certificate of it. */
export async function newCertificateRequest(): Promise<CertificateRequest> {
  const keys = await newKeyPair();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm }, webcrypto);
  return { csr: `${request.toString("pem")}\n`, key: await privateKeyToPem(keys.privateKey) };
}

/** The public key of a request that is signed with its own private key; throws InvalidArgument for any other. */
export async function publicKeyOfRequest(csr: string): Promise<x509.PublicKey> {
  let cause: unknown;
  try {
    const request = new x509.Pkcs10CertificateRequest(csr);
    if (await request.verify(webcrypto)) return request.publicKey;
  } catch (error) {
    cause = error;
  }
  throw new ShoalError("InvalidArgument", "the certificate request is invalid, or not signed by its own key", {
    cause,
  });
}
