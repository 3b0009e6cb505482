/** The checkers of jobs see what they are there to see. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { TaskState } from "../../src/model/types.ts";
import type { Transaction } from "../../src/store/store.ts";
import type { Overview } from "./checker.ts";
import { jobsComplete } from "./checkers/eventually-jobs-complete.ts";
import { World } from "./world.ts";

const wrongs: Record<string, { readonly expected: RegExp; readonly write: (tx: Transaction) => void }> = {
  "more tasks at a time than allowed": {
    expected: /jobs keep their bounds: 2 tasks are wanted, not 1/,
    write(tx) {
      addTask(tx, "a", 1, "pending");
      addTask(tx, "b", 2, "pending");
    },
  },
  "a slot beyond the completions": {
    expected: /jobs keep their bounds: one of 3 completions is in a slot beyond/,
    write: (tx) => addTask(tx, "a", 3, "pending"),
  },
  "a completed slot that is run again": {
    expected: /jobs keep their bounds: it has completed there/,
    write: (tx) => addTask(tx, "a", 0, "pending"),
  },
  "a task that changes its iteration": {
    expected: /states advance: a task changes its iteration/,
    write: (tx) => tx.put("tasks", { ...tx.get("tasks", "done")!, JobIteration: { Index: 1 } }),
  },
};

for (const [name, { expected, write }] of Object.entries(wrongs)) {
  test(`checkers see ${name}`, async () => {
    const world = await World.create(1, {
      managers: 1,
      workers: 1,
      heartbeatMs: 5_000,
      historyLimit: 5,
      skewMs: 0,
      managerSkewMs: 0,
    });
    await world.observer.update((tx) => {
      const Mode = { ReplicatedJob: { TotalCompletions: 3, MaxConcurrent: 1 } };
      tx.create("specs", { ID: "batch.1", ServiceID: "batch", Revision: 1, Spec: { Name: "batch", Mode } });
      const JobStatus = { JobIteration: { Index: 0 }, LastExecution: tx.now };
      tx.create("services", { ID: "batch", Name: "batch", SpecVersion: { Index: 1 }, JobStatus });
      addTask(tx, "done", 0, "running");
    });
    await world.observer.update((tx) => {
      const task = tx.get("tasks", "done")!;
      tx.put("tasks", { ...task, Status: { ...task.Status, State: "complete" } });
    });
    const violations = () => (world.violation ? [world.violation.message] : []);
    assert.deepEqual(violations(), []);
    const { view } = world.observer;
    assert.match(jobsComplete({ view } as Overview).state?.() ?? "", /batch has completed in 1 places, not in 3/);
    await world.observer.update(write);
    assert.match(violations().join(), expected);
  });
}

function addTask(tx: Transaction, ID: string, Slot: number, State: TaskState): void {
  tx.create("tasks", {
    ID,
    ServiceID: "batch",
    Slot,
    NodeID: State === "pending" ? "" : "node-1",
    SpecVersion: { Index: 1 },
    Status: { Timestamp: tx.now, State },
    DesiredState: "complete",
    JobIteration: { Index: 0 },
  });
}
