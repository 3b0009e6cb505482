import assert from "node:assert/strict";
import { test } from "node:test";
import { rfc3339 } from "../lib/clock.ts";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { rank, type TaskState } from "../model/state.ts";
import type { AssignedTask, AttachedNetwork, TaskStatus } from "../model/types.ts";
import { FakeExecutor } from "./executor/fake-executor.ts";
import { fakeTask } from "./fake-manager.ts";
import { TaskRunner, type TaskRunnerOptions } from "./task.ts";

function setUp(change: Partial<AssignedTask> = {}, withdraw?: TaskRunnerOptions["withdraw"]) {
  const clock = new FakeClock();
  const executor = new FakeExecutor();
  const reports: TaskStatus[] = [];
  let gone = false;
  const task = fakeTask("t1", change);
  const runner = new TaskRunner("t1", task, task.Status, {
    executor,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    withdraw,
    report: ({ status }) => reports.push(status),
    gone: () => {
      gone = true;
    },
  });
  executor.start({ ready: () => undefined, changed: () => runner.wake(), problem: (text) => runner.outage(text) });
  return {
    clock,
    executor,
    reports,
    runner,
    task,
    isGone: () => gone,
    states: () => reports.map(({ State }) => State),
    last: () => reports.at(-1),
    want: async (DesiredState: TaskState) => {
      runner.update({ ...task, DesiredState });
      await settled();
    },
  };
}

test("a task walks through all states, with Swarm's messages", async () => {
  const { runner, reports, states, executor, last, want } = setUp();
  runner.wake();
  await settled();
  assert.deepEqual(states(), ["accepted", "preparing", "ready", "starting", "running"]);
  assert.deepEqual(
    reports.map(({ Message }) => Message),
    ["accepted", "preparing", "prepared", "starting", "started"],
  );
  assert.deepEqual(last()?.ContainerStatus, { ContainerID: "c-t1", PID: 42 });
  assert.deepEqual(executor.calls, ["prepare t1", "run t1", "inspect t1"]);
  await want("shutdown");
  assert.deepEqual(last(), {
    Timestamp: "2026-01-01T00:00:00.000Z",
    State: "shutdown",
    Message: "shutdown",
    ContainerStatus: { ContainerID: "c-t1", ExitCode: 0 },
  });
  assert.deepEqual(executor.calls.slice(3), ["halt t1"]);
});

test("a task that is to be ready waits there, and starts when it may", async () => {
  const { runner, states, want } = setUp({ DesiredState: "ready" });
  runner.wake();
  await settled();
  assert.deepEqual(states(), ["accepted", "preparing", "ready"]);
  await want("running");
  assert.deepEqual(states().slice(3), ["starting", "running"]);
});

test("the stop grace period goes along; desired remove also removes", async () => {
  const Spec = { ContainerSpec: { Image: "bb:1", StopGracePeriod: 7.5e9 } };
  const { runner, executor, states, want } = setUp({ Spec });
  runner.wake();
  await settled();
  runner.update({ ...fakeTask("t1", { Spec }), DesiredState: "remove" });
  await want("remove");
  assert.deepEqual(executor.calls.slice(3), ["halt t1 7500000000", "remove t1"]);
  assert.equal(states().at(-1), "shutdown");
});

test("an error before STARTING rejects the task, one from there on fails it", async () => {
  const early = setUp();
  early.executor.fail.prepare = new ShoalError("NotFound", "No such image: x:latest");
  early.runner.wake();
  await settled();
  assert.equal(early.last()?.State, "rejected");
  assert.equal(early.last()?.Err, "No such image: x:latest");
  assert.equal(early.last()?.Message, "preparing");

  const late = setUp();
  late.executor.fail.run = new ShoalError("Internal", "no such executable");
  late.runner.wake();
  await settled();
  assert.equal(late.last()?.State, "failed");
  assert.equal(late.last()?.Err, "starting container failed: no such executable");
});

test("an Engine that can't be reached: tried again with growing delays, and the status says why", async () => {
  const { clock, runner, executor, states, last } = setUp();
  executor.fail.prepare = new ShoalError("Unavailable", "Cannot connect to the Docker Engine");
  runner.wake();
  await settled();
  assert.equal(last()?.State, "preparing");
  assert.equal(last()?.Err, "Cannot connect to the Docker Engine");
  await clock.advance(60_000);
  const tries = executor.calls.length;
  assert.ok(tries > 5 && tries < 60, `${tries} tries in a minute`);
  assert.equal(states().filter((state) => state === "preparing").length, 2, "the same trouble is told once");
  executor.fail.prepare = undefined;
  await clock.advance(8000);
  assert.equal(last()?.State, "running");
  assert.equal(last()?.Err, undefined);
});

test("a stop that fails is tried until it works; it never fails the task", async () => {
  const { clock, runner, executor, last, want } = setUp();
  runner.wake();
  await settled();
  executor.fail.halt = new ShoalError("Internal", "device busy");
  await want("shutdown");
  assert.equal(last()?.State, "running");
  assert.equal(last()?.Err, "device busy");
  executor.fail.halt = undefined;
  await clock.advance(10_000);
  assert.equal(last()?.State, "shutdown");
  assert.equal(last()?.Err, undefined);
});

test("a slow step says what it waits for", async () => {
  const { clock, runner, executor, last } = setUp();
  let open = () => {};
  executor.gates.prepare = new Promise((resolve) => {
    open = resolve;
  });
  runner.wake();
  await clock.advance(4999);
  assert.equal(last()?.Message, "preparing");
  await clock.advance(1);
  assert.equal(last()?.Message, "preparing: pulling image bb:1");
  assert.equal(last()?.Err, "pulling image bb:1");
  assert.equal(last()?.State, "preparing");
  assert.equal(last()?.Timestamp, rfc3339(clock.now() - 5000), "it is in that state since it entered it");
  open();
  await settled();
  assert.equal(last()?.State, "running");
  assert.equal(last()?.Err, undefined);
  assert.equal(last()?.Message, "started");
});

test("a preparation that is no longer wanted is given up at once", async () => {
  const { runner, executor, states, want } = setUp();
  executor.gates.prepare = new Promise(() => {});
  runner.wake();
  await settled();
  await want("shutdown");
  assert.deepEqual(states(), ["accepted", "preparing", "shutdown"]);
});

test("a container that ends by itself", async () => {
  const { runner, executor, last } = setUp();
  runner.wake();
  await settled();
  executor.exit("t1", { code: 3 });
  await settled();
  assert.equal(last()?.State, "failed");
  assert.equal(last()?.Err, "task: non-zero exit (3)");
  assert.equal(last()?.Message, "started");
  assert.equal(last()?.ContainerStatus?.ExitCode, 3);
});

test("a health check: STARTING until healthy; unhealthy is stopped and failed", async () => {
  const { runner, executor, last } = setUp();
  executor.health = "starting";
  executor.exitCode = 137;
  runner.wake();
  await settled();
  assert.equal(last()?.State, "starting");
  const detail = { pid: 42, ports: undefined };
  executor.show("t1", { kind: "running", containerId: "c-t1", detail: { ...detail, health: "healthy" } });
  await settled();
  assert.equal(last()?.State, "running");
  executor.show("t1", { kind: "running", containerId: "c-t1", detail: { ...detail, health: "unhealthy" } });
  await settled();
  assert.equal(last()?.State, "failed");
  assert.equal(last()?.Err, "task: non-zero exit (137): dockerexec: unhealthy container");
});

test("a container that is long in becoming healthy says so, until it is", async () => {
  const { clock, runner, executor, last } = setUp();
  executor.health = "starting";
  runner.wake();
  await clock.advance(4999);
  assert.deepEqual([last()?.State, last()?.Err], ["starting", undefined]);
  await clock.advance(1);
  const text = "waiting for the container's first successful health check";
  assert.deepEqual([last()?.State, last()?.Message, last()?.Err], ["starting", `starting: ${text}`, text]);
  executor.show("t1", {
    kind: "running",
    containerId: "c-t1",
    detail: { pid: 42, ports: undefined, health: "healthy" },
  });
  await settled();
  assert.deepEqual([last()?.State, last()?.Message, last()?.Err], ["running", "started", undefined]);
});

test("an outage of the Engine is shown and taken back, the state is kept", async () => {
  const { runner, executor, last, reports } = setUp();
  runner.wake();
  await settled();
  executor.problem("Cannot connect");
  assert.equal(last()?.State, "running");
  assert.equal(last()?.Err, "Cannot connect");
  executor.problem(undefined);
  assert.equal(last()?.State, "running");
  assert.equal(last()?.Err, undefined);
  assert.equal(last()?.Message, "started");
  const count = reports.length;
  await settled();
  assert.equal(reports.length, count);
});

test("retired: stopped, removed, forgotten, nothing reported", async () => {
  const { runner, executor, reports, isGone } = setUp();
  runner.wake();
  await settled();
  const before = reports.length;
  runner.retire();
  await settled();
  assert.deepEqual(executor.calls.slice(3, 5), ["halt t1", "remove t1"]);
  assert.equal(reports.length, before);
  assert.ok(isGone());
});

test("a manager that has ended the task by itself: what runs is stopped, nothing is reported", async () => {
  const { runner, executor, reports, task } = setUp();
  runner.wake();
  await settled();
  const before = reports.length;
  const Status: TaskStatus = { ...task.Status, State: "orphaned" };
  runner.update({ ...task, Status, DesiredState: "shutdown" });
  await settled();
  assert.deepEqual(executor.calls.slice(3), ["halt t1"]);
  assert.equal(reports.length, before);
});

const overlay: AttachedNetwork = {
  Network: {
    ID: "n1",
    Version: { Index: 1 },
    CreatedAt: "",
    UpdatedAt: "",
    Labels: {},
    Name: "front",
    Driver: "overlay",
    Predefined: false,
  },
  Addresses: ["10.0.1.5/24"],
  Aliases: [],
};

test("a task with addresses is withdrawn before it is stopped; one without is stopped at once", async () => {
  const withdrawn: string[] = [];
  const withdraw = async ({ ID }: AssignedTask) => void withdrawn.push(ID);
  for (const Networks of [[overlay], [{ ...overlay, Addresses: [] }]]) {
    const { runner, executor, states, want } = setUp({ Networks }, withdraw);
    runner.wake();
    await settled();
    await want("shutdown");
    assert.deepEqual(executor.calls.slice(3), ["halt t1"]);
    assert.equal(states().at(-1), "shutdown");
  }
  assert.deepEqual(withdrawn, ["t1"]);
});

test("an unhealthy task is withdrawn first, and stopped also if it is healthy by then", async () => {
  const gate = Promise.withResolvers<void>();
  const { runner, executor, last } = setUp({ Networks: [overlay] }, () => gate.promise);
  executor.exitCode = 137;
  runner.wake();
  await settled();
  const show = (health: "healthy" | "unhealthy") =>
    executor.show("t1", { kind: "running", containerId: "c-t1", detail: { pid: 42, ports: undefined, health } });
  show("unhealthy");
  await settled();
  show("healthy");
  await settled();
  assert.equal(last()?.State, "running");
  gate.resolve();
  await settled();
  assert.equal(last()?.Err, "task: non-zero exit (137): dockerexec: unhealthy container");
});

test("a withdrawal holds up neither the end of the container nor that of the agent", async () => {
  const untilAborted = (_: AssignedTask, signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  const ends = setUp({ Networks: [overlay] }, untilAborted);
  ends.runner.wake();
  await settled();
  await ends.want("shutdown");
  assert.equal(ends.last()?.State, "running");
  ends.executor.exit("t1", { code: 137 });
  await settled();
  assert.equal(ends.last()?.State, "shutdown");
  assert.ok(!ends.executor.calls.includes("halt t1"), "there was nothing left to stop");

  const stops = setUp({ Networks: [overlay] }, untilAborted);
  stops.runner.wake();
  await settled();
  await stops.want("shutdown");
  await stops.runner.stop();
  assert.equal(stops.executor.observe("t1")?.kind, "running");
});

test("always: states only grow, and one step at a time, whatever happens when", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = seededRandom(seed);
    const { clock, executor, reports, runner, task } = setUp();
    let desired: TaskState = "ready";
    const failing = new ShoalError(random.float() < 0.8 ? "Unavailable" : "Internal", "no luck");
    for (let turn = 0; turn < 40; turn++) {
      const dice = random.float();
      if (dice < 0.15) executor.exit("t1", { code: Math.floor(random.float() * 2) });
      else if (dice < 0.3) executor.fail.run = executor.fail.run ? undefined : failing;
      else if (dice < 0.4) executor.fail.halt = executor.fail.halt ? undefined : failing;
      else if (dice < 0.5) executor.fail.prepare = executor.fail.prepare ? undefined : failing;
      else if (dice < 0.6) desired = desired === "ready" ? "running" : dice < 0.52 ? "shutdown" : desired;
      runner.update({ ...task, DesiredState: desired });
      await clock.advance(random.float() * 3000);
    }
    for (const name of ["prepare", "run", "halt"] as const) executor.fail[name] = undefined;
    runner.update({ ...task, DesiredState: "remove" });
    await clock.advance(20_000);
    const ranks = reports.map(({ State }) => rank(State));
    assert.deepEqual(
      ranks,
      ranks.toSorted((one, other) => one - other),
      `seed ${seed}`,
    );
    assert.ok(executor.mostAtOnce <= 1, `seed ${seed}: two steps at once`);
    assert.equal(executor.observations.size, 0, `seed ${seed}: something is left over`);
    assert.ok(rank(runner.status.State) > rank("running"), `seed ${seed}: ${runner.status.State}`);
    assert.equal(clock.timers, 0, `seed ${seed}: a timer is left over`);
  }
});
