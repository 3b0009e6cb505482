/** While the root is replaced: whoever can meet another on the managers' port reaches it, over real TLS. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { createPrivateKey, webcrypto } from "node:crypto";
import http2 from "node:http2";
import { afterEach, before, test } from "node:test";
import tls from "node:tls";
import * as x509 from "@peculiar/x509";
import { type Foundation, foundCluster } from "../ca/cluster-fixture.ts";
import { joinWithToken } from "../ca/join.ts";
import { newCertificateRequest } from "../ca/request.ts";
import { newRoot, RootAuthority, type RootMaterial } from "../ca/root.ts";
import { rootAsAsked } from "../ca/rotation.ts";
import { newJoinToken } from "../ca/tokens.ts";
import { type Clock, systemClock } from "../lib/clock.ts";
import { isShoalError, ShoalError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { NodeRole } from "../model/types.ts";
import { bootstrapClient, managerDialer } from "./client.ts";
import { createRpcServer } from "./server.ts";
import type { ManagerServices, NodeIdentity } from "./services.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const fail = (): never => {
  throw new ShoalError("Unimplemented", "not in this test");
};
const unused: ManagerServices = {
  ca: { rootCertificate: fail, issue: fail, status: fail },
  dispatcher: {
    session: fail,
    rest: fail,
    heartbeat: async () => ({ periodMs: 5000 }),
    updateTaskStatus: fail,
    assignments: fail,
  },
  logBroker: { listenSubscriptions: fail, publishLogs: fail },
  networks: { networks: fail, applied: fail, withdraw: fail, attach: fail, detach: fail },
  authorize: () => {},
};

/** What a node has on its disk, from before the rotation to after it. */
const stages = ["before", "renewed", "told of the new root", "renewed after it"] as const;
type Stage = (typeof stages)[number];

/** Calls have their time; between tries none passes. */
const impatientClock: Clock = {
  now: systemClock.now,
  after: (delayMs, run) => systemClock.after(delayMs === 5_000 ? delayMs : 0, run),
};

let founded: Foundation;
/** Roots by what signs, and what is trusted. */
let signs: Record<Stage, RootMaterial>;
let trusts: Record<Stage, string>;

before(async () => {
  const now = Date.now();
  founded = await foundCluster({
    clusterId: "c",
    nodeId: "m",
    expiryNanoseconds: undefined,
    now,
    random: seededRandom(1),
  });
  const { Certificate: old, Key } = founded.rootCA;
  const { Rotation } = await rootAsAsked(founded.rootCA, { ForceRotate: 1 }, now);
  assert.ok(Rotation);
  const next = { certificate: Rotation.Certificate, key: Rotation.Key };
  const crossed = { ...next, crossSigned: Rotation.CrossSigned };
  signs = {
    before: { certificate: old, key: Key },
    renewed: crossed,
    "told of the new root": crossed,
    "renewed after it": next,
  };
  trusts = {
    before: old,
    renewed: old,
    "told of the new root": next.certificate,
    "renewed after it": next.certificate,
  };
});

async function identityAt(stage: Stage, nodeId: string, role: NodeRole): Promise<NodeIdentity> {
  const { csr, key } = await newCertificateRequest();
  const authority = await RootAuthority.open(signs[stage]);
  const chain = await authority.issue({
    csr,
    nodeId,
    role,
    clusterId: "c",
    expiryNanoseconds: undefined,
    now: Date.now(),
  });
  return { nodeId, clusterId: "c", role, chain, key, rootCA: trusts[stage] };
}

async function serve(identity: NodeIdentity, ca = unused.ca) {
  const services = { ...unused, ca };
  const server = createRpcServer({ services, identity, log: silentLogger });
  cleanups.push(() => server.close());
  const { port } = await server.listen("127.0.0.1", 0);
  return { server, port };
}

async function reaches(port: number, identity: NodeIdentity): Promise<boolean> {
  const connection = managerDialer.dial(`127.0.0.1:${port}`, identity);
  cleanups.push(() => connection.close());
  try {
    await connection.heartbeat("s", AbortSignal.timeout(10_000));
    return true;
  } catch (error) {
    if (isShoalError(error, "Unavailable") || isShoalError(error, "PermissionDenied")) return false;
    throw error;
  }
}

test("nodes that are a step apart reach each other, in both directions", async () => {
  for (const [index, serverStage] of stages.entries()) {
    const { port } = await serve(await identityAt(serverStage, "m", "manager"));
    for (const [other, clientStage] of stages.entries()) {
      const worker = await identityAt(clientStage, "w", "worker");
      // The old root goes only when every node has renewed, so those two never meet.
      const meet = Math.abs(index - other) <= 1;
      if (meet) assert.ok(await reaches(port, worker), `manager ${serverStage}, node ${clientStage}`);
    }
  }
});

/**
 * The new root signed by another one, as a stock manager makes it: it doesn't name the key that has signed it, and as both
 * roots have one name, it looks as if it had signed itself.
 */
async function crossedAsStock(next: RootMaterial, by: RootMaterial): Promise<string> {
  const other = new x509.X509Certificate(next.certificate);
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pkcs8 = createPrivateKey(by.key).export({ format: "der", type: "pkcs8" });
  const crossed = await x509.X509CertificateGenerator.create({
    subject: other.subjectName,
    issuer: new x509.X509Certificate(by.certificate).subjectName,
    notBefore: other.notBefore,
    notAfter: other.notAfter,
    publicKey: other.publicKey,
    signingKey: await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.BasicConstraintsExtension(true, undefined, true),
      other.getExtension(x509.SubjectKeyIdentifierExtension)!,
    ],
  });
  return `${crossed.toString("pem")}\n`;
}

/** Joins a manager that has renewed as a stock one does; @param by who has signed the new root */
async function joinStockInRotation(by: RootMaterial): Promise<NodeIdentity> {
  const next = signs["renewed after it"];
  const authority = await RootAuthority.open({ ...next, crossSigned: await crossedAsStock(next, by) });
  const issue = (csr: string, nodeId: string, role: NodeRole) =>
    authority.issue({ csr, nodeId, role, clusterId: "c", expiryNanoseconds: undefined, now: Date.now() });
  const { csr, key } = await newCertificateRequest();
  const own = await issue(csr, "m", "manager");
  const manager: NodeIdentity = {
    nodeId: "m",
    clusterId: "c",
    role: "manager",
    chain: own,
    key,
    rootCA: trusts.renewed,
  };
  let asked = "";
  const { port } = await serve(manager, {
    rootCertificate: async () => trusts.renewed,
    issue: async (request) => {
      asked = request.csr;
      return { nodeId: "w" };
    },
    status: async () => ({
      state: "issued",
      role: "worker",
      csr: asked,
      certificate: await issue(asked, "w", "worker"),
    }),
  });
  return joinWithToken({
    client: bootstrapClient,
    address: `127.0.0.1:${port}`,
    token: newJoinToken(trusts.renewed, seededRandom(2)),
    availability: "active",
    clock: impatientClock,
    random: seededRandom(3),
    signal: AbortSignal.timeout(10_000),
  });
}

test("a node joins a stock manager in the middle of it", async () => {
  const { nodeId, rootCA } = await joinStockInRotation(signs.before);
  assert.deepEqual([nodeId, rootCA], ["w", trusts.renewed]);
});

test("a manager that only pretends to be in the middle of it is not believed", async () => {
  const stranger = await newRoot(Date.now());
  await assert.rejects(joinStockInRotation(stranger), { code: "Unavailable", message: /self-signed/ });
});

test("a certificate of the new root without the old one's signature is nothing before the rotation ends", async () => {
  const { port } = await serve(await identityAt("before", "m", "manager"));
  assert.equal(await reaches(port, await identityAt("renewed after it", "w", "worker")), false);
});

test("a running server takes each step for the connections that follow, and keeps those that are open", async () => {
  const { server, port } = await serve(await identityAt("before", "m", "manager"));
  const early = managerDialer.dial(`127.0.0.1:${port}`, await identityAt("before", "w", "worker"));
  cleanups.push(() => early.close());
  await early.heartbeat("s", AbortSignal.timeout(10_000));
  for (const stage of stages.slice(1)) {
    server.setIdentity(await identityAt(stage, "m", "manager"));
    assert.ok(await reaches(port, await identityAt(stage, "w", "worker")), stage);
    await early.heartbeat("s", AbortSignal.timeout(10_000));
  }
});

test("a stock agent, which dials without ALPN once its issuer has changed, is served in the middle of it", async () => {
  const { server, port } = await serve(await identityAt("before", "m", "manager"));
  server.setIdentity(await identityAt("renewed", "m", "manager"));
  const { chain: cert, key, rootCA: ca } = await identityAt("renewed", "w", "worker");
  const socket = tls.connect({ host: "127.0.0.1", port, servername: "swarm-manager", key, cert, ca });
  cleanups.push(() => socket.destroy());
  await new Promise<void>((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  assert.equal(socket.alpnProtocol, false);
  const session = http2.connect("https://swarm-manager", { createConnection: () => socket });
  cleanups.push(() => session.destroy());
  const trailers = await new Promise<http2.IncomingHttpHeaders>((resolve, reject) => {
    session.once("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": "/docker.swarmkit.v1.Dispatcher/Heartbeat",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.once("error", reject).once("trailers", resolve).resume();
    stream.end(Buffer.alloc(5)); // an empty message in gRPC's envelope
  });
  assert.equal(trailers["grpc-status"], "0");
});
