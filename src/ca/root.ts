/**
 * The cluster's root certificate authority, and the certificates that it gives to nodes, field by field as Swarm's:
 * a node is what its certificate says (O: the cluster, OU: the role, CN: the node), and nobody else can say it.
 */
import "reflect-metadata";
import { createPrivateKey, type KeyObject, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { ShoalError } from "../lib/errors.ts";
import type { NodeRole } from "../model/types.ts";
import { newKeyPair, privateKeyToPem, publicKeyOfRequest, signingAlgorithm } from "./request.ts";

const hourMs = 3_600_000;
/** 20 years, as Swarm counts them. */
const rootLifetimeMs = 630_720_000_000;
/**
 * Clocks of nodes differ: a new certificate must be valid on one that is behind. Swarm gives the root five minutes
 * only, so that a node whose clock is an hour late could not join a new swarm.
 */
const backdateMs = hourMs;
const defaultNodeLifetimeMs = 2160 * hourMs;
/** With less, the backdating would make a certificate due for renewal as soon as it is issued. */
const leastNodeLifetimeMs = hourMs;

const crypto = webcrypto;

export interface RootMaterial {
  /** PEM bundle. Its exact bytes matter: join tokens hold their digest. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
  /** PEM: the same name and key, signed by the root that nodes still trust; goes with every certificate. */
  readonly crossSigned?: string;
}

/** A new self-signed root, P-256, valid for 20 years from `now` (milliseconds since the epoch). */
export async function newRoot(now: number): Promise<RootMaterial> {
  const keys = await newKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: [{ CN: ["swarm-ca"] }],
      notBefore: wholeSecond(now - backdateMs),
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
  readonly #algorithm: SigningAlgorithm;
  readonly #crossSigned: string;

  private constructor(
    certificate: x509.X509Certificate,
    key: webcrypto.CryptoKey,
    algorithm: SigningAlgorithm,
    crossSigned: string,
  ) {
    this.#certificate = certificate;
    this.#key = key;
    this.#algorithm = algorithm;
    this.#crossSigned = crossSigned;
  }

  /** Throws InvalidArgument for a key of a kind that can't sign here. */
  static async open({ certificate, key: pem, crossSigned = "" }: RootMaterial): Promise<RootAuthority> {
    const privateKey = createPrivateKey(pem);
    const algorithm = algorithmOf(privateKey);
    const pkcs8 = privateKey.export({ format: "der", type: "pkcs8" });
    const key = await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
    return new RootAuthority(new x509.X509Certificate(certificate), key, algorithm, crossSigned);
  }

  /**
   * Another root's name and key, signed by this one: whoever trusts this root follows a chain through it.
   * @param certificate PEM of the other root
   * @param now milliseconds since the epoch
   * @returns PEM
   */
  async crossSign(certificate: string, now: number): Promise<string> {
    const other = new x509.X509Certificate(certificate);
    const signed = await x509.X509CertificateGenerator.create(
      {
        subject: other.subjectName,
        issuer: this.#certificate.subjectName,
        notBefore: wholeSecond(now - backdateMs),
        notAfter: this.#certificate.notAfter,
        publicKey: other.publicKey,
        signingKey: this.#key,
        signingAlgorithm: this.#algorithm,
        extensions: [
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
          new x509.BasicConstraintsExtension(true, undefined, true),
          // Leaves name their issuer's key by this, so it must be what the other root itself says.
          other.getExtension(x509.SubjectKeyIdentifierExtension) ??
            (await x509.SubjectKeyIdentifierExtension.create(other.publicKey, false, crypto)),
          await x509.AuthorityKeyIdentifierExtension.create(this.#certificate, false, crypto),
        ],
      },
      crypto,
    );
    return `${signed.toString("pem")}\n`;
  }

  /** The node's certificate, PEM, leaf first. Throws InvalidArgument for a request that does not sign itself. */
  async issue(options: IssueOptions): Promise<string> {
    const { nodeId, role, clusterId, now } = options;
    const publicKey = await publicKeyOfRequest(options.csr);
    const certificate = await x509.X509CertificateGenerator.create(
      {
        subject: new x509.Name([{ O: [clusterId] }, { OU: [organizationalUnits[role]] }, { CN: [nodeId] }]),
        issuer: this.#certificate.subjectName,
        notBefore: wholeSecond(now - backdateMs),
        notAfter: wholeSecond(now + nodeLifetimeMs(options.expiryNanoseconds)),
        publicKey,
        signingKey: this.#key,
        signingAlgorithm: this.#algorithm,
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
    return `${certificate.toString("pem")}\n${this.#crossSigned}`;
  }
}

type SigningAlgorithm = { readonly name: string; readonly hash: string; readonly namedCurve?: string };

/** Ours is P-256; a root that was brought along may be of the other kinds that Swarm's nodes take. */
function algorithmOf(key: KeyObject): SigningAlgorithm {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const curve = type === "ec" ? curves[details?.namedCurve ?? ""] : undefined;
  if (curve) return curve;
  if (type === "rsa" && (details?.modulusLength ?? 0) >= leastRsaBits)
    return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  throw new ShoalError(
    "InvalidArgument",
    "a CA key must be of ECDSA (P-256, P-384, P-521), or of RSA with 2048 bits or more",
  );
}

const curves: Readonly<Record<string, SigningAlgorithm>> = {
  prime256v1: { name: "ECDSA", hash: "SHA-256", namedCurve: "P-256" },
  secp384r1: { name: "ECDSA", hash: "SHA-384", namedCurve: "P-384" },
  secp521r1: { name: "ECDSA", hash: "SHA-512", namedCurve: "P-521" },
};
const leastRsaBits = 2048;

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
