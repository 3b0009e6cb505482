/** The managers' port and the agents' dialer against each other, over real TLS on the loopback. */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import http2 from "node:http2";
import net from "node:net";
import { afterEach, test } from "node:test";
import tls from "node:tls";
import { createClient } from "@connectrpc/connect";
import { type Foundation, foundCluster } from "../ca/cluster-fixture.ts";
import { newCertificateRequest } from "../ca/request.ts";
import { RootAuthority } from "../ca/root.ts";
import { isShoalError, ShoalError, type StatusCode, statusCodes } from "../lib/errors.ts";
import { type Logger, silentLogger } from "../lib/log.ts";
import { AsyncQueue } from "../lib/queue.ts";
import { seededRandom } from "../lib/random.ts";
import type { NetworksMessage } from "../model/network-state.ts";
import type { NodeRole, TaskStatus } from "../model/types.ts";
import { bootstrapClient, managerDialer } from "./client.ts";
import { Connection } from "./connection.ts";
import { CA } from "./gen/ca_pb.js";
import { createRpcServer, type RpcServer } from "./server.ts";
import type {
  AssignmentsMessage,
  Caller,
  LogMessage,
  LogSubscription,
  ManagerConnection,
  ManagerServices,
  NodeIdentity,
  SessionMessage,
} from "./services.ts";

const hourNanoseconds = 3_600_000 * 1e6;
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const never = new AbortController().signal;

function failsWith(code: StatusCode, message: RegExp = /./) {
  return (error: unknown) => {
    assert.ok(isShoalError(error), String(error));
    assert.deepEqual([error.code, message.test(error.message)], [code, true], error.message);
    return true;
  };
}

function foundation(clusterId = "cluster1"): Promise<Foundation> {
  const options = { nodeId: "manager1", expiryNanoseconds: hourNanoseconds, now: Date.now(), random: seededRandom(1) };
  return foundCluster({ clusterId, ...options });
}

async function node(by: Foundation, nodeId: string, role: NodeRole = "worker", clusterId = by.identity.clusterId) {
  const { csr, key } = await newCertificateRequest();
  const authority = await RootAuthority.open({ certificate: by.rootCA.Certificate, key: by.rootCA.Key });
  const options = { csr, nodeId, role, clusterId, expiryNanoseconds: hourNanoseconds, now: Date.now() };
  const chain = await authority.issue(options);
  return { nodeId, clusterId, role, chain, key, rootCA: by.rootCA.Certificate } satisfies NodeIdentity;
}

/** Services of which a test replaces what it needs. */
type Fakes = {
  ca?: Partial<ManagerServices["ca"]>;
  dispatcher?: Partial<ManagerServices["dispatcher"]>;
  logBroker?: Partial<ManagerServices["logBroker"]>;
  networks?: Partial<ManagerServices["networks"]>;
  authorize?: ManagerServices["authorize"];
};

function fail(): never {
  throw new ShoalError("Unimplemented", "not in this test");
}

async function serve(founded: Foundation, fakes: Fakes = {}, log: Logger = silentLogger) {
  const services: ManagerServices = {
    ca: { rootCertificate: async () => founded.rootCA.Certificate, issue: fail, status: fail, ...fakes.ca },
    dispatcher: {
      session: fail,
      heartbeat: async () => ({ periodMs: 5000 }),
      rest: fail,
      updateTaskStatus: fail,
      assignments: fail,
      ...fakes.dispatcher,
    },
    logBroker: { listenSubscriptions: fail, publishLogs: fail, ...fakes.logBroker },
    networks: { networks: fail, applied: fail, withdraw: fail, attach: fail, detach: fail, ...fakes.networks },
    authorize: fakes.authorize ?? (() => {}),
  };
  const server = createRpcServer({ services, identity: founded.identity, log });
  cleanups.push(() => server.close());
  const { port } = await server.listen("127.0.0.1", 0);
  return { server, port, address: `127.0.0.1:${port}` };
}

function dial(address: string, identity: NodeIdentity): ManagerConnection {
  const connection = managerDialer.dial(address, identity);
  cleanups.push(() => connection.close());
  return connection;
}

/** Resolves with what a promise-returning callback is called with. */
function once<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  return Promise.withResolvers<T>();
}

const sessionMessage = (identity: NodeIdentity): SessionMessage => ({
  sessionId: "session1",
  node: {
    ID: identity.nodeId,
    Version: { Index: 7 },
    CreatedAt: "2026-01-01T00:00:00.000Z",
    UpdatedAt: "2026-01-01T00:00:00.000Z",
    Spec: { Labels: {}, Role: identity.role, Availability: "active" },
    Status: { State: "ready", Addr: "127.0.0.1" },
    Role: identity.role,
  },
  managers: [{ nodeId: "manager1", address: "127.0.0.1:2377", weight: 10 }],
  rootCA: identity.rootCA,
});

test("a node's calls reach the services with its own certificate, and the answers come back", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const seen: { caller?: Caller; heartbeat?: string; description?: unknown; updates?: unknown } = {};
  const { address } = await serve(founded, {
    dispatcher: {
      async *session(caller, { description, sessionId }) {
        seen.caller = caller;
        seen.description = description;
        assert.equal(sessionId, "earlier");
        assert.equal(connection.signs?.().pings, false);
        caller.connection?.ping(answered.resolve);
        yield sessionMessage(worker);
      },
      async heartbeat(_, sessionId) {
        seen.heartbeat = sessionId;
        return { periodMs: 4750 };
      },
      async updateTaskStatus(_, __, updates) {
        seen.updates = updates;
      },
    },
  });
  const answered = once<void>();
  const connection = dial(address, worker);
  const description = { Hostname: "host1", Resources: { NanoCPUs: 2e9, MemoryBytes: 1e9 } };
  const messages: SessionMessage[] = [];
  for await (const message of connection.session({ description, sessionId: "earlier" }, never)) {
    assert.equal(connection.signs?.().pings, true, "a ping comes before what is sent after it");
    messages.push(message);
  }
  assert.deepEqual(messages, [sessionMessage(worker)]);
  assert.deepEqual(seen.description, description);
  const { certificate, connection: line, ...caller } = seen.caller!;
  assert.deepEqual(caller, { nodeId: "worker1", role: "worker", clusterId: "cluster1", address: "127.0.0.1" });
  assert.equal(certificate, worker.chain);
  await answered.promise;
  const { accepted, bytesRead } = connection.signs!();
  assert.ok(accepted && bytesRead > 0, `${accepted} ${bytesRead}`);
  assert.ok((line?.bytesRead?.() ?? 0) > 0);

  assert.deepEqual(await connection.heartbeat("session1", never), { periodMs: 4750 });
  assert.equal(seen.heartbeat, "session1");
  const status: TaskStatus = { Timestamp: "2026-01-01T00:00:00.123456789Z", State: "running" };
  await connection.updateTaskStatus("session1", [{ taskId: "task1", status }], never);
  assert.deepEqual(seen.updates, [{ taskId: "task1", status }]);
  const closed = once<void>();
  line?.closed.addEventListener("abort", () => closed.resolve());
  connection.close();
  await closed.promise;
});

test("a stock manager's pings, which measure the line, are none of ours", async () => {
  const founded = await foundation();
  const { chain: cert, key } = founded.identity;
  const answered = once<void>();
  const stock = http2.createSecureServer({ cert, key });
  stock.on("session", (session) => {
    cleanups.push(() => session.destroy());
    session.ping(Buffer.from("02041010090e0707", "hex"), () => answered.resolve());
  });
  cleanups.push(() => stock.close());
  await new Promise<void>((resolve) => stock.listen(0, "127.0.0.1", resolve));
  const { port } = stock.address() as net.AddressInfo;
  const connection = dial(`127.0.0.1:${port}`, await node(founded, "worker1"));
  await answered.promise;
  assert.equal(connection.signs?.().pings, false);
});

test("a stream's message is there before the next one is made", async () => {
  const founded = await foundation();
  const queue = new AsyncQueue<AssignmentsMessage>(10);
  const { address } = await serve(founded, { dispatcher: { assignments: () => queue } });
  const stream = dial(address, await node(founded, "worker1"))
    .assignments("s", never)
    [Symbol.asyncIterator]();
  for (let version = 1; version <= 3; version++) {
    const message: AssignmentsMessage = {
      type: version === 1 ? "complete" : "incremental",
      appliesTo: version === 1 ? "" : String(version - 1),
      resultsIn: String(version),
      changes: [{ kind: "remove-task", id: `task${version}` }],
    };
    queue.push(message);
    assert.deepEqual(await stream.next(), { done: false, value: message });
  }
  queue.close();
  assert.equal((await stream.next()).done, true);
});

test("without a certificate there is the root certificate, and nothing else", async () => {
  const founded = await foundation();
  const { address } = await serve(founded, {
    ca: {
      issue: async ({ token }, caller) => {
        assert.equal(caller, undefined);
        return { nodeId: `joined with ${token}` };
      },
    },
  });
  const { rootCertificate, chain } = await bootstrapClient.proof(address, never);
  assert.equal(rootCertificate, founded.rootCA.Certificate);
  assert.equal(new X509Certificate(chain).toString(), new X509Certificate(founded.identity.chain).toString());
  const joining = bootstrapClient.connect(address, founded.rootCA.Certificate);
  cleanups.push(() => joining.close());
  const request = { csr: "csr", token: "token", availability: "active" as const };
  assert.deepEqual(await joining.issue(request, never), { nodeId: "joined with token" });
  const anonymous = new Connection({
    address,
    serverName: "swarm-manager",
    tls: { ca: founded.rootCA.Certificate },
    verify: true,
  });
  cleanups.push(() => anonymous.close());
  await assert.rejects(
    heartbeatOver(anonymous),
    failsWith("PermissionDenied", /^Permission denied: no client certificates in request$/),
  );
});

async function heartbeatOver(connection: Connection): Promise<unknown> {
  const { Dispatcher } = await import("./gen/dispatcher_pb.js");
  const client = createClient(Dispatcher, connection.transport);
  return await connection.call(never, (signal) => client.heartbeat({ sessionId: "s" }, { signal }));
}

test("a certificate of another root, or of another cluster, opens nothing", async () => {
  const founded = await foundation();
  const { address } = await serve(founded);
  const foreign = await node(await foundation("cluster1"), "worker1");
  // It trusts this cluster's root, so that the connection itself succeeds.
  const connection = dial(address, { ...foreign, rootCA: founded.rootCA.Certificate });
  await assert.rejects(connection.heartbeat("s", never), failsWith("PermissionDenied", /certificate is not valid/));
  const sameRoot = dial(address, await node(founded, "worker1", "worker", "cluster2"));
  await assert.rejects(
    sameRoot.heartbeat("s", never),
    failsWith("PermissionDenied", /remote certificate not part of organization: cluster1$/),
  );
  const stream = sameRoot.assignments("s", never)[Symbol.asyncIterator]();
  await assert.rejects(stream.next(), failsWith("PermissionDenied"));
  // Such a caller may still join with a token: it counts as one without a certificate.
  const { address: other } = await serve(founded, {
    ca: { issue: async (_, caller) => ({ nodeId: String(caller?.nodeId) }) },
  });
  const joining = dial(other, { ...foreign, rootCA: founded.rootCA.Certificate });
  const request = { csr: "csr", token: "token", availability: "active" as const };
  assert.deepEqual(await joining.issue(request, never), { nodeId: "undefined" });
});

test("a server that is no manager of the cluster is not believed", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const impostor = tls.createServer({ key: worker.key, cert: worker.chain, ALPNProtocols: ["h2"] });
  cleanups.push(() => impostor.close());
  await new Promise<void>((resolve) => impostor.listen(0, "127.0.0.1", resolve));
  const { port } = impostor.address() as net.AddressInfo;
  const connection = dial(`127.0.0.1:${port}`, await node(founded, "worker2"));
  await assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable", /swarm-manager/));

  const { address } = await serve(await foundation());
  await assert.rejects(
    dial(address, worker).heartbeat("s", never),
    failsWith("Unavailable", /self-signed|unable to verify|issuer/),
  );
  const { server: _, ...asWorker } = { server: null, ...founded, identity: worker };
  await assert.rejects(serve(asWorker), failsWith("FailedPrecondition", /only a manager serves/));
});

test("what is for managers is refused to workers", async () => {
  const founded = await foundation();
  const { address } = await serve(founded);
  const unlockKey = async (identity: NodeIdentity) => {
    const { chain: cert, key, rootCA: ca } = identity;
    const connection = new Connection({ address, serverName: "swarm-manager", tls: { cert, key, ca }, verify: true });
    cleanups.push(() => connection.close());
    const client = createClient(CA, connection.transport);
    await connection.call(never, (signal) => client.getUnlockKey({}, { signal }));
  };
  await assert.rejects(unlockKey(await node(founded, "w")), failsWith("PermissionDenied", /unauthorized peer role/));
  await assert.rejects(unlockKey(await node(founded, "m", "manager")), failsWith("Unimplemented"));
});

test("an agent that dials without ALPN is served as any other", async () => {
  const founded = await foundation();
  const { port } = await serve(founded);
  const worker = await node(founded, "worker1");
  const socket = tls.connect({
    host: "127.0.0.1",
    port,
    servername: "swarm-manager",
    key: worker.key,
    cert: worker.chain,
    ca: worker.rootCA,
  });
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
      "grpc-timeout": "4999970u",
    });
    stream.once("error", reject).once("trailers", resolve).resume();
    stream.end(Buffer.alloc(5)); // an empty message in gRPC's envelope
  });
  assert.equal(trailers["grpc-status"], "0");
});

test("a TLS session is never resumed, so every connection is verified", async () => {
  const founded = await foundation();
  const { port } = await serve(founded);
  const worker = await node(founded, "worker1");
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    const connect = async (session?: Buffer) => {
      const socket = tls.connect({
        host: "127.0.0.1",
        port,
        servername: "swarm-manager",
        ALPNProtocols: ["h2"],
        key: worker.key,
        cert: worker.chain,
        ca: worker.rootCA,
        maxVersion,
        session,
      });
      cleanups.push(() => socket.destroy());
      // The server's first frame (settings) comes after all that the handshake may bring, tickets too.
      await new Promise((resolve, reject) => socket.once("data", resolve).once("error", reject));
      return socket;
    };
    const first = await connect();
    assert.equal((await connect(first.getSession())).isSessionReused(), false, maxVersion);
  }
});

test("a removed node's streams end at once, and it does not get in again", async () => {
  const founded = await foundation();
  const removed = new Set<string>();
  const { address, server } = await serve(founded, {
    authorize: ({ nodeId }) => {
      if (removed.has(nodeId)) throw new ShoalError("PermissionDenied", `node ${nodeId} was removed from swarm`);
    },
    dispatcher: {
      async *session(_, __, signal) {
        yield sessionMessage(worker);
        await new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      },
    },
  });
  const worker = await node(founded, "worker1");
  const [connection, other] = [dial(address, worker), dial(address, await node(founded, "worker2"))];
  await other.heartbeat("s", never);
  const stream = connection.session({ description: {}, sessionId: "" }, never)[Symbol.asyncIterator]();
  await stream.next();
  removed.add("worker1");
  await assert.rejects(connection.heartbeat("s", never), failsWith("PermissionDenied", /^node worker1 was removed/));
  server.disconnect("worker1");
  await assert.rejects(stream.next(), failsWith("Unavailable"));
  await assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable"));
  await assert.rejects(dial(address, worker).heartbeat("s", never), failsWith("PermissionDenied"));
  await other.heartbeat("s", never);
});

test("a renewed certificate, and a new root, serve at once; open connections go on", async () => {
  const founded = await foundation();
  const { address, server } = await serve(founded);
  const oldWorker = await node(founded, "worker1");
  const open = dial(address, oldWorker);
  await open.heartbeat("s", never);
  const next = await foundation();
  server.setIdentity(next.identity);
  await open.heartbeat("s", never);
  await dial(address, await node(next, "worker1")).heartbeat("s", never);
  await assert.rejects(dial(address, oldWorker).heartbeat("s", never), failsWith("Unavailable"));
});

test("errors keep their code and text; a fault of ours says nothing but is logged", async () => {
  const founded = await foundation();
  const logged: string[] = [];
  const log: Logger = {
    ...silentLogger,
    error: (message, fields) => logged.push(`${message}: ${fields?.error}`),
  };
  let thrown: unknown;
  const heartbeat = async () => {
    throw thrown;
  };
  const { address } = await serve(founded, { dispatcher: { heartbeat } }, log);
  const connection = dial(address, await node(founded, "worker1"));
  for (const code of Object.keys(statusCodes) as StatusCode[]) {
    thrown = new ShoalError(code, `text of ${code}: 100 % "ä"`);
    await assert.rejects(connection.heartbeat("s", never), (error) => {
      assert.ok(isShoalError(error, code));
      assert.equal(error.message, `text of ${code}: 100 % "ä"`);
      return true;
    });
  }
  assert.deepEqual(logged, []);
  thrown = new TypeError("secret detail");
  await assert.rejects(connection.heartbeat("s", never), failsWith("Internal", /^internal error$/));
  assert.deepEqual(logged, ["docker.swarmkit.v1.Dispatcher/Heartbeat failed: secret detail"]);
});

test("a message over 4 MiB is refused by a manager; an agent takes far larger ones", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const large = "x".repeat(5 * 1024 * 1024);
  const answer: AssignmentsMessage = {
    type: "complete",
    appliesTo: "",
    resultsIn: "1",
    changes: [{ kind: "remove-task", id: large }],
  };
  const { address } = await serve(founded, {
    dispatcher: {
      async *assignments() {
        yield answer;
      },
    },
  });
  const connection = dial(address, worker);
  await assert.rejects(connection.heartbeat(large, never), failsWith("ResourceExhausted"));
  const received: AssignmentsMessage[] = [];
  for await (const message of connection.assignments("s", never)) received.push(message);
  assert.ok(received[0]?.changes[0]?.kind === "remove-task" && received[0].changes[0].id.length === large.length);
});

test("close ends everything at once and frees the port", async () => {
  const founded = await foundation();
  const waiting = once<void>();
  const { server, port, address } = await serve(founded, {
    dispatcher: {
      heartbeat: () => {
        waiting.resolve();
        return new Promise(() => {}); // never answers
      },
      async *session() {
        yield sessionMessage(worker);
        await new Promise(() => {});
      },
    },
  });
  const worker = await node(founded, "worker1");
  const connection = dial(address, worker);
  const stream = connection.session({ description: {}, sessionId: "" }, never)[Symbol.asyncIterator]();
  await stream.next();
  const halfOpen = net.connect(port, "127.0.0.1"); // a TLS handshake that never comes
  cleanups.push(() => halfOpen.destroy());
  await new Promise((resolve) => halfOpen.once("connect", resolve));
  const call = assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable"));
  await waiting.promise;
  await server.close();
  await Promise.all([call, assert.rejects(stream.next(), failsWith("Unavailable"))]);

  const again = createRpcServer({ services: {} as ManagerServices, identity: founded.identity, log: silentLogger });
  cleanups.push(() => again.close());
  await again.listen("127.0.0.1", port);
  await server.close(); // twice is once
});

test("a taken port is the system's error", async () => {
  const founded = await foundation();
  const { port } = await serve(founded);
  const second: RpcServer = createRpcServer({
    services: {} as ManagerServices,
    identity: founded.identity,
    log: silentLogger,
  });
  await assert.rejects(second.listen("127.0.0.1", port), { code: "EADDRINUSE" });
  await second.close();
});

test("a manager that is not there is Unavailable, for every call on the connection", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const { server, address } = await serve(founded);
  await server.close();
  const connection = dial(address, worker);
  await assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable", /ECONNREFUSED/));
  await assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable"));
  const stream = connection.session({ description: {}, sessionId: "" }, never)[Symbol.asyncIterator]();
  await assert.rejects(stream.next(), failsWith("Unavailable"));
  connection.close();
  await assert.rejects(connection.heartbeat("s", never), failsWith("Unavailable"));
  await assert.rejects(bootstrapClient.proof(address, never), failsWith("Unavailable"));
});

test("an aborted call is Canceled, and the service hears of it", async () => {
  const founded = await foundation();
  const aborted = once<void>();
  const { address } = await serve(founded, {
    dispatcher: {
      async *session(_, __, signal) {
        yield sessionMessage(worker);
        await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
        aborted.resolve();
      },
    },
  });
  const worker = await node(founded, "worker1");
  const connection = dial(address, worker);
  const controller = new AbortController();
  const stream = connection.session({ description: {}, sessionId: "" }, controller.signal)[Symbol.asyncIterator]();
  await stream.next();
  const next = assert.rejects(stream.next(), failsWith("Canceled"));
  controller.abort(new Error("enough"));
  await Promise.all([next, aborted.promise]);
  await assert.rejects(connection.heartbeat("s", controller.signal), failsWith("Canceled"));
  await connection.heartbeat("s", never);
});

test("leaving a stream early ends it at the service", async () => {
  const founded = await foundation();
  const aborted = once<void>();
  const { address } = await serve(founded, {
    dispatcher: {
      async *session(_, __, signal) {
        signal.addEventListener("abort", () => aborted.resolve());
        yield sessionMessage(worker);
        await aborted.promise;
      },
    },
  });
  const worker = await node(founded, "worker1");
  for await (const message of dial(address, worker).session({ description: {}, sessionId: "" }, never)) {
    assert.equal(message.sessionId, "session1");
    break;
  }
  await aborted.promise;
});

const line = (nodeId: string, text: string): LogMessage => ({
  context: { serviceId: "service1", nodeId, taskId: "task1" },
  timestamp: "2026-01-01T00:00:00.123456789Z",
  stream: "stdout",
  data: new Uint8Array(Buffer.from(text)),
  attributes: { a: "b" },
});
const subscription: LogSubscription = {
  id: "subscription1",
  close: false,
  selector: { serviceIds: ["service1"], nodeIds: [], taskIds: [] },
  options: { streams: ["stdout"], follow: true, tail: 3, since: "" },
};

test("logs are asked for and published", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const published = once<[string, LogMessage[]]>();
  const { address } = await serve(founded, {
    logBroker: {
      async *listenSubscriptions() {
        yield subscription;
        yield { ...subscription, close: true };
      },
      async publishLogs(_, id, messages) {
        const all: LogMessage[] = [];
        for await (const batch of messages) all.push(...batch);
        published.resolve([id, all]);
      },
    },
  });
  const connection = dial(address, worker);
  const subscriptions: LogSubscription[] = [];
  for await (const each of connection.listenSubscriptions(never)) subscriptions.push(each);
  assert.deepEqual(subscriptions, [subscription, { ...subscription, close: true }]);
  async function* batches() {
    yield [line("worker1", "one"), line("worker1", "two")];
    yield [];
    yield [line("worker1", "three")];
  }
  await connection.publishLogs("subscription1", batches(), never);
  const [id, messages] = await published.promise;
  assert.equal(id, "subscription1");
  assert.deepEqual(
    messages.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data).toString() })),
    ["one", "two", "three"].map((text) => ({ ...line("worker1", text), data: text })),
  );
});

test("publishing ends when the manager wants no more, and nobody speaks for another node", async () => {
  const founded = await foundation();
  const { address } = await serve(founded, {
    logBroker: {
      async publishLogs(_, id, messages) {
        for await (const batch of messages) {
          assert.ok(batch.length > 0);
          if (id === "short") return;
        }
      },
    },
  });
  const connection = dial(address, await node(founded, "worker1"));
  const endless = new AsyncQueue<readonly LogMessage[]>(10);
  endless.push([line("worker1", "one")]);
  await connection.publishLogs("short", endless, never);
  endless.close();
  async function* forged() {
    yield [line("worker2", "lie")];
  }
  await assert.rejects(
    connection.publishLogs("long", forged(), never),
    failsWith("PermissionDenied", /^invalid NodeID: expected=worker1;received=worker2$/),
  );
  await connection.heartbeat("s", never);
});

test("a stock manager's answer to published logs, which has no message, is no failure", async () => {
  const founded = await foundation();
  const { chain: cert, key } = founded.identity;
  const stock = http2.createSecureServer({ key, cert });
  stock.on("stream", (stream) => {
    stream.resume().once("end", () => {
      stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.end();
    });
  });
  cleanups.push(() => stock.close());
  await new Promise<void>((resolve) => stock.listen(0, "127.0.0.1", resolve));
  const { port } = stock.address() as net.AddressInfo;
  const connection = dial(`127.0.0.1:${port}`, await node(founded, "worker1"));
  async function* one() {
    yield [line("worker1", "one")];
  }
  await connection.publishLogs("subscription1", one(), never);
});

test("a node follows its networks, and what it says of them reaches the manager", async () => {
  const founded = await foundation();
  const worker = await node(founded, "worker1");
  const said: NetworksMessage[] = [
    { type: "complete", revision: 7, changes: [] },
    { type: "incremental", revision: 9, changes: [{ kind: "remove-network", networkId: "net1" }] },
  ];
  const heard: unknown[] = [];
  const { address } = await serve(founded, {
    networks: {
      async *networks({ nodeId }, sessionId, dataPath) {
        heard.push([nodeId, sessionId, dataPath]);
        yield* said;
      },
      async applied({ nodeId }, sessionId, revision) {
        heard.push([nodeId, sessionId, revision]);
      },
      async withdraw({ nodeId }, sessionId, taskIds) {
        heard.push([nodeId, sessionId, taskIds]);
      },
      async attach({ nodeId }, request) {
        heard.push([nodeId, request]);
        return { taskId: "task1" };
      },
      async detach() {
        throw new ShoalError("PermissionDenied", "attachment task2 doesn't belong to this node");
      },
    },
  });
  const connection = dial(address, worker);
  const never = new AbortController().signal;
  const got: NetworksMessage[] = [];
  for await (const message of connection.networks("s1", { address: "10.0.0.1" }, never)) got.push(message);
  assert.deepEqual(got, said);
  await connection.applied("s1", 9, never);
  await connection.withdraw("s1", ["t1", "t2"], never);
  const request = { network: "net1", containerId: "c1", aliases: ["db"], address: "" };
  assert.deepEqual(await connection.attach(request, never), { taskId: "task1" });
  await assert.rejects(connection.detach("task2", never), {
    code: "PermissionDenied",
    message: "attachment task2 doesn't belong to this node",
  });
  assert.deepEqual(heard, [
    ["worker1", "s1", { address: "10.0.0.1" }],
    ["worker1", "s1", 9],
    ["worker1", "s1", ["t1", "t2"]],
    ["worker1", request],
  ]);
});
