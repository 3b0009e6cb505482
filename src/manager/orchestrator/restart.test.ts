import assert from "node:assert/strict";
import { test } from "node:test";
import { rfc3339 } from "../../lib/clock.ts";
import type { Task, TaskState } from "../../model/types.ts";
import { mayRestart, type RestartRules, releaseTime, restartRules, startTime } from "./restart.ts";
import { newestTask } from "./slot.ts";

const start = Date.UTC(2026, 0, 1);

function task(State: TaskState, createdMs: number, more: Partial<Task> = {}): Task {
  const at = rfc3339(start + createdMs);
  return {
    ID: `task-${createdMs}`,
    Version: { Index: 1 },
    CreatedAt: at,
    UpdatedAt: at,
    ServiceID: "web",
    Slot: 1,
    NodeID: "node",
    SpecVersion: { Index: 1 },
    DesiredState: "running",
    Status: { State, Timestamp: at },
    ...more,
  };
}

const rules = (more: Partial<RestartRules> = {}): RestartRules => ({ ...restartRules(undefined), ...more });

test("the defaults are Swarm's", () => {
  const defaults = { condition: "any", delayMs: 5_000, maxAttempts: 0, windowMs: 0, stopGraceMs: 10_000 };
  assert.deepEqual(restartRules(undefined), defaults);
  assert.deepEqual(restartRules({ RestartPolicy: { Condition: "any" } }), defaults);
  assert.equal(restartRules({ RestartPolicy: { Delay: 0 } }).delayMs, 0);
  assert.equal(restartRules({ ContainerSpec: { StopGracePeriod: 0 } }).stopGraceMs, 0);
});

test("conditions", () => {
  const states: TaskState[] = ["complete", "failed", "rejected", "orphaned"];
  const allowed = (condition: RestartRules["condition"]) =>
    states.filter((state) => mayRestart(task(state, 0), [], rules({ condition }), start));
  assert.deepEqual(allowed("none"), []);
  assert.deepEqual(allowed("on-failure"), ["failed", "rejected", "orphaned"]);
  assert.deepEqual(allowed("any"), states);
});

test("attempts count only the restarts of the task's own spec revision", () => {
  const StartAfter = rfc3339(start);
  const history = [
    task("failed", 0),
    task("failed", 1, { StartAfter }),
    task("failed", 2, { StartAfter, SpecVersion: { Index: 2 } }),
  ];
  assert.equal(mayRestart(history[1]!, history, rules({ maxAttempts: 2 }), start), true);
  assert.equal(mayRestart(history[1]!, history, rules({ maxAttempts: 1 }), start), false);
  assert.equal(
    mayRestart(task("failed", 3, { SpecVersion: { Index: 3 } }), history, rules({ maxAttempts: 1 }), start),
    true,
  );
});

test("a window looks back from the failure, by the manager's clock", () => {
  const StartAfter = rfc3339(start);
  const history = [task("failed", 10_000, { StartAfter }), task("failed", 20_000, { StartAfter })];
  const failed = (ms: number) =>
    task("failed", 20_000, {
      Status: { State: "failed", Timestamp: rfc3339(start + 1e9), AppliedAt: rfc3339(start + ms) },
    });
  const limited = rules({ maxAttempts: 2, windowMs: 15_000 });
  assert.equal(mayRestart(failed(24_000), history, limited, start + 1e9), false);
  assert.equal(mayRestart(failed(25_000), history, limited, start + 1e9), true, "10 s is as old as the window");
  assert.equal(mayRestart(failed(15_000), history, limited, start + 1e9), true, "20 s came after the failure");
});

test("a stopping task is waited for by its own grace period, and not at all where nobody runs it", () => {
  const told = task("running", 0, { DesiredState: "shutdown" });
  assert.equal(releaseTime(told, rules(), false), start + 60_000);
  assert.equal(releaseTime(told, rules({ stopGraceMs: 600_000 }), false), start + 650_000);
  assert.equal(releaseTime(told, rules(), false, start + 5_000), start + 65_000);
  assert.equal(releaseTime(told, rules(), true), 0);
  assert.equal(releaseTime(task("pending", 0), rules(), false), 0);
  assert.equal(releaseTime(task("failed", 0), rules(), false), 0);
});

const hourMs = 3_600_000;

test("a new leader does not wait for what one with a clock far ahead has meant", () => {
  const delayed = (createdMs: number) => task("new", createdMs, { StartAfter: rfc3339(start + createdMs + 5_000) });
  assert.equal(startTime(delayed(0), start), start + 5_000);
  assert.equal(startTime(delayed(2_000), start), start + 7_000, "clocks are never quite the same");
  assert.equal(startTime(delayed(hourMs), start), 0);
});

test("the task of the newest spec is the newest, whatever the clock of the leader that made it said", () => {
  const old = task("complete", hourMs, { ID: "old", SpecVersion: { Index: 1 } });
  const current = task("running", 0, { ID: "current", SpecVersion: { Index: 2 } });
  assert.equal(newestTask([old, current])?.ID, "current");
});
