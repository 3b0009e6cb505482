import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ServiceSpec, Task } from "../../model/types.ts";
import { type Fate, second, World } from "./harness.ts";

type Config = NonNullable<ServiceSpec["UpdateConfig"]>;

function web(Replicas: number, UpdateConfig?: Config, more: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    Mode: { Replicated: { Replicas } },
    TaskTemplate: { ContainerSpec: { Image: "one" }, RestartPolicy: { Delay: second } },
    ...(UpdateConfig && { UpdateConfig }),
    ...more,
  };
}

/** A world in which `web` runs with the spec. */
async function running(spec: ServiceSpec, fates: Record<string, Fate> = {}): Promise<World> {
  const world = await World.create();
  world.fate = (_, { TaskTemplate }) => fates[TaskTemplate?.ContainerSpec?.Image ?? ""] ?? {};
  await world.createService("web", spec);
  await world.until(() => world.hasConverged("web", spec.Mode?.Replicated?.Replicas ?? 1));
  return world;
}

const state = (world: World) => world.service("web").UpdateStatus?.State;
const images = (world: World) => world.running("web").map((task) => world.imageOf(task));
const isSettled = (world: World) => !["updating", "rollback_started", undefined].includes(state(world));
const made = (tasks: readonly Task[]) => tasks.filter((task) => task.MadeByUpdate);

describe("rolling update", () => {
  test("one by one, stop-first: each new task is prepared before the old one stops", async () => {
    const world = await running(web(3), { two: { prepareMs: 30_000 } });
    let fewest = 3;
    let mostInChange = 0;
    let sawPrepared = false;
    world.store.watch(() => {
      const wanted = world.wanted("web");
      const waiting = wanted.filter((task) => task.DesiredState === "ready");
      mostInChange = Math.max(mostInChange, waiting.length);
      sawPrepared ||= waiting.some((task) => task.Status.State === "ready");
      fewest = Math.min(fewest, world.running("web").length);
    });
    await world.setImage("web", "two");
    await world.run(1);
    assert.deepEqual(world.service("web").UpdateStatus, {
      State: "updating",
      StartedAt: new Date(world.clock.now() - 1).toISOString(),
      Message: "update in progress",
    });
    await world.run(29_000);
    assert.equal(world.running("web").length, 3, "a slow pull costs nothing");
    await world.until(() => isSettled(world));
    assert.deepEqual(images(world), ["two", "two", "two"]);
    assert.deepEqual([fewest, mostInChange, sawPrepared], [2, 1, true]);
    const { State, Message, CompletedAt } = world.service("web").UpdateStatus!;
    assert.deepEqual([State, Message], ["completed", "update completed"]);
    assert.ok(CompletedAt);
  });

  test("it completes one monitoring period after its last task ran", async () => {
    const world = await running(web(2, { Parallelism: 0, Monitor: 7 * second }));
    await world.setImage("web", "two");
    await world.until(() => images(world).every((image) => image === "two") && world.hasConverged("web", 2));
    const ranAt = world.clock.now();
    await world.until(() => state(world) === "completed");
    const tookMs = world.clock.now() - ranAt;
    assert.ok(tookMs > 6_800 && tookMs <= 7_100, `${tookMs}`);
  });

  test("parallelism, and the delay between slots", async () => {
    const world = await running(web(5, { Parallelism: 2, Delay: 10 * second }));
    await world.setImage("web", "two");
    await world.run(9_000);
    assert.equal(made(world.tasks("web")).length, 2);
    await world.run(9_000);
    assert.equal(made(world.tasks("web")).length, 4);
    await world.until(() => state(world) === "completed");
    assert.equal(images(world).filter((image) => image === "two").length, 5);
  });

  test("parallelism 0: all at once", async () => {
    const world = await running(web(5, { Parallelism: 0 }));
    await world.setImage("web", "two");
    await world.run(10);
    assert.equal(made(world.tasks("web")).length, 5);
  });

  test("start-first: the old task stops when the new one runs", async () => {
    const world = await running(web(3, { Parallelism: 1, Order: "start-first" }), { two: { startMs: 4_000 } });
    world.overlap = world.rivals = 2;
    let fewest = 3;
    world.store.watch(() => {
      fewest = Math.min(fewest, world.running("web").length);
    });
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    assert.deepEqual([fewest, ...images(world)], [3, "two", "two", "two"]);
  });

  test("a new task that finds no room is made room for", async () => {
    const world = await running(web(1));
    world.fate = () => ({ needsFreeNode: true });
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    assert.deepEqual(images(world), ["two"]);
  });

  test("a new task that fits nowhere costs no old one", async () => {
    const world = await running(web(2), { two: { fitsNowhere: true } });
    await world.setImage("web", "two");
    await world.run(600_000);
    assert.deepEqual([state(world), ...images(world)], ["updating", "one", "one"]);
    await world.setImage("web", "three");
    await world.until(() => isSettled(world));
    assert.deepEqual(images(world), ["three", "three"]);
  });

  test("replicas, service labels and update settings restart nothing, and are no update", async () => {
    const world = await running(web(2));
    const before = world.tasks("web").map((task) => task.ID);
    await world.updateService("web", (spec) => ({
      ...spec,
      Labels: { a: "b" },
      UpdateConfig: { Parallelism: 3 },
      RollbackConfig: { Parallelism: 3 },
      EndpointSpec: { Mode: "vip" },
      Mode: { Replicated: { Replicas: 3 } },
    }));
    await world.until(() => world.hasConverged("web", 3));
    assert.deepEqual(
      before,
      world
        .tasks("web")
        .slice(0, 2)
        .map((task) => task.ID),
    );
    assert.equal(state(world), undefined);
  });

  test("constraints alone move only the tasks that no longer fit", async () => {
    const world = await World.create({ nodes: 0 });
    await world.addNode("a", { disk: "ssd" });
    await world.addNode("b");
    await world.createService("web", web(2));
    await world.until(() => world.hasConverged("web", 2));
    const [onA] = world.tasks("web").filter((task) => task.NodeID === "a");
    await world.updateService("web", (spec) => ({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, Placement: { Constraints: ["node.labels.disk == ssd"] } },
    }));
    await world.until(() => isSettled(world));
    assert.equal(made(world.tasks("web")).length, 1);
    assert.equal(world.store.view.get("tasks", onA!.ID)?.DesiredState, "running");
  });

  test("ports and a forced update restart", async () => {
    const world = await running(web(1));
    await world.updateService("web", (spec) => ({ ...spec, EndpointSpec: { Ports: [{ TargetPort: 80 }] } }));
    await world.until(() => isSettled(world));
    await world.updateService("web", (spec) => ({ ...spec, TaskTemplate: { ...spec.TaskTemplate, ForceUpdate: 1 } }));
    await world.until(() => isSettled(world));
    assert.equal(made(world.tasks("web")).length, 2);
  });

  test("an update with scaling makes missing tasks at once with the new spec", async () => {
    const world = await running(web(2, { Parallelism: 1, Delay: 60 * second }));
    await world.updateService("web", () => ({
      ...web(5, { Parallelism: 1, Delay: 60 * second }),
      TaskTemplate: { ContainerSpec: { Image: "two" } },
    }));
    await world.run(2_000);
    assert.equal(images(world).filter((image) => image === "two").length, 4);
  });

  test("an update during an update starts anew from the tasks that there are", async () => {
    const world = await running(web(3), { two: { prepareMs: 20_000 } });
    await world.setImage("web", "two");
    await world.run(5_000);
    await world.setImage("web", "three");
    await world.until(() => isSettled(world));
    assert.deepEqual(images(world), ["three", "three", "three"]);
    assert.equal(world.tasks("web").filter((task) => world.imageOf(task) === "two" && task.Slot > 1).length, 0);
  });

  test("back to the old spec in the middle: tasks that fit stay untouched", async () => {
    const world = await running(web(3), { two: { prepareMs: 20_000 } });
    const before = world.tasks("web").map((task) => task.ID);
    await world.setImage("web", "two");
    await world.run(5_000);
    await world.setImage("web", "one");
    await world.until(() => isSettled(world));
    assert.deepEqual(
      world.running("web").map((task) => task.ID),
      before,
    );
  });

  test("a new leader goes on with it", async () => {
    const world = await running(web(4, { Parallelism: 1, Delay: 2 * second }));
    await world.setImage("web", "two");
    for (let change = 0; change < 20; change++) {
      await world.run(700);
      await world.changeLeader();
    }
    await world.until(() => state(world) === "completed");
    assert.equal(made(world.tasks("web")).length, 4);
  });

  test("a node that is lost or drained meanwhile is no failure and holds nothing up", async () => {
    const world = await running(web(3), { two: { prepareMs: 3_000 } });
    await world.setImage("web", "two");
    await world.run(500);
    const preparing = world.wanted("web").find((task) => task.DesiredState === "ready")!;
    await world.changeNode(preparing.NodeID, { State: "down" });
    await world.run(10_000);
    await world.changeNode(world.running("web")[0]!.NodeID, { Availability: "drain" });
    await world.until(() => isSettled(world));
    assert.equal(state(world), "completed");
    assert.deepEqual(images(world), ["two", "two", "two"]);
  });
});

test("an update is not held up by a manager whose clock is an hour ahead", async () => {
  const world = await running(web(3, { Parallelism: 1, Delay: second, FailureAction: "continue" }));
  world.store.watch(({ changes }) => {
    for (const { table, after } of changes) {
      if (table !== "tasks" || after?.Status.State !== "running" || after.SpecVersion.Index !== 2) continue;
      const AppliedAt = new Date(world.clock.now() + 3_600_000).toISOString();
      if (after.Status.AppliedAt !== AppliedAt) void world.report(after.ID, "running", { AppliedAt });
    }
  });
  await world.setImage("web", "two");
  await world.until(() => isSettled(world), 120_000);
  assert.deepEqual(images(world), ["two", "two", "two"]);
});

describe("update failures", () => {
  test("pause: the update stops, what runs goes on running", async () => {
    const world = await running(web(3), { bad: { rejected: true } });
    await world.setImage("web", "bad");
    await world.until(() => isSettled(world));
    const [culprit] = made(world.tasks("web"));
    assert.deepEqual(
      [state(world), world.service("web").UpdateStatus?.Message],
      ["paused", `update paused due to failure or early termination of task ${culprit?.ID}`],
    );
    await world.run(120_000);
    assert.deepEqual(images(world), ["one", "one", "one"], "the image that is missing never cost a task");
    assert.equal(made(world.tasks("web")).length, 1);

    // The same spec once more is another try; another spec is the way on.
    await world.store.update((tx) => {
      const { UpdateStatus: _, ...service } = tx.service("web")!;
      tx.put("services", service);
    });
    await world.run(1);
    assert.equal(state(world), "updating");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "paused");
    await world.setImage("web", "good");
    await world.until(() => isSettled(world));
    assert.deepEqual([state(world), ...images(world)], ["completed", "good", "good", "good"]);
  });

  test("a task that ends within the monitoring period has failed; one that ends after it has not", async () => {
    const spec = web(2, { Parallelism: 1, Monitor: 5 * second, Delay: 20 * second });
    const early = await running(spec, { two: { endsAfterMs: 4_500, endsAs: "complete" } });
    await early.setImage("web", "two");
    await early.until(() => isSettled(early));
    assert.equal(state(early), "paused");

    const late = await running(spec, { two: { endsAfterMs: 5_500, endsAs: "failed" } });
    await late.setImage("web", "two");
    await late.until(() => isSettled(late));
    assert.equal(state(late), "completed");
  });

  test("MaxFailureRatio: as many may fail", async () => {
    const config: Config = { Parallelism: 1, MaxFailureRatio: 0.5, Monitor: second };
    const world = await World.create({ history: 0 });
    await world.createService("web", web(4, config));
    await world.until(() => world.hasConverged("web", 4));
    world.fate = (task) =>
      task.SpecVersion.Index === 2 && task.MadeByUpdate && task.Slot <= 2 ? { rejected: true } : {};
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "completed", world.describe());
    await world.until(() => world.hasConverged("web", 4));

    world.fate = (task) =>
      task.SpecVersion.Index === 3 && task.MadeByUpdate && task.Slot <= 3 ? { rejected: true } : {};
    await world.setImage("web", "three");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "paused");
    assert.equal(
      images(world).filter((image) => image === "two").length,
      4,
      "no old task stopped for one that never was",
    );
  });

  test("continue: it goes through to the end", async () => {
    const world = await running(web(3, { Parallelism: 1, FailureAction: "continue" }), { two: { endsAfterMs: 300 } });
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "completed");
    assert.ok(world.wanted("web").every((task) => world.imageOf(task) === "two"));
  });

  test("rollback: back to the previous spec, as a new revision, without touching what still has it", async () => {
    const config: Config = { Parallelism: 1, Delay: 2 * second, FailureAction: "rollback", Order: "start-first" };
    const world = await running(web(4, config, { Labels: { release: "1" } }), { bad: { endsAfterMs: 1_000 } });
    world.overlap = world.rivals = 2;
    const before = world.tasks("web").map((task) => task.ID);
    await world.updateService("web", (spec) => ({
      ...spec,
      Labels: { release: "2" },
      TaskTemplate: { ContainerSpec: { Image: "bad" }, RestartPolicy: { Delay: second } },
    }));
    const started: string[] = [];
    world.store.watch(({ changes }) => {
      for (const { table, after } of changes) {
        if (table === "services" && after?.UpdateStatus?.State === "rollback_started") {
          started.push(after.UpdateStatus.Message ?? "");
        }
      }
    });
    await world.until(() => isSettled(world));
    assert.match(started[0] ?? "", /^update rolled back due to failure or early termination of task [0-9a-z]{25}$/);
    const service = world.service("web");
    assert.deepEqual([service.SpecVersion.Index, service.PreviousSpecVersion], [3, undefined]);
    assert.equal(world.store.view.specOf(service).Spec.Labels?.release, "1");
    assert.deepEqual(
      [service.UpdateStatus?.State, service.UpdateStatus?.Message],
      ["rollback_completed", "rollback completed"],
    );
    await world.until(() => world.hasConverged("web", 4));
    assert.equal(world.running("web").filter((task) => before.includes(task.ID)).length, 3);
    assert.deepEqual(new Set(images(world)), new Set(["one"]));
  });

  test("a rollback that fails pauses, whatever its settings say, and stays so", async () => {
    const config: Config = { Parallelism: 1, FailureAction: "rollback" };
    const world = await running(web(2, config, { RollbackConfig: config as never }));
    world.fate = () => ({ endsAfterMs: 500 });
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "rollback_paused");
    assert.match(
      world.service("web").UpdateStatus?.Message ?? "",
      /^rollback paused due to failure or early termination of task /,
    );
    await world.run(60_000);
    assert.equal(state(world), "rollback_paused");
  });

  test("rollback without a previous spec pauses", async () => {
    const world = await running(web(1, { FailureAction: "rollback" }), { bad: { rejected: true } });
    await world.setImage("web", "bad");
    await world.store.update((tx) => {
      const { PreviousSpecVersion: _, ...service } = tx.service("web")!;
      tx.put("services", service);
    });
    await world.until(() => isSettled(world));
    assert.equal(state(world), "paused");
  });

  test("a rollback brings a slot back whose old task had ended for good", async () => {
    const spec = web(2, { Parallelism: 0, FailureAction: "rollback" });
    const world = await running({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, RestartPolicy: { Condition: "none" } },
    });
    await world.report(world.tasks("web")[0]!.ID, "complete");
    world.fate = (_, { TaskTemplate }) => (TaskTemplate?.ContainerSpec?.Image === "bad" ? { rejected: true } : {});
    await world.setImage("web", "bad");
    await world.until(() => isSettled(world));
    assert.equal(state(world), "rollback_completed");
    await world.until(() => world.hasConverged("web", 2));
  });
});

describe("manual rollback", () => {
  test("uses the rollback settings, ends as a rollback, and twice returns", async () => {
    const world = await running(web(2, undefined, { RollbackConfig: { Parallelism: 0 } }));
    await world.setImage("web", "two");
    await world.until(() => isSettled(world));
    await world.rollBack("web");
    await world.run(10);
    assert.equal(world.wanted("web").filter((task) => task.MadeByUpdate && task.SpecVersion.Index === 3).length, 2);
    await world.until(() => isSettled(world));
    assert.deepEqual([state(world), ...images(world)], ["rollback_completed", "one", "one"]);
    await world.rollBack("web");
    await world.run(10);
    await world.until(() => isSettled(world));
    assert.deepEqual([state(world), ...images(world)], ["rollback_completed", "two", "two"]);
  });
});
