import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../lib/fake-clock.ts";
import { specKey, type Task, type TaskState } from "../../model/types.ts";
import type { AssignmentsMessage } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import { AssignmentSource, concernsNode } from "./assignments.ts";

type Step =
  | {
      readonly kind: "write";
      readonly id: string;
      readonly node: string;
      readonly state: TaskState;
      readonly desired: TaskState;
    }
  | { readonly kind: "delete"; readonly id: string }
  | { readonly kind: "read" };

const steps = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant("write" as const),
      id: fc.constantFrom("t1", "t2", "t3"),
      node: fc.constantFrom("", "n1", "n2"),
      state: fc.constantFrom<TaskState[]>("pending", "assigned", "running", "failed"),
      desired: fc.constantFrom<TaskState[]>("running", "shutdown", "remove"),
    }),
    fc.record({ kind: fc.constant("delete" as const), id: fc.constantFrom("t1", "t2", "t3") }),
    fc.constant({ kind: "read" as const }),
  ),
  { maxLength: 30 },
);

function blank(id: string): Omit<Task, "Version" | "CreatedAt" | "UpdatedAt"> {
  return {
    ID: id,
    ServiceID: "s1",
    Slot: 1,
    NodeID: "",
    SpecVersion: { Index: 1 },
    Status: { Timestamp: "", State: "new" },
    DesiredState: "running",
  };
}

async function commit(store: Store, step: Exclude<Step, { kind: "read" }>): Promise<void> {
  await store.update((tx) => {
    if (step.kind === "delete") return tx.delete("tasks", step.id);
    const task = tx.get("tasks", step.id) ?? tx.create("tasks", blank(step.id));
    const Status = { ...task.Status, State: step.state };
    tx.put("tasks", { ...task, NodeID: step.node, Status, DesiredState: step.desired });
  });
}

/** What an agent does with a message: its tasks, each with its desired state. */
class AgentModel {
  readonly tasks = new Map<string, TaskState>();
  #at = "";

  apply(message: AssignmentsMessage): void {
    assert.equal(message.appliesTo, this.#at);
    this.#at = message.resultsIn;
    if (message.type === "complete") this.tasks.clear();
    for (const change of message.changes) {
      if (change.kind === "update-task") this.tasks.set(change.task.ID, change.task.DesiredState);
      else if (change.kind === "remove-task") {
        assert(this.tasks.delete(change.id), "only a task that the agent has is removed");
      } else assert.fail("no task needs a secret or a config");
    }
  }
}

test("whatever is written and whenever is read, the agent ends with exactly the node's assigned tasks", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      const store = await Store.open(new MemoryBackend(), new FakeClock());
      await store.update((tx) =>
        tx.create("specs", { ID: specKey("s1", 1), ServiceID: "s1", Revision: 1, Spec: { TaskTemplate: {} } }),
      );
      const source = new AssignmentSource(store.view, "n1");
      store.watch(({ changes }) => {
        for (const change of changes) {
          if (change.table === "tasks" && concernsNode("n1", change.before, change.after)) source.touch(change.id);
        }
      });
      const agent = new AgentModel();
      const read = () => {
        for (let message = source.take(); message; message = source.take()) agent.apply(message);
      };
      for (const step of sequence) {
        if (step.kind === "read") read();
        else await commit(store, step);
      }
      read();
      const fresh = new AgentModel();
      fresh.apply(new AssignmentSource(store.view, "n1").take()!);
      assert.deepEqual(new Map([...agent.tasks].sort()), new Map([...fresh.tasks].sort()));
    }),
    { numRuns: 200 },
  );
});
