import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ServiceSpec, Task } from "../../model/types.ts";
import { second, World } from "./harness.ts";

function replicated(Replicas: number, more: Partial<ServiceSpec["TaskTemplate"]> = {}): ServiceSpec {
  return {
    Mode: { Replicated: { Replicas } },
    TaskTemplate: { ContainerSpec: { Image: "one" }, RestartPolicy: { Delay: 5 * second }, ...more },
  };
}

describe("replicated: slots", () => {
  test("a new service gets tasks in slots from 1, new, wanted running, of its current spec", async () => {
    const world = await World.create();
    await world.stopLeader();
    await world.createService("web", replicated(3));
    world.startLeader();
    await world.until(() => world.tasks("web").length === 3);
    const tasks = world.tasks("web");
    assert.deepEqual(world.slots(tasks), [1, 2, 3]);
    for (const task of tasks) {
      assert.equal(task.DesiredState, "running");
      assert.equal(task.SpecVersion.Index, 1);
      assert.equal(task.StartAfter, undefined);
    }
    await world.until(() => world.hasConverged("web", 3));
  });

  test("no mode means one replica", async () => {
    const world = await World.create();
    await world.createService("web", { TaskTemplate: {} });
    await world.until(() => world.hasConverged("web", 1));
  });

  test("the log driver is fixed when the task is made: the service's, else the cluster's", async () => {
    const world = await World.create();
    const setDefault = (Name: string) =>
      world.store.update((tx) => {
        const cluster = tx.cluster()!;
        tx.put("cluster", { ...cluster, Spec: { ...cluster.Spec, TaskDefaults: { LogDriver: { Name } } } });
      });
    await setDefault("journald");
    await world.createService("web", replicated(1));
    await world.createService("own", replicated(1, { LogDriver: { Name: "local" } }));
    await world.until(() => world.hasConverged("web", 1) && world.hasConverged("own", 1));
    await setDefault("syslog");
    await world.scale("web", 2);
    await world.until(() => world.hasConverged("web", 2));
    assert.deepEqual(
      world.tasks("web").map((task) => task.LogDriver?.Name),
      ["journald", "syslog"],
    );
    assert.equal(world.tasks("own")[0]?.LogDriver?.Name, "local");
  });

  test("scaling up fills the lowest free numbers", async () => {
    const world = await World.create({ nodes: 1 });
    await world.createService("web", replicated(4));
    await world.until(() => world.hasConverged("web", 4));
    // Slot 2 does not run, so it is the one to go.
    world.fate = () => ({ startMs: 1e6 });
    await world.report(world.tasks("web")[1]!.ID, "failed");
    await world.scale("web", 3);
    await world.until(() => world.tasks("web").length === 3);
    assert.deepEqual(world.slots(world.tasks("web")), [1, 3, 4]);
    world.fate = () => ({});
    await world.scale("web", 5);
    await world.until(() => world.hasConverged("web", 5));
    assert.deepEqual(world.slots(world.tasks("web")), [1, 2, 3, 4, 5]);
  });

  test("scaling down takes from the nodes with most copies, then what does not run, then high numbers", async () => {
    const world = await World.create({ nodes: 0 });
    for (const id of ["a", "b", "c"]) await world.addNode(id);
    await world.stopLeader();
    await world.createService("web", replicated(6));
    // Slots 1, 2 and 3 on a, 4 and 5 on b, 6 on c.
    await world.store.update((tx) => {
      for (const [index, NodeID] of ["a", "a", "a", "b", "b", "c"].entries()) {
        tx.create("tasks", {
          ID: `task-${index + 1}`,
          ServiceID: "web",
          Slot: index + 1,
          NodeID,
          SpecVersion: { Index: 1 },
          Status: { Timestamp: tx.now, State: "running" },
          DesiredState: "running",
        });
      }
    });
    world.startLeader();
    for (const left of [[1, 2, 4, 5, 6], [1, 2, 4, 6], [1, 4, 6], [1, 4], [1], []]) {
      await world.scale("web", left.length);
      await world.until(() => world.tasks("web").length === left.length);
      assert.deepEqual(world.slots(world.tasks("web")), left);
    }
  });

  test("a removed slot vanishes once its agent has stopped it; one without an agent at once", async () => {
    const world = await World.create();
    await world.createService("web", replicated(2));
    await world.until(() => world.hasConverged("web", 2));
    world.fate = () => ({ stopMs: 3_000 });
    await world.scale("web", 1);
    await world.run(1_000);
    assert.deepEqual(
      world.tasks("web").map((task) => task.DesiredState),
      ["running", "remove"],
    );
    await world.run(3_000);
    assert.equal(world.tasks("web").length, 1);

    for (const id of ["node-1", "node-2", "node-3"]) await world.changeNode(id, { Availability: "pause" });
    await world.scale("web", 3);
    await world.until(() => world.tasks("web").length === 3);
    await world.scale("web", 1);
    await world.run(1);
    assert.deepEqual(world.slots(world.tasks("web")), [1]);
  });

  test("down and up again: the new task of a slot waits until the old has stopped", async () => {
    const world = await World.create();
    world.fate = () => ({ stopMs: 8_000 });
    await world.createService("web", replicated(1));
    await world.until(() => world.hasConverged("web", 1));
    await world.scale("web", 0);
    await world.run(1_000);
    await world.scale("web", 1);
    await world.run(1_000);
    assert.equal(world.wanted("web")[0]?.DesiredState, "ready");
    await world.until(() => world.hasConverged("web", 1));
    assert.equal(world.tasks("web").length, 1);
  });

  test("a removed service's tasks are to be removed, and go when they have stopped, with its specs", async () => {
    const world = await World.create();
    await world.createService("web", replicated(3));
    await world.until(() => world.hasConverged("web", 3));
    world.fate = () => ({ stopMs: 2_000 });
    await world.removeService("web");
    await world.run(100);
    assert.deepEqual(new Set(world.tasks("web").map((task) => task.DesiredState)), new Set(["remove"]));
    assert.equal([...world.store.view.specsOfService("web")].length, 1);
    await world.run(3_000);
    assert.deepEqual(world.tasks("web"), []);
    assert.deepEqual([...world.store.view.specsOfService("web")], []);
  });
});

describe("replicated: restarts", () => {
  test("a failed task is replaced in its slot after the delay", async () => {
    const world = await World.create();
    await world.createService("web", replicated(2));
    await world.until(() => world.hasConverged("web", 2));
    const [first] = world.tasks("web");
    const failedAt = world.clock.now();
    await world.report(first!.ID, "failed");
    await world.run(1);
    const [, replacement] = byAge(world.tasks("web").filter((task) => task.Slot === 1));
    assert.equal(world.store.view.get("tasks", first!.ID)?.DesiredState, "shutdown");
    assert.equal(replacement?.DesiredState, "ready");
    await world.run(4_990);
    assert.equal(world.wanted("web")[0]?.DesiredState, "ready");
    await world.until(() => world.hasConverged("web", 2));
    assert.ok(world.clock.now() - failedAt >= 5_000);
    assert.ok(world.clock.now() - failedAt < 5_300, "it was prepared during the delay");
  });

  test("without a delay it is wanted running at once, in the same plan", async () => {
    const world = await World.create();
    await world.createService("web", replicated(1, { RestartPolicy: { Delay: 0 } }));
    await world.until(() => world.hasConverged("web", 1));
    await world.report(world.tasks("web")[0]!.ID, "failed");
    await world.run(0);
    assert.deepEqual(
      byAge(world.tasks("web")).map((task) => task.DesiredState),
      ["shutdown", "running"],
    );
  });

  test("none: it stays as it ended, and counts as filled until the spec changes", async () => {
    const world = await World.create();
    world.fate = () => ({ endsAfterMs: 1_000, endsAs: "failed" });
    await world.createService("once", replicated(1, { RestartPolicy: { Condition: "none" } }));
    await world.run(60_000);
    assert.deepEqual(
      world.tasks("once").map((task) => [task.Status.State, task.DesiredState]),
      [["failed", "shutdown"]],
    );
    await world.setImage("once", "two");
    await world.run(60_000);
    assert.deepEqual(
      byAge(world.tasks("once")).map((task) => world.imageOf(task)),
      ["one", "two"],
    );
  });

  test("on-failure: a complete task stays, a failed one is replaced", async () => {
    const world = await World.create();
    await world.createService("job", replicated(2, { RestartPolicy: { Condition: "on-failure", Delay: 0 } }));
    await world.until(() => world.hasConverged("job", 2));
    const [first, secondTask] = world.tasks("job");
    await world.report(first!.ID, "complete");
    await world.report(secondTask!.ID, "failed");
    await world.run(10_000);
    assert.deepEqual(world.slots(world.running("job")), [2]);
    assert.equal(world.tasks("job").filter((task) => task.Slot === 1).length, 1);
  });

  test("any: a complete task is replaced too", async () => {
    const world = await World.create();
    await world.createService("web", replicated(1, { RestartPolicy: { Condition: "any", Delay: second } }));
    await world.until(() => world.hasConverged("web", 1));
    await world.report(world.tasks("web")[0]!.ID, "complete");
    await world.until(() => world.hasConverged("web", 1));
    assert.equal(world.tasks("web").length, 2);
  });

  test("MaxAttempts without a window counts for ever, also across leaders and a history limit of 0", async () => {
    const world = await World.create({ history: 0 });
    world.fate = () => ({ endsAfterMs: 100 });
    await world.createService("web", replicated(1, { RestartPolicy: { Delay: second, MaxAttempts: 2 } }));
    await world.run(1_500);
    await world.changeLeader();
    await world.run(120_000);
    assert.deepEqual(
      world.tasks("web").map((task) => task.Status.State),
      ["failed", "failed", "failed"],
    );
    assert.deepEqual(world.wanted("web"), []);
    await world.setImage("web", "two");
    await world.run(120_000);
    assert.deepEqual(
      byAge(world.tasks("web")).map((task) => [world.imageOf(task), task.Status.State]),
      [
        ["two", "failed"],
        ["two", "failed"],
        ["two", "failed"],
      ],
    );
  });

  test("MaxAttempts with a window: only restarts within it before the failure count", async () => {
    const world = await World.create();
    const policy = { Delay: second, MaxAttempts: 2, Window: 30 * second };
    world.fate = () => ({ endsAfterMs: 20_000 });
    await world.createService("slow", replicated(1, { RestartPolicy: policy }));
    await world.run(300_000);
    assert.equal(world.wanted("slow").length, 1, "one restart each 21 s: never two within 30 s before a failure");
    world.fate = () => ({ endsAfterMs: 1_000 });
    await world.createService("fast", replicated(1, { RestartPolicy: policy }));
    await world.run(300_000);
    assert.equal(world.tasks("fast").length, 3);
    assert.deepEqual(world.wanted("fast"), []);
  });

  test("a task that is rejected during the delay waits for its end: one try per delay", async () => {
    const world = await World.create({ history: -1 });
    world.fate = () => ({ rejected: true });
    await world.createService("web", replicated(1, { RestartPolicy: { Delay: 5 * second } }));
    await world.run(52_000);
    // At 0.1 s the first is rejected; then one try each 5 s.
    assert.equal(world.tasks("web").length, 12);
  });

  test("a node goes down: its tasks start elsewhere after the delay, and their old ones keep their state", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("web", replicated(2));
    await world.until(() => world.hasConverged("web", 2));
    const lost = world.tasks("web").find((task) => task.NodeID === "node-1")!;
    await world.changeNode("node-1", { State: "down" });
    const downAt = world.clock.now();
    await world.until(() => world.hasConverged("web", 2));
    assert.ok(world.clock.now() - downAt < 5_300);
    const old = world.store.view.get("tasks", lost.ID)!;
    assert.deepEqual([old.Status.State, old.DesiredState], ["running", "shutdown"]);
    assert.deepEqual(
      world.running("web").map((task) => task.NodeID),
      ["node-2", "node-2"],
    );
    world.overlap = 2; // until its agent has been told
    await world.changeNode("node-1", { State: "ready" });
    await world.until(() => world.store.view.get("tasks", lost.ID)?.Status.State === "shutdown");
    assert.ok(world.hasConverged("web", 2));
  });

  test("a drained node: replaced without delay, but only when the old task has stopped", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("web", replicated(2));
    await world.until(() => world.hasConverged("web", 2));
    world.fate = () => ({ stopMs: 3_000 });
    await world.changeNode("node-1", { Availability: "drain" });
    const drainedAt = world.clock.now();
    await world.run(2_900);
    assert.equal(world.running("web").length, 1);
    await world.until(() => world.hasConverged("web", 2));
    assert.ok(world.clock.now() - drainedAt < 3_300);
  });

  test("a task with a long stop grace period is not overlapped; a silent agent delays no longer than that", async () => {
    const world = await World.create({ nodes: 2 });
    const spec = replicated(1, { ContainerSpec: { Image: "one", StopGracePeriod: 100 * second } });
    await world.createService("slow", spec);
    await world.until(() => world.hasConverged("slow", 1));
    const node = world.tasks("slow")[0]!.NodeID;
    world.fate = () => ({ stopMs: 99_000 });
    await world.changeNode(node, { Availability: "drain" });
    await world.run(98_000);
    assert.equal(world.running("slow").length, 0);
    await world.until(() => world.hasConverged("slow", 1), 2_000);

    world.overlap = 2; // the agent never reports, so for the manager both run
    world.fate = (task) => (task.DesiredState === "shutdown" ? { stopMs: 1e9 } : {});
    await world.changeNode(node, { Availability: "active" });
    await world.changeNode(world.running("slow")[0]!.NodeID, { Availability: "drain" });
    await world.run(149_000);
    assert.equal(world.running("slow").length, 0);
    await world.until(() => world.hasConverged("slow", 1), 2_000);
  });

  test("a new leader waits for what is left of the delay", async () => {
    const world = await World.create();
    await world.createService("web", replicated(1, { RestartPolicy: { Delay: 20 * second } }));
    await world.until(() => world.hasConverged("web", 1));
    await world.report(world.tasks("web")[0]!.ID, "failed");
    await world.run(12_000);
    await world.changeLeader();
    await world.run(7_900);
    assert.equal(world.running("web").length, 0);
    await world.run(300);
    assert.equal(world.running("web").length, 1);
  });

  test("a deleted node: its tasks are orphaned and replaced", async () => {
    const world = await World.create({ nodes: 2 });
    await world.createService("web", replicated(2));
    await world.until(() => world.hasConverged("web", 2));
    const lost = world.tasks("web").find((task) => task.NodeID === "node-1")!;
    await world.deleteNode("node-1");
    await world.until(() => world.hasConverged("web", 2));
    assert.equal(world.store.view.get("tasks", lost.ID)?.Status.State, "orphaned");
  });
});

describe("replicated: size", () => {
  test("a large service is made in chunks, while a small one does not wait for it", async () => {
    const world = await World.create();
    await world.stopLeader();
    world.fate = () => ({ prepareMs: 1e9 });
    await world.createService("large", replicated(5_500));
    await world.createService("small", replicated(2));
    const commits: number[] = [];
    let smallAt = 0;
    const unwatch = world.store.watch(({ changes }) => {
      const tasks = changes.filter((change) => change.table === "tasks");
      if (tasks.length > 1) commits.push(tasks.length);
      if (tasks.some((change) => change.after?.ServiceID === "small") && !smallAt) smallAt = commits.length;
    });
    world.startLeader();
    await world.until(() => world.tasks("large").length === 5_500);
    unwatch();
    assert.ok(Math.max(...commits) <= 1_000);
    assert.ok(smallAt <= 2, `small was served by commit ${smallAt}`);
    assert.deepEqual(new Set(world.slots(world.tasks("large"))).size, 5_500);
  });
});

function byAge(tasks: readonly Task[]): Task[] {
  return tasks.toSorted((left, right) =>
    left.CreatedAt < right.CreatedAt ? -1 : left.CreatedAt > right.CreatedAt ? 1 : 0,
  );
}
