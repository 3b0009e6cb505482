import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ServiceSpec } from "../../model/types.ts";
import { second, World } from "./harness.ts";

const agent = (more: Partial<ServiceSpec["TaskTemplate"]> = {}): ServiceSpec => ({
  Mode: { Global: {} },
  TaskTemplate: { ContainerSpec: { Image: "one" }, RestartPolicy: { Delay: second }, ...more },
});

const nodes = (world: World) =>
  world
    .running("agent")
    .map((task) => task.NodeID)
    .toSorted();

describe("global services", () => {
  test("one task per node, born with its node, also on nodes that come later", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 2));
    assert.ok(world.tasks("agent").every((task) => task.Slot === 0));
    await world.addNode("late");
    await world.until(() => world.hasConverged("agent", 3));
    assert.deepEqual(nodes(world), ["late", "node-1", "node-2"]);
  });

  test("constraints choose the nodes, and follow their labels", async () => {
    const world = await World.create({ nodes: 2 });
    await world.addNode("a", { disk: "ssd" });
    await world.createService("agent", agent({ Placement: { Constraints: ["node.labels.disk == ssd"] } }));
    await world.until(() => world.hasConverged("agent", 1));
    assert.deepEqual(nodes(world), ["a"]);
    await world.changeNode("node-1", { Labels: { disk: "ssd" } });
    await world.changeNode("a", { Labels: {} });
    await world.until(() => nodes(world).join() === "node-1");
    assert.ok(world.hasConverged("agent", 1));
  });

  test("down or drained: shut down at once, nothing elsewhere; back: a new one", async () => {
    const world = await World.create({ nodes: 3 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 3));
    await world.changeNode("node-1", { State: "down" });
    await world.changeNode("node-2", { Availability: "drain" });
    await world.run(1_000);
    assert.deepEqual(nodes(world), ["node-3"]);
    assert.equal(world.tasks("agent").length, 3);
    await world.changeNode("node-1", { State: "ready" });
    await world.changeNode("node-2", { Availability: "active" });
    await world.until(() => world.hasConverged("agent", 3));
  });

  test("a failed task is replaced on its node", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 2));
    await world.report(world.tasks("agent")[0]!.ID, "failed");
    await world.run(500);
    assert.equal(world.running("agent").length, 1);
    await world.until(() => world.hasConverged("agent", 2));
    assert.deepEqual(nodes(world), ["node-1", "node-2"]);
  });

  test("a paused node: no new task, no update, no replacement, until it is active", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 2));
    await world.addNode("node-3");
    await world.until(() => world.hasConverged("agent", 3));
    await world.changeNode("node-1", { Availability: "pause" });
    await world.changeNode("node-2", { Availability: "pause" });
    await world.report(world.tasks("agent").find((task) => task.NodeID === "node-2")!.ID, "failed");
    await world.setImage("agent", "two");
    await world.until(() => world.service("agent").UpdateStatus?.State === "completed");
    assert.deepEqual(
      world
        .running("agent")
        .map((task) => `${task.NodeID} ${world.imageOf(task)}`)
        .toSorted(),
      ["node-1 one", "node-3 two"],
    );
    await world.changeNode("node-1", { Availability: "active" });
    await world.changeNode("node-2", { Availability: "active" });
    await world.until(() => world.hasConverged("agent", 3));
    await world.until(() => world.running("agent").every((task) => world.imageOf(task) === "two"));
  });

  test("a rolling update goes node by node", async () => {
    const world = await World.create({ nodes: 3 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 3));
    let fewest = 3;
    world.store.watch(() => {
      fewest = Math.min(fewest, world.running("agent").length);
    });
    await world.setImage("agent", "two");
    await world.until(() => world.service("agent").UpdateStatus?.State === "completed");
    assert.ok(world.running("agent").every((task) => world.imageOf(task) === "two"));
    assert.equal(fewest, 2);
  });

  test("a deleted node takes its tasks with it; a removed service its tasks", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("agent", agent());
    await world.until(() => world.hasConverged("agent", 2));
    await world.changeNode("node-1", { State: "down" });
    await world.deleteNode("node-1");
    await world.until(() => world.tasks("agent").length === 1);
    await world.removeService("agent");
    await world.until(() => world.tasks("agent").length === 0);
  });
});
