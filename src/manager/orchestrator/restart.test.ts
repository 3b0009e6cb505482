import assert from "node:assert/strict";
import { test } from "node:test";
import { rfc3339 } from "../../lib/clock.ts";
import type { Task, TaskState } from "../../model/types.ts";
import { endTime, mayRestart, type RestartRules, releaseTime, restartRules, startTime } from "./restart.ts";
import { newestTask } from "./slot.ts";

const start = Date.UTC(2026, 0, 1);
const hourMs = 3_600_000;

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

test("a window looks back from the failure", () => {
  const StartAfter = rfc3339(start);
  const history = [task("failed", 10_000, { StartAfter }), task("failed", 20_000, { StartAfter })];
  const limited = rules({ maxAttempts: 2, windowMs: 15_000 });
  assert.equal(mayRestart(history[1]!, history, limited, start + 24_000), false);
  assert.equal(mayRestart(history[1]!, history, limited, start + 25_000), true, "10 s is as old as the window");
  assert.equal(mayRestart(history[1]!, history, limited, start + 15_000), true, "20 s came after the failure");
});

test("a task ended as it is stored, or when the leader heard of it where that cannot be", () => {
  const now = start + 60_000;
  const failed = (ms: number) =>
    task("failed", 20_000, {
      Status: { State: "failed", Timestamp: rfc3339(start + 1e9), AppliedAt: rfc3339(start + ms) },
    });
  const heard = { heardAt: start + 30_000, leadsSince: start };
  const loaded = { heardAt: undefined, leadsSince: start };
  for (const times of [heard, loaded]) assert.equal(endTime(failed(24_000), times, now), start + 24_000);
  for (const elsewhereMs of [hourMs, -hourMs]) {
    assert.equal(endTime(failed(elsewhereMs), heard, now), start + 30_000);
    assert.equal(endTime(failed(elsewhereMs), loaded, now), start + 20_000, "as soon as it was made");
  }
  assert.equal(endTime(task("running", 0), heard, now), now, "it ends by being lost");
});

test("a stopping task is waited for by its own grace period, and not at all where nobody runs it", () => {
  const told = task("running", 0, { DesiredState: "shutdown" });
  assert.equal(releaseTime(told, rules(), false, start), start + 60_000);
  assert.equal(releaseTime(told, rules({ stopGraceMs: 600_000 }), false, start), start + 650_000);
  assert.equal(releaseTime(told, rules(), true, start), 0);
  assert.equal(releaseTime(task("pending", 0), rules(), false, start), 0);
  assert.equal(releaseTime(task("failed", 0), rules(), false, start), 0);
});

test("a replacement waits for its delay by the leader's own clock, whatever that of the one who made it said", () => {
  const delayed = (createdMs: number) => task("new", createdMs, { StartAfter: rfc3339(start + createdMs + 5_000) });
  const startOf = (createdMs: number, leadsSinceMs: number, heardAtMs?: number) => {
    const heardAt = heardAtMs === undefined ? undefined : start + heardAtMs;
    return startTime(delayed(createdMs), { heardAt, leadsSince: start + leadsSinceMs }) - start;
  };
  assert.equal(startOf(1_000, 0, 3_000), 6_000, "it made it itself, and has heard of its progress since");
  assert.equal(startOf(-hourMs, 0, 3_000), 5_000, "made before the lead began, by a clock that is behind");
  assert.equal(startOf(hourMs, 0, 3_000), 8_000, "by a clock that is ahead");
  assert.equal(startOf(hourMs, 0, -2_000), 3_000, "heard of before the lead began");
  assert.equal(startOf(hourMs, 0), 5_000, "not heard of at all");
  assert.equal(startTime(task("new", hourMs), { heardAt: undefined, leadsSince: start }), 0, "no replacement");
});

test("the newest task is told by its spec and its generation, not by the clocks of the leaders that made them", () => {
  const old = task("complete", hourMs, { ID: "old", Generation: 7 });
  const current = task("running", 0, { ID: "current", SpecVersion: { Index: 2 }, Generation: 1 });
  const successor = task("running", -hourMs, { ID: "successor", Generation: 8 });
  assert.equal(newestTask([old, current])?.ID, "current");
  assert.equal(newestTask([old, successor])?.ID, "successor");
});
