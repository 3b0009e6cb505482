/**
 * The cluster's root certificate authority, and the certificates that it gives to nodes, field by field as Swarm's:
 * a node is what its certificate says (O: the cluster, OU: the role, CN: the node), and nobody else can say it.
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import type { NodeRole } from "../model/types.ts";
import { keyAlgorithm, newKeyPair, privateKeyToPem, publicKeyOfRequest, signingAlgorithm } from "./request.ts";

const hourMs = 3_600_000;
/** 20 years, as Swarm counts them. */
const rootLifetimeMs = 630_720_000_000;
const rootBackdateMs = 5 * 60_000;
/** Clocks of nodes differ: a new certificate must be valid on one that is behind. */
const nodeBackdateMs = hourMs;
const defaultNodeLifetimeMs = 2160 * hourMs;
/** With less, the backdating would make a certificate due for renewal as soon as it is issued. */
const leastNodeLifetimeMs = hourMs;

const crypto = webcrypto;

export interface RootMaterial {
  /** PEM bundle. Its exact bytes matter: join tokens hold their digest. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
}

/** A new self-signed root, P-256, valid for 20 years from `now` (milliseconds since the epoch). */
export async function newRoot(now: number): Promise<RootMaterial> {
  const keys = await newKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: [{ CN: ["swarm-ca"] }],
      notBefore: wholeSecond(now - rootBackdateMs),
      notAfter: wholeSecond(now + rootLifetimeMs),
      keys,
      signingAlgorithm,
      extensions: [
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        new x509.BasicConstraintsExtension(true, undefined, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, crypto),
      ],
    },
    crypto,
  );
  return { certificate: `${certificate.toString("pem")}\n`, key: await privateKeyToPem(keys.privateKey) };
}

export interface IssueOptions {
  /** PEM; only its public key is used, after its own signature is checked. */
  readonly csr: string;
  readonly nodeId: string;
  readonly role: NodeRole;
  readonly clusterId: string;
  /** The cluster's `NodeCertExpiry` in nanoseconds; absent or under an hour: 90 days. */
  readonly expiryNanoseconds: number | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** A root that can sign. */
export class RootAuthority {
  readonly #certificate: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;

  private constructor(certificate: x509.X509Certificate, key: webcrypto.CryptoKey) {
    this.#certificate = certificate;
    this.#key = key;
  }

  static async open(root: RootMaterial): Promise<RootAuthority> {
    const pkcs8 = x509.PemConverter.decodeFirst(root.key);
    const key = await webcrypto.subtle.importKey("pkcs8", pkcs8, keyAlgorithm, false, ["sign"]);
    return new RootAuthority(new x509.X509Certificate(root.certificate), key);
  }

  /** The node's certificate, PEM, leaf first. Throws InvalidArgument for a request that does not sign itself. */
  async issue(options: IssueOptions): Promise<string> {
    const { nodeId, role, clusterId, now } = options;
    const publicKey = await publicKeyOfRequest(options.csr);
    const certificate = await x509.X509CertificateGenerator.create(
      {
        subject: new x509.Name([{ O: [clusterId] }, { OU: [organizationalUnits[role]] }, { CN: [nodeId] }]),
        issuer: this.#certificate.subjectName,
        notBefore: wholeSecond(now - nodeBackdateMs),
        notAfter: wholeSecond(now + nodeLifetimeMs(options.expiryNanoseconds)),
        publicKey,
        signingKey: this.#key,
        signingAlgorithm,
        extensions: [
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
          new x509.BasicConstraintsExtension(false, undefined, true),
          await x509.SubjectKeyIdentifierExtension.create(publicKey, false, crypto),
          await x509.AuthorityKeyIdentifierExtension.create(this.#certificate, false, crypto),
          new x509.SubjectAlternativeNameExtension(
            serverNames(role, nodeId).map((value) => ({ type: "dns" as const, value })),
          ),
        ],
      },
      crypto,
    );
    return `${certificate.toString("pem")}\n`;
  }
}

/** The certificate's OU for each role. */
export const organizationalUnits: Readonly<Record<NodeRole, string>> = {
  worker: "swarm-worker",
  manager: "swarm-manager",
};

/** What others may call the node: a manager also answers as `swarm-ca`, to nodes that have no certificate yet. */
function serverNames(role: NodeRole, nodeId: string): string[] {
  return role === "manager" ? [organizationalUnits.manager, nodeId, "swarm-ca"] : [organizationalUnits.worker, nodeId];
}

function nodeLifetimeMs(expiryNanoseconds: number | undefined): number {
  const lifetimeMs = (expiryNanoseconds ?? 0) / 1_000_000;
  return lifetimeMs < leastNodeLifetimeMs ? defaultNodeLifetimeMs : lifetimeMs;
}

/** Certificates count in seconds. */
function wholeSecond(ms: number): Date {
  return new Date(Math.floor(ms / 1000) * 1000);
}
