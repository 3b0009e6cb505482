/** What managers say to each other, over real TLS on the loopback: what travels, and who is let in. */
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { type Foundation, foundCluster } from "../ca/cluster-fixture.ts";
import { newCertificateRequest } from "../ca/request.ts";
import { RootAuthority } from "../ca/root.ts";
import { ShoalError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { NodeRole } from "../model/types.ts";
import {
  type JoinStoreRequest,
  type LogsRequest,
  PeerConnection,
  type PeerService,
  type StoreTicket,
} from "./peers.ts";
import { createRpcServer } from "./server.ts";
import type { LogMessage, LogOptions, ManagerServices, NodeIdentity } from "./services.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const inServiceMs = 5_000_000_000;
const never = new AbortController().signal;
const ticket: StoreTicket = {
  members: [
    { nodeId: "manager1", peerAddress: "10.0.0.1:2380", voter: true },
    { nodeId: "manager2", peerAddress: "10.0.0.2:2380", voter: false },
  ],
  dataKey: Buffer.from(seededRandom(3).bytes(32)).toString("base64"),
  storeCA: { certificate: "certificate", key: "key" },
  unlockKey: "SWMKEY-1-key",
};
const line: LogMessage = {
  context: { serviceId: "s1", nodeId: "n1", taskId: "t1" },
  timestamp: "2026-01-01T00:00:00.123456789Z",
  stream: "stderr",
  data: Buffer.from("a line"),
  attributes: { a: "b" },
};
const options: LogOptions = { streams: ["stderr"], follow: true, tail: 7, since: "" };

function unused(): never {
  throw new ShoalError("Unimplemented", "not in this test");
}

interface Asked {
  joins: { nodeId: string; request: JoinStoreRequest }[];
  leaves: { nodeId: string; forget: boolean }[];
  logs: LogsRequest[];
  withdrawals: { taskIds: readonly string[]; holdMs: number }[];
}

async function startManager() {
  const found = { clusterId: "cluster1", nodeId: "manager1", expiryNanoseconds: undefined };
  const founded = await foundCluster({ ...found, now: Date.now(), random: seededRandom(1) });
  const asked: Asked = { joins: [], leaves: [], logs: [], withdrawals: [] };
  const peers: PeerService = {
    async joinStore({ nodeId }, { address, peerAddress }) {
      asked.joins.push({ nodeId, request: { address, peerAddress } });
      return ticket;
    },
    async leaveStore({ nodeId }, forget) {
      asked.leaves.push({ nodeId, forget });
    },
    ping: () => inServiceMs,
    async *logs(request) {
      asked.logs.push(request);
      yield line;
    },
    async withdrawTasks(taskIds, holdMs) {
      asked.withdrawals.push({ taskIds, holdMs });
    },
  };
  const services: ManagerServices = {
    ca: { rootCertificate: unused, issue: unused, status: unused },
    dispatcher: { session: unused, heartbeat: unused, rest: unused, updateTaskStatus: unused, assignments: unused },
    logBroker: { listenSubscriptions: unused, publishLogs: unused },
    networks: { networks: unused, applied: unused, withdraw: unused, attach: unused, detach: unused },
    authorize: ({ nodeId }) => {
      if (nodeId === "removed") throw new ShoalError("PermissionDenied", "removed from swarm");
    },
  };
  const server = createRpcServer({ services, peers, identity: founded.identity, log: silentLogger });
  const { port } = await server.listen("127.0.0.1", 0);
  cleanups.push(() => server.close());
  const dial = async (nodeId: string, role: NodeRole, clusterId?: string) => {
    const connection = new PeerConnection(`127.0.0.1:${port}`, await node(founded, nodeId, role, clusterId));
    cleanups.push(() => connection.close());
    return connection;
  };
  return { asked, dial };
}

async function node(by: Foundation, nodeId: string, role: NodeRole, clusterId = by.identity.clusterId) {
  const { csr, key } = await newCertificateRequest();
  const authority = await RootAuthority.open({ certificate: by.rootCA.Certificate, key: by.rootCA.Key });
  const chain = await authority.issue({ csr, nodeId, role, clusterId, expiryNanoseconds: undefined, now: Date.now() });
  return { nodeId, clusterId, role, chain, key, rootCA: by.rootCA.Certificate } satisfies NodeIdentity;
}

test("a manager joins, pings, reads logs, withdraws tasks and leaves", async () => {
  const { asked, dial } = await startManager();
  const connection = await dial("manager2", "manager");
  const request = { address: "10.0.0.2:2377", peerAddress: "10.0.0.2:2380" };
  assert.deepEqual(await connection.joinStore(request, never), ticket);
  assert.equal(await connection.ping(never), inServiceMs);
  const lines: LogMessage[] = [];
  const selector = { serviceIds: ["s1"], taskIds: ["t1"] };
  const logs: LogsRequest = { selector, nodeIds: ["n1", "n2"], options };
  const resume = { askedAt: "2026-01-01T00:00:00Z", positions: new Map([["t1", line.timestamp]]) };
  for await (const got of connection.logs({ ...logs, resume }, never)) lines.push(got);
  for await (const _ of connection.logs(logs, never));
  assert.deepEqual(
    lines.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data).toString() })),
    [{ ...line, data: "a line" }],
  );
  await connection.withdrawTasks(["t1", "t2"], 40_000, never);
  await connection.leaveStore(true, never);
  assert.deepEqual(asked.joins, [{ nodeId: "manager2", request }]);
  assert.deepEqual(asked.leaves, [{ nodeId: "manager2", forget: true }]);
  assert.deepEqual(asked.logs, [{ ...logs, resume }, logs]);
  assert.deepEqual(asked.withdrawals, [{ taskIds: ["t1", "t2"], holdMs: 40_000 }]);
});

test("nobody but managers of this cluster is let in, and the store's keys go to nobody else", async () => {
  const { asked, dial } = await startManager();
  const strangers = [
    await dial("worker1", "worker"),
    await dial("manager2", "manager", "cluster2"),
    await dial("removed", "manager"),
  ];
  for (const connection of strangers) {
    const calls = [
      () => connection.joinStore({ address: "a:1", peerAddress: "a:2" }, never),
      () => connection.ping(never),
      () => connection.leaveStore(true, never),
      () => connection.withdrawTasks(["t1"], 1_000, never),
      () =>
        connection
          .logs({ selector: { serviceIds: ["s1"], taskIds: [] }, nodeIds: [], options }, never)
          [Symbol.asyncIterator]()
          .next(),
    ];
    for (const call of calls) await assert.rejects(call, { code: "PermissionDenied" });
  }
  assert.deepEqual(asked, { joins: [], leaves: [], logs: [], withdrawals: [] });
});
