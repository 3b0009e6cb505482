/**
 * The store's own CA: managers' replicas know each other by it and nobody else has a certificate of it, so that a
 * worker's opens nothing there. Its key is with every manager (each issues its own certificate anew whenever it
 * starts), and travels only to new ones.
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";
import type { PeerCertificates } from "../store/etcd/options.ts";
import { keyAlgorithm, newKeyPair, privateKeyToPem, signingAlgorithm } from "./request.ts";

const lifetimeMs = 20 * 365 * 24 * 3_600_000;
/** Clocks of managers differ. */
const backdateMs = 3_600_000;

/** @param now milliseconds since the epoch */
export function storeCertificates(now: () => number): PeerCertificates {
  const validity = () => ({
    notBefore: new Date(wholeSecond(now() - backdateMs)),
    notAfter: new Date(wholeSecond(now() + lifetimeMs)),
  });
  return {
    async newAuthority() {
      const keys = await newKeyPair();
      const certificate = await x509.X509CertificateGenerator.createSelfSigned(
        {
          ...validity(),
          name: [{ CN: ["shoal-store-ca"] }],
          keys,
          signingAlgorithm,
          extensions: [
            new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
            new x509.BasicConstraintsExtension(true, 0, true),
            await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
          ],
        },
        webcrypto,
      );
      return { certificate: `${certificate.toString("pem")}\n`, key: await privateKeyToPem(keys.privateKey) };
    },
    async issue(authority, nodeId, host) {
      const issuer = new x509.X509Certificate(authority.certificate);
      const signingKey = await webcrypto.subtle.importKey(
        "pkcs8",
        x509.PemConverter.decodeFirst(authority.key),
        keyAlgorithm,
        false,
        ["sign"],
      );
      const keys = await newKeyPair();
      const certificate = await x509.X509CertificateGenerator.create(
        {
          ...validity(),
          subject: [{ CN: [nodeId] }],
          issuer: issuer.subjectName,
          publicKey: keys.publicKey,
          signingKey,
          signingAlgorithm,
          extensions: [
            new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
            new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
            new x509.BasicConstraintsExtension(false, undefined, true),
            await x509.AuthorityKeyIdentifierExtension.create(issuer, false, webcrypto),
            new x509.SubjectAlternativeNameExtension([{ type: isIP(host) ? "ip" : "dns", value: host }]),
          ],
        },
        webcrypto,
      );
      return { certificate: `${certificate.toString("pem")}\n`, key: await privateKeyToPem(keys.privateKey) };
    },
  };
}

/** Certificates count in seconds. */
function wholeSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
