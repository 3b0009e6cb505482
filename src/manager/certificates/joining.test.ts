/** A node joins a manager over real TLS: token, root, certificate, session; and what happens when something is wrong. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { verifyNodeCertificate } from "../../ca/chain.ts";
import { type Foundation, foundCluster } from "../../ca/cluster-fixture.ts";
import { joinWithToken, renewIdentity } from "../../ca/join.ts";
import { newJoinToken } from "../../ca/tokens.ts";
import { type Clock, systemClock } from "../../lib/clock.ts";
import { isShoalError, ShoalError, type StatusCode } from "../../lib/errors.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { bootstrapClient, managerDialer } from "../../rpc/client.ts";
import { createRpcServer, type RpcServer } from "../../rpc/server.ts";
import type { BootstrapClient, DispatcherService, NodeIdentity } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import { watchRemovedNodes } from "./removed.ts";
import { CertificateService } from "./service.ts";
import { certificateSigner } from "./signer.ts";

const never = new AbortController().signal;
const random = seededRandom(5);
/** Waits between tries pass at once; the limit of a call never does. */
const impatientClock: Clock = {
  now: systemClock.now,
  after: (delayMs, run) => systemClock.after(delayMs === 5_000 ? 60_000 : 0, run),
};

interface Manager {
  readonly founded: Foundation;
  readonly store: Store;
  readonly server: RpcServer;
  readonly address: string;
  readonly token: string;
}

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

async function startManager(clusterId: string, admitsManagers = async () => {}): Promise<Manager> {
  const options = { clusterId, nodeId: "manager1", expiryNanoseconds: undefined, now: systemClock.now(), random };
  const founded = await foundCluster(options);
  const store = await Store.open(new MemoryBackend(), systemClock);
  await store.update((tx) => {
    tx.create("cluster", {
      ID: clusterId,
      Spec: { Name: "default" },
      RootCA: founded.rootCA,
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      RemovedNodes: {},
    });
  });
  const ca = new CertificateService({ store, random, admitsManagers });
  const signer = certificateSigner({ store, clock: systemClock, random, log: silentLogger });
  signer.start();
  const server = createRpcServer({
    services: { ca, dispatcher: dispatcherOf(store), logBroker, networks, authorize: (caller) => ca.authorize(caller) },
    identity: founded.identity,
    log: silentLogger,
  });
  const unwatch = watchRemovedNodes(store, (nodeId) => server.disconnect(nodeId));
  const { port } = await server.listen("127.0.0.1", 0);
  cleanups.push(async () => {
    unwatch();
    await server.close();
    await signer.stop();
    await store.close();
  });
  return { founded, store, server, address: `127.0.0.1:${port}`, token: founded.rootCA.JoinTokens.Worker };
}

function dispatcherOf(store: Store): DispatcherService {
  return {
    async *session(caller, _, signal) {
      const node = store.view.get("nodes", caller.nodeId)!;
      yield { sessionId: "session1", node, managers: [], rootCA: store.view.cluster()!.RootCA.Certificate };
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    },
    heartbeat: async () => ({ periodMs: 5000 }),
    rest: unused,
    updateTaskStatus: unused,
    assignments: unused,
  };
}

const logBroker = { listenSubscriptions: unused, publishLogs: unused };
const networks = { networks: unused, applied: unused, withdraw: unused, attach: unused, detach: unused };

function unused(): never {
  throw new ShoalError("Unimplemented", "not in this test");
}

function join(address: string, token: string, client: BootstrapClient = bootstrapClient): Promise<NodeIdentity> {
  return joinWithToken({
    client,
    address,
    token,
    availability: "active",
    clock: impatientClock,
    random,
    signal: never,
  });
}

function dial(address: string, identity: NodeIdentity) {
  const connection = managerDialer.dial(address, identity);
  cleanups.push(() => connection.close());
  return connection;
}

function failsWith(code: StatusCode, message: RegExp = /./) {
  return (error: unknown) => {
    assert.ok(isShoalError(error), String(error));
    assert.deepEqual([error.code, message.test(error.message)], [code, true], error.message);
    return true;
  };
}

let manager: Manager;
beforeEach(async () => {
  manager = await startManager("cluster1");
});

test("from a token to a session", async () => {
  const identity = await join(manager.address, manager.token);
  assert.deepEqual([identity.clusterId, identity.role], ["cluster1", "worker"]);
  assert.equal(identity.rootCA, manager.founded.rootCA.Certificate);
  const connection = dial(manager.address, identity);
  const stream = connection.session({ description: { Hostname: "h" }, sessionId: "" }, never)[Symbol.asyncIterator]();
  const first = await stream.next();
  assert.equal(first.value?.node.ID, identity.nodeId);
  assert.equal(first.value?.node.Certificate?.State, "issued");
  assert.equal(first.value?.node.Certificate?.Certificate, identity.chain);
  assert.deepEqual(await connection.heartbeat("session1", never), { periodMs: 5000 });
});

test("the manager token makes a manager, whose certificate serves others", async () => {
  const identity = await join(manager.address, manager.founded.rootCA.JoinTokens.Manager);
  assert.equal(identity.role, "manager");
  manager.server.setIdentity(identity);
  const worker = await join(manager.address, manager.token);
  await dial(manager.address, worker).heartbeat("s", never);
});

test("where the store cannot be shared, a manager is refused and leaves no node behind; a worker is not", async () => {
  const refusing = await startManager("cluster3", async () => {
    throw new ShoalError("FailedPrecondition", "install the package etcd-server");
  });
  await assert.rejects(
    join(refusing.address, refusing.founded.rootCA.JoinTokens.Manager),
    failsWith("FailedPrecondition", /^install the package etcd-server$/),
  );
  assert.equal(refusing.store.view.count("nodes"), 0);
  assert.equal((await join(refusing.address, refusing.token)).role, "worker");
});

test("a wrong token fails at once, and leaves no node behind", async () => {
  const wrongSecret = newJoinToken(manager.founded.rootCA.Certificate, seededRandom(9));
  await assert.rejects(
    join(manager.address, wrongSecret),
    failsWith("InvalidArgument", /^A valid join token is necessary to join this cluster$/),
  );
  const other = await startManager("cluster2");
  await assert.rejects(
    join(manager.address, other.token),
    failsWith("FailedPrecondition", /^remote CA does not match fingerprint$/),
  );
  await assert.rejects(join(manager.address, "SWMTKN-1-x-y"), failsWith("InvalidArgument", /^invalid join token$/));
  assert.equal(manager.store.view.count("nodes"), 0);
});

test("a node of another cluster gets nothing here", async () => {
  const other = await startManager("cluster2");
  const stranger = await join(other.address, other.token);
  const asStranger = { ...stranger, rootCA: manager.founded.rootCA.Certificate };
  await assert.rejects(dial(manager.address, asStranger).heartbeat("s", never), failsWith("PermissionDenied"));
  await assert.rejects(dial(manager.address, stranger).heartbeat("s", never), failsWith("Unavailable"));
});

test("a manager that is not there is tried again, then given up", async () => {
  await manager.server.close();
  let tried = 0;
  const counting: BootstrapClient = {
    ...bootstrapClient,
    proof: (address, signal) => {
      tried++;
      return bootstrapClient.proof(address, signal);
    },
  };
  await assert.rejects(join(manager.address, manager.token, counting), failsWith("Unavailable", /ECONNREFUSED/));
  assert.equal(tried, 5);
});

test("a certificate is renewed over the connection that it opened", async () => {
  const identity = await join(manager.address, manager.token);
  const options = { clock: impatientClock, random, signal: never };
  const renewed = await renewIdentity({ connection: dial(manager.address, identity), identity, ...options });
  assert.equal(renewed.nodeId, identity.nodeId);
  assert.notEqual(renewed.key, identity.key);
  verifyNodeCertificate(renewed.chain, identity.rootCA, renewed.key, systemClock.now());
  assert.equal(manager.store.view.count("nodes"), 1);
  await dial(manager.address, renewed).heartbeat("s", never);
});

test("a removed node is cut off, can't renew, and may join anew as another", async () => {
  const identity = await join(manager.address, manager.token);
  const connection = dial(manager.address, identity);
  const stream = connection.session({ description: {}, sessionId: "" }, never)[Symbol.asyncIterator]();
  await stream.next();
  const cut = assert.rejects(stream.next(), failsWith("Unavailable"));
  await manager.store.update((tx) => {
    tx.delete("nodes", identity.nodeId);
    const RemovedNodes = { [identity.nodeId]: "2099-01-01T00:00:00.000Z" };
    tx.put("cluster", { ...tx.cluster()!, RemovedNodes });
  });
  await cut;
  const again = dial(manager.address, identity);
  await assert.rejects(again.heartbeat("s", never), failsWith("PermissionDenied", /was removed from swarm$/));
  const options = { clock: impatientClock, random, signal: never };
  await assert.rejects(
    renewIdentity({ connection: again, identity, ...options }),
    failsWith("InvalidArgument", /valid join token/),
  );
  assert.notEqual((await join(manager.address, manager.token)).nodeId, identity.nodeId);
});
