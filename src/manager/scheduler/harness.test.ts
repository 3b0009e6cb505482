/**
 * What the scheduler's tests share: a store with a clock that stands still, and ways to put nodes, specs and tasks
 * into it and to run planners until they have nothing more to do. It has no test of its own.
 */
import assert from "node:assert/strict";
import { type Clock, rfc3339 } from "../../lib/clock.ts";
import { limits } from "../../lib/limits.ts";
import type { Node, NodeAvailability, NodeDescription, ServiceSpec, Task } from "../../model/types.ts";
import { specKey } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store, type Transaction } from "../../store/store.ts";
import { applyChange, type PlannedChange, type Planner } from "../planner.ts";

export class ManualClock implements Clock {
  time = Date.UTC(2024, 0, 1);

  now(): number {
    return this.time;
  }

  after(): never {
    throw new Error("nothing here waits");
  }
}

export interface NodeFacts {
  readonly labels?: Record<string, string>;
  readonly state?: Node["Status"]["State"];
  readonly availability?: NodeAvailability;
  readonly description?: NodeDescription;
}

export type TaskFacts = Partial<Pick<Task, "Slot" | "NodeID" | "DesiredState" | "Endpoint">> & {
  readonly service?: string;
  readonly revision?: number;
  readonly state?: Task["Status"]["State"];
};

export class Cluster {
  readonly clock: ManualClock;
  readonly store: Store;

  private constructor(store: Store, clock: ManualClock) {
    this.store = store;
    this.clock = clock;
  }

  static async open(): Promise<Cluster> {
    const clock = new ManualClock();
    return new Cluster(await Store.open(new MemoryBackend(), clock), clock);
  }

  write(change: (tx: Transaction) => void): Promise<void> {
    return this.store.update(change);
  }

  task(id: string): Task {
    const task = this.store.view.get("tasks", id);
    assert(task, `no task ${id}`);
    return task;
  }

  /** Changes a task's status, desired state and so on. */
  change(id: string, facts: Partial<Task>): Promise<void> {
    return this.write((tx) => void tx.put("tasks", { ...tx.get("tasks", id)!, ...facts }));
  }

  state(id: string, state: Task["Status"]["State"]): Promise<void> {
    return this.change(id, { Status: { State: state, Timestamp: rfc3339(this.clock.now()) } });
  }

  /** Node ids by task id, of the tasks that have one. */
  placed(): Record<string, string> {
    const tasks = [...this.store.view.all("tasks")].filter(({ NodeID }) => NodeID);
    return Object.fromEntries(tasks.map(({ ID, NodeID }) => [ID, NodeID]));
  }

  /** Tasks per node, most first. */
  counts(): number[] {
    const counts = new Map<string, number>();
    for (const { ID } of this.store.view.all("nodes")) counts.set(ID, 0);
    for (const nodeId of Object.values(this.placed())) counts.set(nodeId, (counts.get(nodeId) ?? 0) + 1);
    return [...counts.values()].sort((a, b) => b - a);
  }

  /**
   * Plans `key` and writes, as the driver does, until nothing is left to write.
   * @param onPlan sees each plan in the transaction, before it is written
   */
  async settle(planner: Planner, key = "", onPlan?: (tx: Transaction, changes: readonly PlannedChange[]) => void) {
    for (let round = 0; round < 1000; round++) {
      const written = await this.store.update(
        (tx) => {
          const room = limits.changesPerTransaction;
          const context = {
            now: this.clock.now(),
            nowText: tx.now,
            leadsSince: 0,
            newId: () => assert.fail("nothing is made"),
            room,
          };
          const changes = planner.plan(tx, key, context).changes.slice(0, room);
          onPlan?.(tx, changes);
          for (const change of changes) applyChange(tx, change);
          return changes.length;
        },
        { alone: true },
      );
      if (written === 0) return;
    }
    assert.fail("the planner finds no end");
  }
}

export function putNode(tx: Transaction, id: string, facts: NodeFacts = {}): void {
  const draft = {
    ID: id,
    Spec: { Labels: facts.labels ?? {}, Availability: facts.availability ?? "active", Role: "worker" },
    Description: facts.description ?? {},
    Status: { State: facts.state ?? "ready" },
    Role: "worker",
  } as const;
  const before = tx.get("nodes", id);
  if (before) tx.put("nodes", { ...before, ...draft });
  else tx.create("nodes", draft);
}

export function putSpec(tx: Transaction, serviceId: string, spec: ServiceSpec = {}, revision = 1): void {
  tx.create("specs", { ID: specKey(serviceId, revision), ServiceID: serviceId, Revision: revision, Spec: spec });
}

/** A service with its first spec. */
export function putService(tx: Transaction, id: string, spec: ServiceSpec = {}): void {
  putSpec(tx, id, spec);
  tx.create("services", { ID: id, Name: id, SpecVersion: { Index: 1 } });
}

/** Pending, of service "web", revision 1, unless told otherwise. */
export function putTask(tx: Transaction, id: string, facts: TaskFacts = {}): void {
  const { service = "web", revision = 1, state = "pending", ...rest } = facts;
  tx.create("tasks", {
    ID: id,
    ServiceID: service,
    Slot: 1,
    NodeID: "",
    SpecVersion: { Index: revision },
    Status: { State: state, Timestamp: tx.now, Message: "pending task scheduling" },
    DesiredState: "running",
    ...rest,
  });
}
