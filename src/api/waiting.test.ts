import assert from "node:assert/strict";
import { test } from "node:test";
import type { FakeClock } from "../lib/fake-clock.ts";
import type { Node, Task } from "../model/types.ts";
import { openFixture, plainSpec } from "./fixture.test.ts";

/** What a swarm with these nodes and tasks of `web` shows as the error of the first task. */
async function shown(
  tasks: readonly (Pick<Task, "ID"> & Partial<Task>)[],
  node: Partial<Node> = {},
  delayNs = 30e9,
): Promise<string | undefined> {
  const { call, create, addNode, addTask } = await openFixture();
  const spec = plainSpec("web");
  const template = { ...spec.TaskTemplate, RestartPolicy: { Delay: delayNs } };
  const ServiceID = await create({ ...spec, TaskTemplate: template });
  await addNode({ ID: "n1", ...node });
  for (const task of tasks) await addTask({ ServiceID, NodeID: "n1", ...task });
  const [first] = tasks;
  const { Status } = (await call("GET", `/tasks/${first?.ID}`)).body;
  const listed = (await call("GET", "/tasks")).body.find(({ ID }: Task) => ID === first?.ID);
  assert.equal(listed.Status.Err, Status.Err, "the list says the same");
  return Status.Err;
}

const at = (State: Task["Status"]["State"], Err?: string): Task["Status"] => ({
  Timestamp: "2026-01-01T00:00:00.000Z",
  State,
  ...(Err === undefined ? {} : { Err }),
});
const down = { Status: { State: "down", Message: "heartbeat failure" } } as const;
const unknown = { Status: { State: "unknown", Message: "Node moved" } } as const;

test("a node that is down speaks for none of its tasks", async () => {
  const text = "node host-n1 is down: heartbeat failure";
  for (const state of ["assigned", "preparing", "starting", "running"] as const) {
    assert.equal(await shown([{ ID: "t1", Status: at(state) }], down), text, state);
  }
  assert.equal(await shown([{ ID: "t1", Status: at("running"), DesiredState: "shutdown" }], down), text);
  assert.equal(await shown([{ ID: "t1", Status: at("complete") }], down), undefined);
  const orphaned = { ...at("orphaned"), Message: "Task belonged to a node that has been deleted" };
  assert.equal(await shown([{ ID: "t1", Status: orphaned }], down), orphaned.Message);
});

test("of a node that is unknown, what is to begin waits", async () => {
  assert.equal(await shown([{ ID: "t1", Status: at("assigned") }], unknown), "node host-n1 is unknown: Node moved");
  assert.equal(await shown([{ ID: "t1", Status: at("running") }], unknown), undefined);
});

test("what is prepared waits for what stops in its slot, else for its delay", async () => {
  const ready = { ID: "t1", Slot: 3, Status: at("ready"), DesiredState: "ready" } as const;
  const stopping = { ID: "t2", Slot: 3, Status: at("running"), DesiredState: "shutdown" } as const;
  assert.equal(await shown([ready, stopping]), "waiting for task t2 on host-n1 to stop");
  const delayed = { ...ready, StartAfter: "2026-01-01T00:00:30.000Z" };
  assert.equal(await shown([delayed, { ...stopping, Slot: 4 }]), "waiting for the restart delay of 30s to pass");
  assert.equal(
    await shown([delayed, { ...stopping, Status: at("shutdown") }], {}, 500e6),
    "waiting for the restart delay of 0.5s to pass",
  );
  assert.equal(await shown([ready]), "waiting for its turn to start");
});

test("a stock Engine that takes long says nothing, so it is said for it", async () => {
  const { call, create, addNode, addTask, context } = await openFixture();
  const ServiceID = await create(plainSpec("web"));
  const own = { Engine: { Labels: { "shoal.node": "true" } } };
  await addNode({ ID: "n1", Description: { Hostname: "stock" } });
  await addNode({ ID: "n2", Description: { Hostname: "ours", ...own } });
  for (const [ID, NodeID, state] of [
    ["t1", "n1", "preparing"],
    ["t2", "n1", "starting"],
    ["t3", "n1", "running"],
    ["t4", "n2", "preparing"],
  ] as const) {
    await addTask({ ID, ServiceID, NodeID, Status: at(state) });
  }
  const errors = async () => (await call("GET", "/tasks")).body.map(({ Status }: Task) => Status.Err ?? "");
  assert.deepEqual(await errors(), ["", "", "", ""]);
  await (context.clock as FakeClock).advance(5000);
  assert.deepEqual(await errors(), [
    "node stock is pulling image bb:1 or creating the container",
    "waiting for node stock to start the container, or for its first successful health check",
    "",
    "",
  ]);
});

test("a task that says why itself, and one that runs, are left as they are", async () => {
  assert.equal(await shown([{ ID: "t1", Status: at("preparing", "pulling image bb:1") }], down), "pulling image bb:1");
  assert.equal(await shown([{ ID: "t1", Status: at("running") }]), undefined);
  assert.equal(await shown([{ ID: "t1", NodeID: "", Status: at("pending", "no suitable node") }]), "no suitable node");
});
