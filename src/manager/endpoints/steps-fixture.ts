/** For tests of the networks' state: anything that can happen in the store, in any order. */
import fc from "fast-check";
import type { Clock } from "../../lib/clock.ts";
import type { TaskState } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store, type Transaction } from "../../store/store.ts";
import { makeNetwork, makeNode, makeService, makeTask, setTask } from "./harness.ts";

export type Write =
  | { readonly kind: "network"; readonly id: string; readonly exists: boolean }
  | { readonly kind: "node"; readonly id: string; readonly exists: boolean; readonly number: number | undefined }
  | { readonly kind: "down"; readonly id: string; readonly isDown: boolean }
  | {
      readonly kind: "service";
      readonly id: string;
      readonly exists: boolean;
      readonly on: readonly string[];
      readonly published: boolean;
      readonly dnsrr: boolean;
    }
  | { readonly kind: "task"; readonly id: string; readonly service: string; readonly node: string }
  | { readonly kind: "state"; readonly id: string; readonly state: TaskState; readonly desired: TaskState }
  | { readonly kind: "forget"; readonly id: string }
  | { readonly kind: "key"; readonly revision: number };

export type Step =
  | { readonly kind: "commit"; readonly writes: readonly Write[] }
  | { readonly kind: "withdraw" | "restore"; readonly id: string }
  | { readonly kind: "read"; readonly node: string };

const networkIds = ["ing", "a", "b", "enc"];
const numbers: Record<string, number> = { ing: 0, a: 1, b: 2, enc: 3 };
const id = (prefix: string, count: number) => fc.constantFrom(...Array.from({ length: count }, (_, n) => prefix + n));
const network = fc.constantFrom(...networkIds);
const node = id("n", 3);
const service = id("s", 3);
const task = id("t", 9);

const write: fc.Arbitrary<Write> = fc.oneof(
  fc.record({ kind: fc.constant("network" as const), id: network, exists: fc.boolean() }),
  fc.record({
    kind: fc.constant("node" as const),
    id: node,
    exists: fc.boolean(),
    number: fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }),
  }),
  fc.record({ kind: fc.constant("down" as const), id: node, isDown: fc.boolean() }),
  fc.record({
    kind: fc.constant("service" as const),
    id: service,
    exists: fc.boolean(),
    on: fc.subarray(["a", "b", "enc"]),
    published: fc.boolean(),
    dnsrr: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("task" as const), id: task, service, node }),
  fc.record({ kind: fc.constant("task" as const), id: task, service, node }),
  fc.record({
    kind: fc.constant("state" as const),
    id: task,
    state: fc.constantFrom<TaskState[]>("pending", "starting", "running", "running", "failed"),
    desired: fc.constantFrom<TaskState[]>("running", "running", "shutdown"),
  }),
  fc.record({ kind: fc.constant("forget" as const), id: task }),
  fc.record({ kind: fc.constant("key" as const), revision: fc.integer({ min: 1, max: 3 }) }),
);
export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof<fc.WeightedArbitrary<Step>[]>(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant("commit" as const), writes: fc.array(write, { maxLength: 4 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("withdraw" as const, "restore" as const), id: task }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const), node }) },
  ),
  { maxLength: 40 },
);

/** What users, managers and nodes do, as far as networks go. */
export function perform(tx: Transaction, action: Write): void {
  switch (action.kind) {
    case "network": {
      tx.delete("networks", action.id);
      const Options: Record<string, string> = action.id === "enc" ? { encrypted: "" } : {};
      if (action.exists) makeNetwork(tx, action.id, numbers[action.id]!, { Ingress: action.id === "ing", Options });
      return;
    }
    case "node":
      tx.delete("nodes", action.id);
      if (action.exists) makeNode(tx, action.id, action.number, "ing");
      return;
    case "down": {
      const found = tx.get("nodes", action.id);
      if (found) tx.put("nodes", { ...found, Status: { State: action.isDown ? "down" : "ready" } });
      return;
    }
    case "service":
      tx.delete("services", action.id);
      for (const spec of [...tx.specsOfService(action.id)]) tx.delete("specs", spec.ID);
      if (action.exists) {
        const { dnsrr, published } = action;
        makeService(tx, action.id, Number(action.id.slice(1)), action.on, {
          dnsrr,
          ...(published && { ingressId: "ing" }),
        });
      }
      return;
    case "task": {
      // An id is used once, and so is a task's address.
      if (tx.get("tasks", action.id) || tx.get("locks", action.id)) return;
      const owner = tx.service(action.service);
      const spec = owner && tx.specOf(owner).Spec;
      const on = (spec?.TaskTemplate?.Networks ?? [{ Target: "a" }]).map(({ Target }) => Target ?? "");
      if (owner?.Endpoint?.Ports?.length) on.push("ing");
      makeTask(tx, action.id, action.service, action.node, on, { Status: { Timestamp: tx.now, State: "running" } });
      return;
    }
    case "state": {
      const found = tx.get("tasks", action.id);
      // As for all tasks: one that has ended doesn't come back (its address may be another's).
      if (!found || found.Status.State === "failed") return;
      setTask(tx, action.id, { Status: { Timestamp: tx.now, State: action.state }, DesiredState: action.desired });
      return;
    }
    case "forget":
      if (tx.get("tasks", action.id)) tx.create("locks", { ID: action.id, Holder: "" });
      tx.delete("tasks", action.id);
      return;
    case "key": {
      const found = tx.cluster();
      const NetworkKey = { Key: "key", Revision: action.revision, MadeAt: tx.now };
      if (found) tx.put("cluster", { ...found, NetworkKey });
      return;
    }
  }
}

export async function openStore(clock: Clock): Promise<Store> {
  const store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) => {
    tx.create("cluster", {
      ID: "c",
      Spec: {},
      RootCA: { Certificate: "", Key: "", JoinTokens: { Worker: "", Manager: "" } },
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      RemovedNodes: {},
    });
  });
  return store;
}
