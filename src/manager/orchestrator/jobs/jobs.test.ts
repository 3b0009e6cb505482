import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ServiceSpec, Task } from "../../../model/types.ts";
import { type Fate, second, World } from "../harness.ts";

const quick: Fate = { endsAfterMs: 200, endsAs: "complete" };
const failing: Fate = { endsAfterMs: 200, endsAs: "failed" };
const long: Fate = { endsAfterMs: 3_600_000, endsAs: "complete" };

const replicated = (
  TotalCompletions: number,
  MaxConcurrent: number,
  more: Partial<ServiceSpec["TaskTemplate"]> = {},
): ServiceSpec => ({
  Mode: { ReplicatedJob: { TotalCompletions, MaxConcurrent } },
  TaskTemplate: { ContainerSpec: { Image: "one" }, RestartPolicy: { Delay: second }, ...more },
});

const global = (more: Partial<ServiceSpec["TaskTemplate"]> = {}): ServiceSpec => ({
  Mode: { GlobalJob: {} },
  TaskTemplate: { ContainerSpec: { Image: "one" }, RestartPolicy: { Delay: second }, ...more },
});

const again = (spec: ServiceSpec): ServiceSpec => ({
  ...spec,
  TaskTemplate: { ...spec.TaskTemplate, ForceUpdate: (spec.TaskTemplate?.ForceUpdate ?? 0) + 1 },
});

/** The tasks of the iteration that runs. */
function present(world: World): Task[] {
  const { JobStatus } = world.service("job");
  return world.tasks("job").filter((task) => task.JobIteration?.Index === JobStatus?.JobIteration.Index);
}

const inState = (world: World, state: Task["Status"]["State"]) =>
  present(world).filter(({ Status }) => Status.State === state);

const slots = (tasks: readonly Task[]) => tasks.map(({ Slot }) => Slot).join();
const nodes = (tasks: readonly Task[]) =>
  tasks
    .map(({ NodeID }) => NodeID)
    .toSorted()
    .join();
const failures = (world: World) => inState(world, "failed").length;

async function start(
  spec: ServiceSpec,
  fate: (task: Task) => Fate,
  options: { nodes?: number; history?: number } = {},
) {
  const world = await World.create(options);
  world.fate = fate;
  await world.createService("job", spec);
  return world;
}

describe("replicated jobs", () => {
  test("slots from 0, each completes once, no more at a time than allowed", async () => {
    const world = await start(replicated(5, 2), () => quick);
    let most = 0;
    world.store.watch(() => {
      most = Math.max(most, present(world).filter(({ Status }) => Status.State !== "complete").length);
    });
    await world.until(() => inState(world, "complete").length === 5);
    assert.equal(slots(present(world)), "0,1,2,3,4");
    assert.equal(most, 2);
    assert.ok(present(world).every(({ DesiredState }) => DesiredState === "complete"));
    const stable = world.store.view.revision;
    await world.run(3_600_000);
    assert.equal(world.store.view.revision, stable, "a completed job is left alone");
  });

  test("more tasks at a time than completions: as many as there are to complete", async () => {
    const world = await start(replicated(2, 10), () => long);
    await world.until(() => inState(world, "running").length === 2);
    assert.equal(world.tasks("job").length, 2);
  });

  test("none at a time: none", async () => {
    const world = await start(replicated(2, 0), () => quick);
    await world.run(60_000);
    assert.equal(world.tasks("job").length, 0);
  });

  test("a failed task is followed by another in its slot, after the delay", async () => {
    const world = await start(replicated(2, 1), ({ Slot, StartAfter }) =>
      Slot === 0 && !StartAfter ? failing : quick,
    );
    await world.until(() => failures(world) === 1);
    await world.run(900);
    assert.equal(inState(world, "complete").length, 0, "still waits");
    await world.until(() => inState(world, "complete").length === 2);
    assert.equal(slots(present(world)), "0,0,1");
    assert.equal(inState(world, "failed")[0]?.DesiredState, "shutdown");
  });

  test("attempts run out: the slot is given up, the others go on", async () => {
    const policy = { Delay: second, MaxAttempts: 2 };
    const fate = ({ Slot }: Task) => (Slot === 1 ? failing : quick);
    const world = await start(replicated(4, 1, { RestartPolicy: policy }), fate);
    await world.until(() => inState(world, "complete").length === 3);
    await world.run(600_000);
    assert.equal(failures(world), 3, "the first and two more");
    assert.equal(slots(present(world)), "0,1,1,1,2,3");
  });

  test("without restarts, a task that failed is the last", async () => {
    const world = await start(replicated(2, 2, { RestartPolicy: { Condition: "none" } }), () => failing);
    await world.run(600_000);
    assert.equal(failures(world), 2);
    assert.equal(present(world).length, 2);
  });

  test("a missing image does not make a tight loop", async () => {
    const world = await start(replicated(1, 1), () => ({ rejected: true, prepareMs: 10 }));
    await world.run(100_000);
    const made = [...world.store.view.all("tasks")].reduce((most, { Generation = 0 }) => Math.max(most, Generation), 0);
    assert.ok(made > 30 && made < 110, `${made} tasks in 100 s`);
  });

  test("a lost node's tasks move at once, and use up no attempt", async () => {
    const policy = { Delay: 60 * second, MaxAttempts: 1 };
    const world = await start(replicated(3, 3, { RestartPolicy: policy }), () => long, { nodes: 3 });
    await world.until(() => inState(world, "running").length === 3);
    const [lost] = present(world);
    await world.changeNode(lost!.NodeID, { State: "down" });
    const replacement = () => present(world).find(({ Slot, ID }) => Slot === lost!.Slot && ID !== lost!.ID);
    await world.until(() => replacement()?.Status.State === "running", 2_000);
    await world.report(replacement()!.ID, "failed");
    await world.until(() => inState(world, "running").filter(({ ID }) => ID !== lost!.ID).length === 3, 90_000);
  });

  test("a task that completed on a node that was lost ends its replacement", async () => {
    const world = await start(replicated(1, 1), () => long);
    world.overlap = 2; // for as long as the node does not know that it was replaced
    await world.until(() => inState(world, "running").length === 1);
    const [lost] = present(world);
    await world.changeNode(lost!.NodeID, { State: "down" });
    await world.until(() => inState(world, "running").length === 2);
    await world.changeNode(lost!.NodeID, { State: "ready" });
    await world.report(lost!.ID, "complete");
    await world.until(() => inState(world, "shutdown").length === 1);
    await world.run(600_000);
    assert.equal(present(world).length, 2);
  });

  test("the record that it completed there is not trimmed, and its replacement counts while it stops", async () => {
    const world = await start(replicated(2, 1), () => ({ ...long, stopMs: 5_000 }), { history: 0 });
    world.overlap = 2;
    await world.until(() => inState(world, "running").length === 1);
    const [lost] = present(world);
    await world.changeNode(lost!.NodeID, { State: "down" });
    await world.until(() => inState(world, "running").length === 2);
    await world.changeNode(lost!.NodeID, { State: "ready" });
    await world.report(lost!.ID, "complete");
    await world.run(4_000);
    assert.equal(slots(present(world)), "0,0", "the replacement still stops");
    await world.until(() => slots(inState(world, "running")) === "1");
    assert.equal(slots(inState(world, "complete")), "0");
  });

  test("a drained node's tasks stop, and then run elsewhere", async () => {
    const world = await start(replicated(2, 2), () => ({ ...long, stopMs: 3_000 }), { nodes: 2 });
    await world.until(() => inState(world, "running").length === 2);
    await world.changeNode("node-1", { Availability: "drain" });
    await world.until(() => nodes(inState(world, "running")) === "node-2,node-2");
  });

  test("without restarts, a lost task is not run twice", async () => {
    const world = await start(replicated(1, 1, { RestartPolicy: { Condition: "none" } }), () => long);
    await world.until(() => inState(world, "running").length === 1);
    await world.changeNode(present(world)[0]!.NodeID, { State: "down" });
    await world.run(60_000);
    assert.equal(present(world).length, 1);
  });

  test("an update runs it again: what was done stays as history, what was not is taken back", async () => {
    const world = await start(replicated(3, 1), ({ Slot }) => (Slot === 0 ? quick : { ...long, stopMs: 4_000 }));
    await world.until(() => inState(world, "complete").length === 1 && inState(world, "running").length === 1);
    world.fate = ({ JobIteration }) => (JobIteration?.Index === 0 ? { ...long, stopMs: 4_000 } : quick);
    let most = 0;
    world.store.watch(() => {
      most = Math.max(most, world.tasks("job").filter(({ Status }) => Status.State === "running").length);
    });
    await world.updateService("job", again);
    await world.until(() => inState(world, "complete").length === 3);
    assert.equal(most, 1, "also of both iterations there is only one at a time");
    const former = world.tasks("job").filter((task) => !present(world).includes(task));
    assert.equal(slots(former), "0");
    assert.equal(former[0]?.Status.State, "complete");
  });

  test("fewer completions: slots that are no more leave nothing behind", async () => {
    const world = await start(replicated(4, 4), () => quick);
    await world.until(() => inState(world, "complete").length === 4);
    await world.updateService("job", (spec) => ({ ...spec, Mode: replicated(2, 4).Mode! }));
    await world.until(() => inState(world, "complete").length === 2);
    assert.equal(slots(world.tasks("job")), "0,0,1,1");
  });

  test("its history is trimmed, but never what completed in this iteration", async () => {
    const world = await start(replicated(2, 2), () => quick, { history: 2 });
    for (let count = 0; count < 4; count++) {
      await world.until(() => inState(world, "complete").length === 2);
      await world.updateService("job", again);
    }
    await world.until(() => inState(world, "complete").length === 2);
    await world.until(() => slots(world.tasks("job")) === "0,0,1,1");
    assert.deepEqual([...world.store.view.specsOfService("job")].map(({ Revision }) => Revision).toSorted(), [4, 5]);
  });

  test("a new leader goes on where the old one was", async () => {
    const world = await start(replicated(6, 2), ({ Slot, StartAfter }) => (Slot % 2 && !StartAfter ? failing : quick));
    for (let count = 0; count < 20; count++) {
      await world.run(150);
      await world.changeLeader();
    }
    await world.until(() => inState(world, "complete").length === 6);
    assert.equal(failures(world), 3);
  });

  test("a removed job's tasks go", async () => {
    const world = await start(replicated(3, 2), ({ Slot }) => (Slot === 0 ? quick : long));
    await world.until(() => inState(world, "running").length === 2);
    await world.removeService("job");
    await world.until(() => world.tasks("job").length === 0);
  });
});

describe("global jobs", () => {
  test("one task on each active node, once; a node that joins gets its own", async () => {
    const world = await start(global(), () => quick, { nodes: 2 });
    await world.until(() => inState(world, "complete").length === 2);
    await world.addNode("late");
    await world.until(() => inState(world, "complete").length === 3);
    await world.run(600_000);
    assert.equal(nodes(present(world)), "late,node-1,node-2");
    assert.ok(present(world).every(({ Slot }) => Slot === 0));
  });

  test("paused and unfit nodes get theirs when they are fit", async () => {
    const world = await World.create({ nodes: 2 });
    world.fate = () => quick;
    await world.changeNode("node-1", { Availability: "pause" });
    await world.addNode("b");
    await world.createService("job", global({ Placement: { Constraints: ["node.labels.disk != ssd"] } }));
    await world.changeNode("b", { Labels: { disk: "ssd" } });
    await world.until(() => nodes(inState(world, "complete")).includes("node-2"));
    assert.ok(!nodes(present(world)).includes("node-1"));
    await world.changeNode("node-1", { Availability: "active" });
    await world.changeNode("b", { Labels: {} });
    await world.until(() => nodes(inState(world, "complete")) === "b,node-1,node-2");
  });

  test("attempts are counted by node", async () => {
    const policy = { Delay: second, MaxAttempts: 2 };
    const world = await start(global({ RestartPolicy: policy }), () => failing, { nodes: 2, history: 1 });
    await world.run(600_000);
    assert.equal(failures(world), 6, "on each node, the first and two more");
    assert.equal(inState(world, "failed").filter(({ NodeID }) => NodeID === "node-1").length, 3);
  });

  test("a task on a node that is down for a while is left alone, and not run twice", async () => {
    const world = await start(global(), () => ({ ...long, endsAfterMs: 30_000 }), { nodes: 2 });
    await world.until(() => inState(world, "running").length === 2);
    await world.changeNode("node-1", { State: "down" });
    await world.run(60_000);
    assert.equal(inState(world, "complete").length, 1);
    await world.changeNode("node-1", { State: "ready" });
    await world.until(() => inState(world, "complete").length === 2);
    assert.equal(present(world).length, 2);
  });

  test("a drained node stops its task, and has another when it is back", async () => {
    const world = await start(global({ RestartPolicy: { MaxAttempts: 1 } }), () => long, { nodes: 2 });
    await world.until(() => inState(world, "running").length === 2);
    for (let count = 0; count < 3; count++) {
      await world.changeNode("node-1", { Availability: "drain" });
      await world.until(() => nodes(inState(world, "running")) === "node-2");
      await world.changeNode("node-1", { Availability: "active" });
      await world.until(() => nodes(inState(world, "running")) === "node-1,node-2");
    }
  });

  test("a task that fails on a paused node waits for the node", async () => {
    const world = await start(global(), () => long, { nodes: 1 });
    await world.until(() => inState(world, "running").length === 1);
    await world.changeNode("node-1", { Availability: "pause" });
    await world.report(present(world)[0]!.ID, "failed");
    await world.run(60_000);
    assert.equal(present(world).length, 1);
    await world.changeNode("node-1", { Availability: "active" });
    await world.until(() => inState(world, "running").length === 1);
  });

  test("a deleted node's task goes", async () => {
    const world = await start(global(), () => quick, { nodes: 2 });
    await world.until(() => inState(world, "complete").length === 2);
    await world.deleteNode("node-1");
    await world.until(() => nodes(present(world)) === "node-2");
  });

  test("an update runs it again on each node, when the one before has stopped", async () => {
    const world = await start(global(), () => ({ ...long, stopMs: 4_000 }), { nodes: 2 });
    await world.until(() => inState(world, "running").length === 2);
    world.fate = ({ JobIteration }) => (JobIteration?.Index === 0 ? { ...long, stopMs: 4_000 } : quick);
    await world.updateService("job", again);
    await world.until(() => inState(world, "complete").length === 2);
    assert.equal(nodes(world.tasks("job")), "node-1,node-2", "nothing is left of the first, which never ended");
  });
});
