/** While the root is replaced: whoever can meet another on the managers' port reaches it, over real TLS. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { afterEach, before, test } from "node:test";
import tls from "node:tls";
import { type Foundation, foundCluster } from "../ca/cluster-fixture.ts";
import { newCertificateRequest } from "../ca/request.ts";
import { RootAuthority, type RootMaterial } from "../ca/root.ts";
import { rootAsAsked } from "../ca/rotation.ts";
import { isShoalError, ShoalError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { NodeRole } from "../model/types.ts";
import { managerDialer } from "./client.ts";
import { createRpcServer } from "./server.ts";
import type { ManagerServices, NodeIdentity } from "./services.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const fail = (): never => {
  throw new ShoalError("Unimplemented", "not in this test");
};
const services: ManagerServices = {
  ca: { rootCertificate: fail, issue: fail, status: fail },
  dispatcher: { session: fail, heartbeat: async () => ({ periodMs: 5000 }), updateTaskStatus: fail, assignments: fail },
  logBroker: { listenSubscriptions: fail, publishLogs: fail },
  authorize: () => {},
};

/** What a node has on its disk, from before the rotation to after it. */
const stages = ["before", "renewed", "told of the new root", "renewed after it"] as const;
type Stage = (typeof stages)[number];

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

async function serve(identity: NodeIdentity) {
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
