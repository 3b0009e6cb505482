/**
 * What the networks' state costs a manager: 1,000 services of 10 tasks each on one network, 20 nodes that all take part
 * in it and have their sessions here. Measured in one process, with the messages encoded as they go on the wire, and
 * taken as a node would: from the commit until the last node has the message.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { Session } from "../../src/manager/dispatcher/session.ts";
import { NetworkIndex } from "../../src/manager/endpoints/network-index.ts";
import { NetworkStates } from "../../src/manager/endpoints/network-states.ts";
import { type NetworkSpec, specKey, type Task } from "../../src/model/types.ts";
import { networksMessageToWire } from "../../src/rpc/convert-network-state.ts";
import { NetworksMessageSchema } from "../../src/rpc/gen/shoal_pb.js";
import { MemoryBackend } from "../../src/store/memory.ts";
import { Store, type Transaction } from "../../src/store/store.ts";
import { median, percentile, printTable, type Row } from "./figures.ts";

const services = 1_000;
const tasksPerService = 10;
const nodes = 20;
const changes = 500;
/** Well under what is left of the 25 ms that a change may take from the commit to a node's kernel. */
const changeTargetMs = 5;
const decisionTargetMs = 0.5;

const spec: NetworkSpec = {
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigOnly: false,
  EnableIPv6: false,
  Options: {},
  IPAM: { Driver: "default", Options: {}, Config: [] },
};

export async function run(): Promise<boolean> {
  return printTable(`networks' state: ${services} x ${tasksPerService} tasks, ${nodes} nodes`, await measure());
}

async function measure(): Promise<Row[]> {
  const store = await Store.open(new MemoryBackend(), systemClock);
  await store.update((tx) => fill(tx));
  const index = new NetworkIndex(
    store.view,
    () => undefined,
    () => undefined,
  );
  const decisions: number[] = [];
  const unwatch = store.watch((commit) => {
    const start = performance.now();
    for (const change of commit.changes) index.apply(change);
    decisions.push(performance.now() - start);
  });
  for (let count = 0; count < changes; count++) await store.update((tx) => flip(tx, count));
  unwatch();

  const sessions = new Map(
    Array.from({ length: nodes }, (_, number) => {
      const id = `node${number}`;
      return [id, new Session(id, id, store.view, () => [])] as const;
    }),
  );
  const states = new NetworkStates({
    store,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    session: ({ nodeId }) => sessions.get(nodeId)!,
    peers: () => [],
  });
  const start = performance.now();
  states.start();
  const startMs = performance.now() - start;
  const readers = [...sessions.keys()].map((nodeId, number) => new Reader(states, nodeId, number));
  const firstStart = performance.now();
  await Promise.all(readers.map((reader) => reader.next()));
  const firstMs = performance.now() - firstStart;
  const completeBytes = readers[0]!.bytes;
  const times: number[] = [];
  for (let count = 0; count < changes; count++) {
    await new Promise<void>((resolve) => systemClock.after(6, resolve)); // on its own: nothing to gather with
    const told = Promise.all(readers.map((reader) => reader.next()));
    const from = performance.now();
    await store.update((tx) => flip(tx, count));
    await told;
    times.push(performance.now() - from);
  }
  states.stop();
  await store.close();
  return [
    { what: "a change: the index", unit: "ms", shoal: median(decisions), target: decisionTargetMs },
    {
      what: "a change: commit in memory until all nodes have it",
      unit: "ms",
      shoal: median(times),
      target: changeTargetMs,
    },
    { what: "the same, 95th percentile", unit: "ms", shoal: percentile(times, 0.95) },
    { what: "a manager's start", unit: "ms", shoal: startMs },
    { what: "a complete message for each node, together", unit: "ms", shoal: firstMs },
    { what: "a complete message", unit: "MiB", shoal: completeBytes / 2 ** 20 },
  ];
}

/** A node's stream, encoded. */
class Reader {
  readonly #messages: ReturnType<NetworkStates["networks"]>;
  bytes = 0;

  constructor(states: NetworkStates, nodeId: string, number: number) {
    const caller = { nodeId, role: "worker" as const, clusterId: "", address: "", certificate: "" };
    const never = new AbortController().signal;
    this.#messages = states.networks(caller, nodeId, { address: `192.168.0.${number + 1}` }, never);
  }

  async next(): Promise<void> {
    const { value } = await this.#messages.next();
    if (!value) throw new Error("the stream has ended");
    this.bytes = toBinary(NetworksMessageSchema, create(NetworksMessageSchema, networksMessageToWire(value))).length;
  }
}

/** A task comes up, or is about to go: in turn, another one each time. */
function flip(tx: Transaction, count: number): void {
  const task = tx.get("tasks", taskId((count * 37) % services, count % tasksPerService))!;
  tx.put("tasks", { ...task, DesiredState: task.DesiredState === "running" ? "shutdown" : "running" });
}

/** Of the length of real ids: it counts on the wire. */
function taskId(service: number, number: number): string {
  return `task-${service}-${number}`.padEnd(25, "x");
}

function fill(tx: Transaction): void {
  tx.create("networks", {
    ID: "network",
    Name: "network",
    Labels: {},
    Driver: "overlay",
    Predefined: false,
    Spec: spec,
    Allocated: { Subnet: "10.0.0.0/16", Gateway: "10.0.0.1", VxlanID: 4097 },
  });
  for (let number = 0; number < nodes; number++) {
    tx.create("nodes", {
      ID: `node${number}`,
      Spec: {},
      Status: { State: "ready" },
      Role: "worker",
      DataPath: { address: `192.168.0.${number + 1}` },
    });
  }
  let address = 2;
  const next = () => `10.0.${address >> 8}.${address++ & 255}/16`;
  for (let service = 0; service < services; service++) {
    const ID = `service-${service}`.padEnd(25, "x");
    const Name = `service-${service}`;
    const VirtualIPs = [{ NetworkID: "network", Addr: next() }];
    tx.create("services", { ID, Name, SpecVersion: { Index: 1 }, Endpoint: { VirtualIPs } });
    const TaskTemplate = { Networks: [{ Target: "network", Aliases: [Name] }] };
    tx.create("specs", { ID: specKey(ID, 1), ServiceID: ID, Revision: 1, Spec: { Name, TaskTemplate } });
    for (let number = 0; number < tasksPerService; number++) {
      const task: Omit<Task, "Version" | "CreatedAt" | "UpdatedAt"> = {
        ID: taskId(service, number),
        ServiceID: ID,
        Slot: number + 1,
        NodeID: `node${(service + number) % nodes}`,
        SpecVersion: { Index: 1 },
        Status: { Timestamp: tx.now, State: "running" },
        DesiredState: "running",
        Addresses: [{ NetworkID: "network", Address: next() }],
      };
      tx.create("tasks", task);
    }
  }
}
