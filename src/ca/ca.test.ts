/** Root, tokens, certificates, chains and identity files, checked by node's own X.509 where it can. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto, X509Certificate } from "node:crypto";
import { mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import * as x509 from "@peculiar/x509";
import fc from "fast-check";
import { isShoalError, type StatusCode } from "../lib/errors.ts";
import { seededRandom } from "../lib/random.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { ValueCipher } from "../store/encryption.ts";
import {
  certificatesExpired,
  checkRootCertificate,
  checkStillValid,
  readNodeCertificate,
  renewalTime,
  verifyNodeCertificate,
} from "./chain.ts";
import { IdentityFiles } from "./identity-files.ts";
import { newCertificateRequest, publicKeyOfRequest } from "./request.ts";
import { newRoot, RootAuthority, type RootMaterial } from "./root.ts";
import { issuerOf, tlsInfoOfNode } from "./tls-info.ts";
import { checkRootAgainstToken, digestOfToken, newJoinToken, sameToken } from "./tokens.ts";

const now = Date.parse("2026-03-01T12:00:00.500Z");
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

function failsWith(code: StatusCode, message: RegExp) {
  return (error: unknown) => isShoalError(error, code) && message.test(error.message);
}

let root: RootMaterial;
let authority: RootAuthority;
before(async () => {
  root = await newRoot(now);
  authority = await RootAuthority.open(root);
});

async function identity(
  options: { nodeId?: string; role?: "worker" | "manager"; at?: number; expiryNanoseconds?: number } = {},
) {
  const { csr, key } = await newCertificateRequest();
  const chain = await authority.issue({
    csr,
    nodeId: options.nodeId ?? "node1",
    role: options.role ?? "worker",
    clusterId: "cluster1",
    expiryNanoseconds: options.expiryNanoseconds,
    now: options.at ?? now,
  });
  return { csr, key, chain };
}

describe("the root", () => {
  test("has Swarm's fields", () => {
    const certificate = new X509Certificate(root.certificate);
    assert.equal(certificate.subject, "CN=swarm-ca");
    assert.equal(certificate.ca, true);
    assert.ok(certificate.verify(certificate.publicKey));
    assert.equal(certificate.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1");
    assert.equal(certificate.validFromDate.toISOString(), "2026-03-01T11:00:00.000Z");
    assert.equal(certificate.validToDate.getTime(), Math.floor(now / 1000) * 1000 + 630_720_000_000);
    assert.match(root.certificate, /^-----BEGIN CERTIFICATE-----\n.*\n-----END CERTIFICATE-----\n$/s);
    assert.match(root.key, /^-----BEGIN PRIVATE KEY-----\n/);
  });
});

describe("join tokens", () => {
  test("have Swarm's form, one digest and different secrets", () => {
    const random = seededRandom(1);
    const [worker, manager] = [newJoinToken(root.certificate, random), newJoinToken(root.certificate, random)];
    assert.match(worker, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
    assert.equal(digestOfToken(worker), digestOfToken(manager));
    assert.equal(sameToken(worker, manager), false);
    assert.equal(sameToken(worker, `${worker}`), true);
    assert.equal(sameToken("", worker), false);
    checkRootAgainstToken(root.certificate, worker);
  });

  test("know the exact bytes of the root", () => {
    const token = newJoinToken(root.certificate, seededRandom(2));
    assert.throws(
      () => checkRootAgainstToken(`${root.certificate}\n`, token),
      failsWith("FailedPrecondition", /^remote CA does not match fingerprint$/),
    );
  });

  test("the digest is SHA-256 in base 36", () => {
    // The bytes of "shoal\n", worked out by other means.
    const token = newJoinToken("shoal\n", seededRandom(3));
    assert.equal(digestOfToken(token), "5h6rnlf95sp41qr0tq80hd64iecim5ssgvympp41kalu4iux5g");
  });

  test("anything else is refused", () => {
    const token = newJoinToken(root.certificate, seededRandom(4));
    for (const bad of [
      "",
      "SWMTKN",
      token.slice(0, -1),
      `${token}x`,
      token.replace("-1-", "-2-1-"),
      token.toUpperCase(),
    ]) {
      assert.throws(() => digestOfToken(bad), failsWith("InvalidArgument", /^invalid join token$/), bad);
    }
  });
});

describe("a node's certificate", () => {
  test("has Swarm's fields", async () => {
    const { chain } = await identity({ nodeId: "n1", role: "manager" });
    const leaf = new X509Certificate(chain);
    assert.equal(leaf.subject, "O=cluster1\nOU=swarm-manager\nCN=n1");
    assert.equal(leaf.subjectAltName, "DNS:swarm-manager, DNS:n1, DNS:swarm-ca");
    assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    assert.equal(leaf.ca, false);
    assert.ok(leaf.checkIssued(new X509Certificate(root.certificate)));
    assert.equal(leaf.validFromDate.toISOString(), "2026-03-01T11:00:00.000Z");
    assert.equal(leaf.validToDate.getTime() - leaf.validFromDate.getTime(), 90 * dayMs + hourMs);
    assert.equal(new X509Certificate((await identity()).chain).subjectAltName, "DNS:swarm-worker, DNS:node1");
  });

  test("lives as long as the cluster says, but never under an hour", async () => {
    const lifeMs = async (expiryNanoseconds: number | undefined) => {
      const { notBefore, notAfter } = readNodeCertificate((await identity({ expiryNanoseconds })).chain);
      return notAfter - notBefore - hourMs;
    };
    assert.equal(await lifeMs(2 * hourMs * 1e6), 2 * hourMs);
    assert.equal(await lifeMs(hourMs * 1e6), hourMs);
    assert.equal(await lifeMs(hourMs * 1e6 - 1), 90 * dayMs);
    assert.equal(await lifeMs(0), 90 * dayMs);
    assert.equal(await lifeMs(undefined), 90 * dayMs);
  });

  test("is only given to a request that signs itself, and only its key is used", async () => {
    const { csr } = await newCertificateRequest();
    const der = Buffer.from(csr.replace(/-----[^-]+-----|\n/g, ""), "base64");
    der[der.length - 1] = der.at(-1)! ^ 1;
    const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
    for (const bad of [forged, "", "nonsense", root.certificate]) {
      await assert.rejects(publicKeyOfRequest(bad), failsWith("InvalidArgument", /certificate request is invalid/));
    }
    await publicKeyOfRequest(csr);
  });

  test("is believed only when all of it holds", async () => {
    const good = await identity();
    const other = await identity();
    assert.deepEqual(verifyNodeCertificate(good.chain, root.certificate, good.key, now), {
      nodeId: "node1",
      clusterId: "cluster1",
      role: "worker",
      notBefore: Date.parse("2026-03-01T11:00:00Z"),
      notAfter: Date.parse("2026-05-30T12:00:00Z"),
    });
    const refused = (chain: string, roots: string, key: string, at: number, reason: RegExp) =>
      assert.throws(() => verifyNodeCertificate(chain, roots, key, at), failsWith("FailedPrecondition", reason));
    refused(good.chain, root.certificate, other.key, now, /of another key/);
    refused(good.chain, root.certificate, good.key, now + 91 * dayMs, /expired/);
    refused(good.chain, root.certificate, good.key, now - 2 * hourMs, /not valid before/);
    refused(good.chain, (await newRoot(now)).certificate, good.key, now, /not signed by this cluster's root/);
    refused(good.chain + other.chain, root.certificate, good.key, now, /not in order/);
    refused(good.chain, good.chain, good.key, now, /not self-signed/);
    refused(root.certificate, root.certificate, good.key, now, /servers and clients/);
    assert.throws(() => readNodeCertificate(root.certificate), failsWith("InvalidArgument", /names no cluster/));
    assert.throws(() => readNodeCertificate("x"), failsWith("InvalidArgument", /chain of 1 to/));
  });

  test("is renewed between 50 and 80 % of its life", async () => {
    const { chain } = await identity();
    const { notBefore, notAfter } = readNodeCertificate(chain);
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const share = (renewalTime(chain, seededRandom(seed)) - notBefore) / (notAfter - notBefore);
        assert.ok(share >= 0.5 && share < 0.8, String(share));
      }),
      { numRuns: 50 },
    );
  });
});

describe("another root", () => {
  const ecdsa = { name: "ECDSA", namedCurve: "P-384" };
  const rsa = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256", publicExponent: new Uint8Array([1, 0, 1]) };

  for (const [kind, algorithm, signing] of [
    ["P-384", ecdsa, { name: "ECDSA", hash: "SHA-384" }],
    ["RSA", { ...rsa, modulusLength: 2048 }, rsa],
  ] as const) {
    test(`of ${kind} signs, and is crossed by ours: its leaves verify under either, and name it as issuer`, async () => {
      const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const made = await x509.X509CertificateGenerator.createSelfSigned({
        name: "CN=brought along,O=somebody",
        notBefore: new Date(now - dayMs),
        notAfter: new Date(now + 1000 * dayMs),
        keys,
        signingAlgorithm: signing,
        extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
      });
      const pem = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
      const other = { certificate: made.toString("pem"), key: x509.PemConverter.encode(pem, "PRIVATE KEY") };
      const crossSigned = await authority.crossSign(other.certificate, now);
      const { csr, key } = await newCertificateRequest();
      const options = { csr, nodeId: "n", role: "worker" as const, clusterId: "c", expiryNanoseconds: undefined, now };
      const chain = await (await RootAuthority.open({ ...other, crossSigned })).issue(options);
      for (const trusted of [root.certificate, other.certificate]) {
        verifyNodeCertificate(chain, trusted, key, now);
        const { TrustRoot, ...issuer } = tlsInfoOfNode({ chain, rootCA: trusted });
        assert.deepEqual([TrustRoot, issuer], [trusted, issuerOf(other.certificate)]);
      }
    });
  }

  test("of a kind that can't sign here is refused", async () => {
    const keys = await webcrypto.subtle.generateKey({ ...rsa, modulusLength: 1024 }, true, ["sign", "verify"]);
    const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
    const opened = RootAuthority.open({ certificate: root.certificate, key });
    await assert.rejects(opened, failsWith("InvalidArgument", /RSA with 2048 bits or more/));
  });
});

describe("a clock that is wrong", () => {
  test("by an hour, either way, does not keep a node from a new swarm", () => {
    for (const at of [now - hourMs, now + hourMs]) checkRootCertificate(root.certificate, at);
  });

  test("by more is said to be the likely reason", () => {
    const early = failsWith(
      "FailedPrecondition",
      /is not valid before .*: it is 2026-03-01T10:00:00\.500Z by this node's/,
    );
    assert.throws(() => checkRootCertificate(root.certificate, now - 2 * hourMs), early);
  });

  test("a node that was away for too long says what to do", async () => {
    const info = readNodeCertificate((await identity()).chain);
    checkStillValid(info, now);
    assert.throws(() => checkStillValid(info, now + 91 * dayMs), { message: certificatesExpired });
    assert.throws(() => checkStillValid(info, now - 2 * hourMs), failsWith("FailedPrecondition", /not valid before/));
  });
});

describe("identity files", () => {
  let directory: string;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "shoal-identity-"));
  });
  after(async () => {
    await rm(directory, { recursive: true });
  });

  const made = async (): Promise<NodeIdentity> => {
    const { chain, key } = await identity({ role: "manager" });
    return { nodeId: "node1", clusterId: "cluster1", role: "manager", chain, key, rootCA: root.certificate };
  };
  const path = (name: string) => join(directory, "certificates", name);

  test("keep one whole identity, with Swarm's names and a private key", async () => {
    const files = new IdentityFiles(directory);
    assert.equal(await files.load(), undefined);
    const first = await made();
    await files.save(first);
    assert.deepEqual(await files.load(), first);
    assert.deepEqual((await readdir(join(directory, "certificates"))).sort(), [
      "swarm-node.crt",
      "swarm-node.key",
      "swarm-root-ca.crt",
    ]);
    assert.equal((await stat(path("swarm-node.key"))).mode & 0o777, 0o600);
    const second = await made();
    await files.save(second);
    assert.deepEqual(await files.load(), second);
  });

  test("a crash at any step of a save leaves the old identity or the new one", async () => {
    const files = new IdentityFiles(directory);
    const [old, next] = [await made(), await made()];
    await files.save(old);
    await writeFile(path("swarm-node.key.next"), next.key, { mode: 0o600 });
    assert.deepEqual(await files.load(), old, "before the certificate: the old one");
    await writeFile(path("swarm-node.crt"), next.chain);
    assert.deepEqual(await files.load(), next, "after it: the new one");
    await assert.rejects(stat(path("swarm-node.key.next")), /ENOENT/);
    assert.equal(await readFile(path("swarm-node.key"), "utf8"), next.key);
  });

  test("the key is sealed where there is something to seal it with, and one in PEM is still read", async () => {
    const sealer = new ValueCipher(seededRandom(9).bytes(32), seededRandom(10));
    const [plain, sealed] = [await made(), await made()];
    await new IdentityFiles(directory).save(plain);
    const files = new IdentityFiles(directory, sealer);
    assert.deepEqual(await files.load(), plain);
    await files.save(sealed);
    assert.deepEqual(await files.load(), sealed);
    assert.doesNotMatch(await readFile(path("swarm-node.key"), "utf8"), /PRIVATE KEY/);
    const others = new IdentityFiles(directory, new ValueCipher(seededRandom(11).bytes(32), seededRandom(12)));
    await assert.rejects(others.load(), failsWith("FailedPrecondition", /broken/));
  });

  test("a certificate without its key is an error, not an identity", async () => {
    const files = new IdentityFiles(directory);
    await files.save(await made());
    await rename(path("swarm-node.key"), path("swarm-node.key.gone"));
    await assert.rejects(files.load(), failsWith("FailedPrecondition", /no key in/));
    await writeFile(path("swarm-node.key"), "nonsense");
    await assert.rejects(files.load(), failsWith("FailedPrecondition", /broken/));
    await files.remove();
    assert.equal(await files.load(), undefined);
  });
});
