import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeClock } from "../../lib/fake-clock.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import { second, World } from "./harness.ts";
import { reaperPlanner } from "./reaper.ts";

const crashing = (Replicas: number, more = {}) => ({
  Mode: { Replicated: { Replicas } },
  TaskTemplate: { RestartPolicy: { Delay: second, ...more } },
});

async function setLimit(world: World, TaskHistoryRetentionLimit: number): Promise<void> {
  await world.store.update((tx) => {
    const cluster = tx.cluster()!;
    tx.put("cluster", { ...cluster, Spec: { ...cluster.Spec, Orchestration: { TaskHistoryRetentionLimit } } });
  });
}

describe("task history", () => {
  for (const [limit, kept] of [
    [5, 5],
    [2, 2],
    [0, 1],
  ] as const) {
    test(`a limit of ${limit} leaves ${kept} tasks in a slot, the live one included`, async () => {
      const world = await World.create({ history: limit });
      world.fate = () => ({ endsAfterMs: 500 });
      await world.createService("web", crashing(2));
      await world.run(60_000);
      for (const slot of [1, 2]) assert.equal(world.tasks("web").filter((task) => task.Slot === slot).length, kept);
      assert.equal(world.wanted("web").length, 2);
    });
  }

  test("the oldest go first", async () => {
    const world = await World.create({ history: 3 });
    world.fate = () => ({ endsAfterMs: 500 });
    await world.createService("web", crashing(1));
    await world.run(30_000);
    const times = world.tasks("web").map((task) => Date.parse(task.CreatedAt));
    assert.ok(Math.min(...times) >= world.clock.now() - 3 * 1_800);
  });

  test("a negative limit keeps all; a changed limit is obeyed at once", async () => {
    const world = await World.create({ history: -1 });
    world.fate = () => ({ endsAfterMs: 500 });
    await world.createService("web", crashing(1));
    await world.run(20_000);
    assert.ok(world.tasks("web").length > 10);
    await setLimit(world, 2);
    await world.run(10);
    assert.equal(world.tasks("web").length, 2);
  });

  test("MaxAttempts keeps as many as it counts by", async () => {
    const world = await World.create({ history: 1 });
    world.fate = () => ({ endsAfterMs: 500 });
    await world.createService("web", crashing(1, { MaxAttempts: 7 }));
    await world.run(60_000);
    assert.equal(world.tasks("web").length, 8);
  });

  test("a slot that has finished keeps its last task, or it would run again", async () => {
    const world = await World.create({ history: 0 });
    world.fate = () => ({ endsAfterMs: 500, endsAs: "complete" });
    await world.createService("once", crashing(1, { Condition: "none" }));
    await world.run(60_000);
    assert.deepEqual(
      world.tasks("once").map((task) => task.Status.State),
      ["complete"],
    );
  });

  test("a task that its node has not yet stopped stays", async () => {
    const world = await World.create({ history: 0, nodes: 2 });
    await world.createService("web", crashing(1));
    await world.until(() => world.hasConverged("web", 1));
    const [task] = world.tasks("web");
    await world.changeNode(task!.NodeID, { State: "down" });
    await world.until(() => world.hasConverged("web", 1));
    await world.run(60_000);
    assert.equal(world.tasks("web").length, 2);
    world.overlap = 2;
    await world.changeNode(task!.NodeID, { State: "ready" });
    await world.until(() => world.tasks("web").length === 1);
  });
});

describe("spec revisions", () => {
  test("live as long as a task or the service refers to them", async () => {
    const world = await World.create({ history: 2 });
    await world.createService("web", crashing(1));
    await world.until(() => world.hasConverged("web", 1));
    for (const image of ["two", "three", "four", "five"]) {
      await world.setImage("web", image);
      await world.until(() => world.service("web").UpdateStatus?.State === "completed");
    }
    const revisions = [...world.store.view.specsOfService("web")].map((spec) => spec.Revision);
    assert.deepEqual(revisions.toSorted(), [4, 5]);
    for (const task of world.tasks("web")) assert.ok(revisions.includes(task.SpecVersion.Index));
  });
});

test("a task that holds a user's container's address goes when it has ended, and not before", async () => {
  const store = await Store.open(new MemoryBackend(), new FakeClock());
  await store.update((tx) => {
    for (const State of ["new", "assigned", "running", "complete", "orphaned"] as const) {
      tx.create("tasks", {
        ID: State,
        ServiceID: "",
        Slot: 0,
        NodeID: "node",
        SpecVersion: { Index: 0 },
        Status: { Timestamp: tx.now, State },
        DesiredState: "running",
        Attachment: { NetworkID: "net", ContainerID: State, Aliases: [] },
      });
    }
  });
  const context = { now: 0, nowText: "", leadsSince: 0, newId: () => "", room: 100 };
  const { changes } = reaperPlanner.plan(store.view, "", context);
  assert.deepEqual(
    changes,
    ["complete", "orphaned"].map((id) => ({ kind: "delete", table: "tasks", id })),
  );
});
