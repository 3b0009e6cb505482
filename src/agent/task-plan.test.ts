import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { rank, type TaskState, taskStates } from "../model/state.ts";
import type { Observation } from "./executor/executor.ts";
import { nextStep, type Situation } from "./task-plan.ts";

const containerId = "c";
const absent: Observation = { kind: "absent" };
const created: Observation = { kind: "created", containerId };
const running = (health: "none" | "starting" | "healthy" | "unhealthy"): Observation => ({
  kind: "running",
  containerId,
  detail: { pid: 1, health, ports: undefined },
});

function step(state: TaskState, observed: Observation | undefined, change: Partial<Situation> = {}) {
  return nextStep({ desired: "running", retired: false, cause: undefined, led: false, state, observed, ...change });
}

test("the way of a task that runs", () => {
  assert.deepEqual(step("assigned", absent), { kind: "report", state: "accepted", message: "accepted" });
  assert.deepEqual(step("accepted", absent), { kind: "report", state: "preparing", message: "preparing" });
  assert.deepEqual(step("preparing", absent), { kind: "prepare" });
  assert.deepEqual(step("preparing", created), { kind: "report", state: "ready", message: "prepared" });
  assert.deepEqual(step("ready", created, { desired: "ready" }), { kind: "rest" });
  assert.deepEqual(step("ready", absent, { desired: "ready" }), { kind: "prepare" });
  assert.deepEqual(step("ready", created), { kind: "report", state: "starting", message: "starting" });
  assert.deepEqual(step("starting", created), { kind: "run" });
  assert.deepEqual(step("starting", { kind: "running", containerId }), { kind: "inspect" });
  assert.deepEqual(step("starting", running("none")), { kind: "report", state: "running", message: "started" });
  assert.deepEqual(step("running", running("none")), { kind: "rest" });
});

test("a job's desired state `complete` runs it", () => {
  assert.equal(step("ready", created, { desired: "complete" }).kind, "report");
});

test("a health check holds STARTING, and an unhealthy container is stopped as a failure", () => {
  assert.deepEqual(step("starting", running("starting")), { kind: "rest" });
  assert.equal(step("starting", running("healthy")).kind, "report");
  const halt = step("running", running("unhealthy"));
  assert.deepEqual(halt, { kind: "halt", cause: "dockerexec: unhealthy container" });
  const cause = "dockerexec: unhealthy container";
  assert.deepEqual(step("running", { kind: "exited", containerId, exit: { code: 137 } }, { cause }), {
    kind: "report",
    state: "failed",
    err: "task: non-zero exit (137): dockerexec: unhealthy container",
  });
  // Stock Swarm calls this one complete; then "on-failure" would leave a sick service without a task.
  assert.deepEqual(step("running", { kind: "exited", containerId, exit: { code: 0 } }, { cause }), {
    kind: "report",
    state: "failed",
    err: "task: dockerexec: unhealthy container",
  });
});

test("whom others are led to is withdrawn before it is stopped, whatever it is stopped for", () => {
  const cause = "dockerexec: unhealthy container";
  const led = true;
  assert.deepEqual(step("running", running("none"), { led, desired: "shutdown" }), { kind: "withdraw" });
  assert.deepEqual(step("running", running("none"), { led, retired: true }), { kind: "withdraw" });
  assert.deepEqual(step("orphaned", running("none"), { led, desired: "remove" }), { kind: "withdraw" });
  assert.deepEqual(step("running", running("unhealthy"), { led }), { kind: "withdraw", cause });
  // It ends, also if it is healthy by now: nobody is led to it any more.
  assert.deepEqual(step("running", running("healthy"), { cause }), { kind: "halt", cause });
  for (const ended of [absent, created, { kind: "exited", containerId, exit: { code: 0 } }] as const) {
    assert.equal(step("running", ended, { led, desired: "shutdown" }).kind, "report");
  }
});

test("ends: complete, failed with the code, failed with the Engine's reason", () => {
  const end = (exit: { code: number; reason?: string }) => step("running", { kind: "exited", containerId, exit });
  assert.deepEqual(end({ code: 0 }), { kind: "report", state: "complete", message: "finished" });
  assert.deepEqual(end({ code: 3 }), { kind: "report", state: "failed", err: "task: non-zero exit (3)" });
  assert.deepEqual(end({ code: 1, reason: "oops" }), {
    kind: "report",
    state: "failed",
    err: "task: non-zero exit (1): oops",
  });
  assert.deepEqual(step("running", { kind: "exited", containerId }), { kind: "inspect" });
  assert.deepEqual(step("running", { kind: "absent", exit: { code: 137 } }), {
    kind: "report",
    state: "failed",
    err: "task: non-zero exit (137)",
  });
});

test("stopping: halt what runs, then SHUTDOWN; with `remove` the container goes too", () => {
  for (const desired of ["shutdown", "remove"] as const) {
    assert.deepEqual(step("running", running("none"), { desired }), { kind: "halt" });
    const exited: Observation = { kind: "exited", containerId, exit: { code: 143 } };
    assert.deepEqual(step("running", exited, { desired }), { kind: "report", state: "shutdown", message: "shutdown" });
    assert.equal(step("shutdown", exited, { desired }).kind, desired === "remove" ? "remove" : "rest");
    assert.equal(step("assigned", absent, { desired }).kind, "report");
  }
});

test("nothing of a finished task may run", () => {
  assert.deepEqual(step("rejected", running("none")), { kind: "halt" });
  assert.deepEqual(step("failed", created), { kind: "rest" });
});

test("a retired task is cleared away without a report, and a task of which nothing is known waits", () => {
  assert.deepEqual(step("running", running("none"), { retired: true }), { kind: "halt" });
  assert.deepEqual(step("running", created, { retired: true }), { kind: "remove" });
  assert.deepEqual(step("running", absent, { retired: true }), { kind: "forget" });
  assert.deepEqual(step("running", undefined, { retired: true }), { kind: "rest" });
  assert.deepEqual(step("assigned", undefined), { kind: "rest" });
});

const states = Object.keys(taskStates) as TaskState[];
const anyObservation: fc.Arbitrary<Observation> = fc.oneof(
  fc.constantFrom<Observation>(absent, created, { kind: "running", containerId }, { kind: "exited", containerId }),
  fc.constantFrom("none", "starting", "healthy", "unhealthy").map((health) => running(health as "none")),
  fc.integer({ min: 0, max: 255 }).map((code): Observation => ({ kind: "exited", containerId, exit: { code } })),
);

test("always: no step reports a state that is not higher, and a wish to stop never starts anything", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...states),
      fc.constantFrom<TaskState>("ready", "running", "complete", "shutdown", "remove"),
      fc.boolean(),
      anyObservation,
      (state, desired, retired, observed) => {
        const next = step(state, observed, { desired, retired });
        if (next.kind === "report") assert.ok(rank(next.state) > rank(state), `${state} to ${next.state}`);
        if (rank(desired) >= rank("shutdown") || retired) assert.ok(next.kind !== "prepare" && next.kind !== "run");
      },
    ),
  );
});
