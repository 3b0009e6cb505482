/** Secrets and configs in a node's assignments: there exactly while a task of the node needs them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../lib/fake-clock.ts";
import { specKey, type TaskState } from "../../model/types.ts";
import type { AssignmentChange, AssignmentsMessage } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import { AssignmentSource, concernsNode, endsTask } from "./assignments.ts";

/** Service by service, what its tasks reference. */
const references: Readonly<Record<string, readonly string[]>> = {
  plain: [],
  one: ["secrets/s1", "configs/c1"],
  two: ["secrets/s1", "secrets/s2"],
};

function bytes(text: string): string {
  return Buffer.from(text).toString("base64");
}

async function openStore(dataOf: (id: string) => string = bytes): Promise<Store> {
  const store = await Store.open(new MemoryBackend(), new FakeClock());
  await store.update((tx) => {
    for (const ID of ["s1", "s2"]) tx.create("secrets", { ID, Spec: { Name: ID, Labels: {}, Data: dataOf(ID) } });
    tx.create("configs", { ID: "c1", Spec: { Name: "c1", Labels: {}, Data: dataOf("c1") } });
    for (const [ServiceID, used] of Object.entries(references)) {
      const idsIn = (table: string) => used.filter((key) => key.startsWith(table)).map((key) => key.split("/")[1]!);
      const ContainerSpec = {
        Secrets: idsIn("secrets").map((SecretID) => ({ SecretID, SecretName: SecretID, File: { Name: SecretID } })),
        Configs: idsIn("configs").map((ConfigID) => ({ ConfigID, ConfigName: ConfigID, File: { Name: ConfigID } })),
      };
      const Spec = { TaskTemplate: { ContainerSpec } };
      tx.create("specs", { ID: specKey(ServiceID, 1), ServiceID, Revision: 1, Spec });
    }
  });
  return store;
}

/** Fed as by the sessions. */
function openSource(store: Store): AssignmentSource {
  const source = new AssignmentSource(store.view, "n1");
  store.watch(({ changes }) => {
    for (const change of changes) {
      if (change.table !== "tasks") continue;
      if (concernsNode("n1", change.before, change.after)) source.touch(change.id);
      else if (endsTask(change.before, change.after)) source.ended(change.id);
    }
  });
  return source;
}

interface Written {
  readonly id: string;
  readonly service: string;
  readonly node: string;
  readonly state: TaskState;
}

function write(store: Store, { id, service, node, state }: Written): Promise<unknown> {
  return store.update((tx) => {
    const ID = `${service}-${id}`;
    const known = tx.get("tasks", ID);
    const Status = { Timestamp: "", State: state };
    if (known) tx.put("tasks", { ...known, NodeID: node, Status });
    else {
      const task = { ID, ServiceID: service, Slot: 1, SpecVersion: { Index: 1 }, DesiredState: "running" as const };
      tx.create("tasks", { ...task, NodeID: node, Status });
    }
  });
}

/** An agent that believes what it is told, and notices what Swarm's would stumble over. */
class AgentModel {
  readonly tasks = new Set<string>();
  readonly payloads = new Map<string, string>();
  /** Tasks that have ended, which is for ever. */
  readonly ended = new Set<string>();

  apply({ type, changes }: AssignmentsMessage): void {
    if (type === "complete") {
      this.tasks.clear();
      this.payloads.clear();
    }
    assert(changes.length > 0 || type === "complete", "an incremental message says something");
    for (const change of changes) this.#apply(change);
    for (const task of this.tasks) {
      for (const key of references[task.split("-")[0]!]!) {
        assert(this.payloads.has(key) || this.ended.has(task), `${key} came with ${task}, which needs it`);
      }
    }
  }

  #apply(change: AssignmentChange): void {
    switch (change.kind) {
      case "update-task":
        this.tasks.add(change.task.ID);
        if (["failed", "complete"].includes(change.task.Status.State)) this.ended.add(change.task.ID);
        return;
      case "remove-task":
        assert(this.tasks.delete(change.id), "a task that it has");
        return;
      case "update-secret":
        assert(!this.payloads.has(`secrets/${change.secret.ID}`), "sent once");
        this.payloads.set(`secrets/${change.secret.ID}`, change.secret.Spec.Data);
        return;
      case "update-config":
        assert(!this.payloads.has(`configs/${change.config.ID}`), "sent once");
        this.payloads.set(`configs/${change.config.ID}`, change.config.Spec.Data);
        return;
      case "remove-secret":
        assert(this.payloads.delete(`secrets/${change.id}`), "a secret that it has");
        return;
      case "remove-config":
        assert(this.payloads.delete(`configs/${change.id}`), "a config that it has");
        return;
    }
  }
}

function read(source: AssignmentSource, agent: AgentModel): void {
  for (let message = source.take(); message; message = source.take()) agent.apply(message);
}

const written = fc.record({
  id: fc.constantFrom("1", "2", "3"),
  service: fc.constantFrom("plain", "one", "two"),
  node: fc.constantFrom("", "n1", "n2"),
  state: fc.constantFrom<TaskState[]>("pending", "assigned", "running", "failed", "complete"),
});

test("whatever is written and whenever is read, the node has what its tasks need, and nothing else", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(written, { nil: "read" as const }), { maxLength: 30 }), async (steps) => {
      const store = await openStore();
      const source = openSource(store);
      const agent = new AgentModel();
      for (const step of steps) {
        if (step === "read") read(source, agent);
        else if (!agent.ended.has(`${step.service}-${step.id}`)) {
          await write(store, step);
          if (["failed", "complete"].includes(step.state)) agent.ended.add(`${step.service}-${step.id}`);
        }
      }
      read(source, agent);
      const needed = new Set<string>();
      for (const task of store.view.tasksOfNode("n1")) {
        if (!["assigned", "running"].includes(task.Status.State)) continue;
        for (const key of references[task.ServiceID]!) needed.add(key);
      }
      assert.deepEqual([...agent.payloads.keys()].sort(), [...needed].sort());
    }),
    { numRuns: 300 },
  );
});

test("they come in the message of the first task that needs them, and go with the end of the last one", async () => {
  const store = await openStore();
  const source = openSource(store);
  const kinds = () => source.take()?.changes.map(({ kind }) => kind);
  assert.deepEqual(kinds(), []);
  await write(store, { id: "1", service: "one", node: "n1", state: "assigned" });
  assert.deepEqual(kinds(), ["update-secret", "update-config", "update-task"]);
  await write(store, { id: "1", service: "two", node: "n1", state: "assigned" });
  assert.deepEqual(kinds(), ["update-secret", "update-task"]);
  await write(store, { id: "1", service: "one", node: "n1", state: "running" });
  assert.deepEqual(kinds(), undefined);
  await write(store, { id: "1", service: "one", node: "n1", state: "failed" });
  assert.deepEqual(kinds(), ["remove-config"]);
  const fresh = new AssignmentSource(store.view, "n1").take()?.changes.map(({ kind }) => kind);
  assert.deepEqual(fresh, ["update-secret", "update-secret", "update-task", "update-task"]);
  await write(store, { id: "1", service: "two", node: "n1", state: "complete" });
  assert.deepEqual(kinds(), ["remove-secret", "remove-secret"]);
});

test("other labels are no reason to send one again", async () => {
  const store = await openStore();
  const source = openSource(store);
  await write(store, { id: "1", service: "one", node: "n1", state: "running" });
  assert.equal(source.take()?.changes.length, 3);
  await store.update((tx) => {
    const secret = tx.get("secrets", "s1")!;
    tx.put("secrets", { ...secret, Spec: { ...secret.Spec, Labels: { a: "b" } } });
  });
  assert.equal(source.take(), undefined);
});

test("large ones go in several messages, each task with its own", async () => {
  const store = await openStore(() => Buffer.alloc(3 * 1024 * 1024).toString("base64"));
  const source = openSource(store);
  assert.equal(source.take()?.type, "complete");
  for (const service of ["two", "one", "plain"]) {
    for (const id of ["1", "2"]) await write(store, { id, service, node: "n1", state: "assigned" });
  }
  const agent = new AgentModel();
  let messages = 0;
  for (let message = source.take(); message; message = source.take()) {
    messages++;
    agent.apply(message);
  }
  assert.equal(agent.tasks.size, 6);
  assert.equal(agent.payloads.size, 3);
  assert.ok(messages > 1, "not all in one message");
});
