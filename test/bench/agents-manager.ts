/**
 * The manager under `npm run bench -- agents`, a process of its own: a whole manager on LMDB (loops, dispatcher,
 * certificates, gRPC port) and the API on a unix socket, put together as the daemon does, but without an agent and an
 * Engine of its own. It is told how many nodes to know, and says where it is.
 */
import { createServer } from "node:net";
import { join } from "node:path";
import { createApi } from "../../src/api/api.ts";
import type { LocalNode } from "../../src/api/context.ts";
import { newCertificateRequest } from "../../src/ca/request.ts";
import { newRoot, RootAuthority } from "../../src/ca/root.ts";
import { newJoinToken } from "../../src/ca/tokens.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import { newId } from "../../src/lib/ids.ts";
import type { Logger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { Manager } from "../../src/manager/manager.ts";
import { newCluster } from "../../src/model/cluster.ts";
import { predefinedNetworks } from "../../src/model/networks.ts";
import { createRpcServer } from "../../src/rpc/server.ts";
import type { NodeIdentity } from "../../src/rpc/services.ts";
import { dataKeyBytes, ValueCipher } from "../../src/store/encryption.ts";
import { LmdbBackend } from "../../src/store/lmdb.ts";
import { SingleReplica } from "../../src/store/replica.ts";
import { Store } from "../../src/store/store.ts";

export interface ManagerReady {
  /** host:port of the gRPC port. */
  readonly address: string;
  /** Path of the API's socket. */
  readonly socket: string;
  readonly clusterId: string;
  readonly root: { readonly certificate: string; readonly key: string };
}

/** What the manager has to say (a node that is down, a failure), a benchmark had better show. */
const complaints: Logger = {
  debug() {},
  info: (message, fields) => console.error("manager:", message, fields ?? ""),
  warn: (message, fields) => console.error("manager:", message, fields ?? ""),
  error: (message, fields) => console.error("manager:", message, fields ?? ""),
  child: () => complaints,
};

const clusterId = "benchcluster";
const managerId = "benchmanager";
const nodesPerTransaction = 500;

/** The id of the simulated node `index`. */
export function agentId(index: number): string {
  return `agent${String(index).padStart(5, "0")}`;
}

async function runManager(directory: string, nodes: number): Promise<ManagerReady> {
  const parts = { clock: systemClock, random: systemRandom, log: complaints };
  const root = await newRoot(Date.now());
  const authority = await RootAuthority.open(root);
  const { csr, key } = await newCertificateRequest();
  const issued = { nodeId: managerId, role: "manager", clusterId } as const;
  const chain = await authority.issue({ ...issued, csr, expiryNanoseconds: undefined, now: Date.now() });
  const identity: NodeIdentity = { ...issued, chain, key, rootCA: root.certificate };

  const cipher = new ValueCipher(systemRandom.bytes(dataKeyBytes), systemRandom);
  const backend = new LmdbBackend({ directory: join(directory, "store"), cipher });
  const store = await Store.open(backend, systemClock);
  const token = newJoinToken(root.certificate, systemRandom);
  const secrets = { Certificate: root.certificate, Key: root.key, JoinTokens: { Worker: token, Manager: token } };
  await store.update((tx) => {
    tx.create("cluster", newCluster(clusterId, {}, secrets));
    tx.create("nodes", {
      ID: managerId,
      Spec: { Role: "manager", Availability: "drain" },
      Status: { State: "unknown" },
      Role: "manager",
    });
    for (const network of predefinedNetworks(() => newId(systemRandom))) tx.create("networks", network);
  });
  for (let first = 0; first < nodes; first += nodesPerTransaction) {
    await store.update((tx) => {
      for (let index = first; index < Math.min(nodes, first + nodesPerTransaction); index++) {
        const Spec = { Role: "worker", Availability: "active" } as const;
        tx.create("nodes", { ID: agentId(index), Spec, Status: { State: "unknown" }, Role: "worker" });
      }
    });
  }

  const address = `127.0.0.1:${await freePort()}`;
  const election = await new SingleReplica(backend, managerId).elect(store);
  const peers = () => [{ nodeId: managerId, address, weight: 1 }];
  const manager = new Manager({ nodeId: managerId, store, election, ...parts, peers });
  await manager.start();
  const server = createRpcServer({ services: manager.services, identity, log: complaints });
  await server.listen("127.0.0.1", Number(address.split(":")[1]));

  const node = apiNode(manager);
  const socket = join(directory, "shoal.sock");
  const api = createApi({ node, engineSocket: join(directory, "no-engine.sock"), ...parts });
  await new Promise<void>((resolve) => api.createServer().listen(socket, resolve));
  return { address, socket, clusterId, root };
}

/** The manager as the API sees its node. What only a daemon can do is not asked of it here. */
function apiNode(manager: Manager): LocalNode {
  const refuse = () => Promise.reject(new ShoalError("Unimplemented", "not part of this benchmark"));
  return {
    info: () => ({
      NodeID: managerId,
      NodeAddr: "127.0.0.1",
      LocalNodeState: "active",
      ControlAvailable: true,
      Error: "",
      RemoteManagers: null,
    }),
    attachments: () => undefined,
    auditNetworks: refuse,
    manager: () => ({
      nodeId: managerId,
      store: manager.store,
      sealed: async () => {},
      isReachable: () => true,
      watchReachability: () => () => {},
      logs: (selector, options, signal) => manager.logs(selector, options, signal),
    }),
    init: refuse,
    join: refuse,
    unlock: refuse,
    leave: refuse,
  } as LocalNode;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(address !== null && typeof address === "object" ? address.port : 0));
    });
  });
}

// Run as a process by agents.ts: [directory, nodes].
if (process.send && process.argv[1] === import.meta.filename) {
  const [directory, nodes] = process.argv.slice(2);
  process.once("disconnect", () => process.exit(0)); // whoever wanted it is gone
  process.send(await runManager(directory!, Number(nodes)));
}
