/** A few hundred seeds hold; the same seed is the same run; and the checkers see what they are there to see. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { availableParallelism } from "node:os";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Task, TaskState, UpdateState } from "../../src/model/types.ts";
import type { Transaction } from "../../src/store/store.ts";
import { replay, runSeeds } from "./pool.ts";
import { type RunResult, simulate } from "./run.ts";
import { World } from "./world.ts";

const seeds = 200;
const hours = 0.1;

test(`${seeds} seeds hold`, async () => {
  const run = { hours };
  const failed: RunResult[] = [];
  let done = 0;
  const finished = (result: RunResult) => {
    done++;
    if (result.failure !== undefined) failed.push(result);
    return failed.length === 0;
  };
  await runSeeds({ first: 1, seeds, jobs: availableParallelism(), run, finished });
  const texts = failed.map((result) => [...result.last, `seed ${result.seed}: ${result.failure}`, replay(result, run)]);
  assert.equal(failed.length, 0, texts.flat().join("\n"));
  assert.equal(done, seeds);
});

test("the same seed is the same run: here, beside another one, and in another process", async () => {
  const options = { hours: 0.2, managers: 3 };
  const alone = await simulate(7, options);
  const [beside, other] = await Promise.all([simulate(7, options), simulate(8, options)]);
  assert.equal(beside.fingerprint, alone.fingerprint);
  assert.notEqual(other.fingerprint, alone.fingerprint);
  const main = fileURLToPath(new URL("./main.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [main, "--seed=7", "--hours=0.2", "--managers=3"]);
  assert.match(stdout, new RegExp(`^fingerprint ${alone.fingerprint}$`, "m"));
});

test("what a replay prints is the whole run", async () => {
  const lines: string[] = [];
  const { fingerprint } = await simulate(3, { hours: 0.05, print: (line) => lines.push(line) });
  assert.equal(fingerprint.split("-")[0], String(lines.length));
  assert.ok(lines.some((line) => line.includes("faults   are over")));
});

/** The update that is under way in the world that the checkers look at. */
const update = "2026-01-01T00:00:00.000Z";

const wrongs: Record<string, { readonly expected: RegExp; readonly write: (tx: Transaction) => void }> = {
  "two tasks of a slot": {
    expected: /one task per slot: 2 tasks are wanted running at once/,
    write(tx) {
      for (const id of ["a", "b"]) addTask(tx, id, "running");
    },
  },
  "a state that goes back": {
    expected: /states advance: an observed state goes back/,
    write(tx) {
      const task = tx.get("tasks", "old") as Task;
      tx.put("tasks", { ...task, Status: { ...task.Status, State: "ready" } });
    },
  },
  "a task that changes its node": {
    expected: /states advance: a task changes its node/,
    write: (tx) => tx.put("tasks", { ...(tx.get("tasks", "old") as Task), NodeID: "node-2" }),
  },
  "an update beyond its parallelism": {
    expected: /updates keep their rules: web updates 2 at once, not 1/,
    write(tx) {
      for (const [id, slot] of [
        ["a", 2],
        ["b", 3],
      ] as const)
        addTask(tx, id, "ready", { slot, state: "new", update });
    },
  },
  "an update that is completed in spite of a failure": {
    expected: /updates keep their rules: web: completed, and 1 of 1 tasks have failed/,
    write(tx) {
      addTask(tx, "a", "shutdown", { slot: 2, state: "failed", update });
      setUpdate(tx, "completed");
    },
  },
  "an update that pauses without a failure": {
    expected: /updates keep their rules: web: paused, and no task has failed/,
    write: (tx) => setUpdate(tx, "paused"),
  },
  "an update that goes where it cannot": {
    expected: /updates keep their rules: web: its update goes from updating to rollback_completed/,
    write: (tx) => setUpdate(tx, "rollback_completed"),
  },
  "a task that stops for nothing": {
    expected: /the update order is kept: .* is to stop \(stop-first\), and nothing takes over/,
    write: (tx) => tx.put("tasks", { ...(tx.get("tasks", "up") as Task), DesiredState: "shutdown" }),
  },
  "a service that vanishes": {
    expected: /acknowledged writes are there: service web vanishes/,
    write: (tx) => tx.delete("services", "web"),
  },
};

for (const [name, { expected, write }] of Object.entries(wrongs)) {
  test(`checkers see ${name}`, async () => {
    const world = await World.create(1, {
      managers: 1,
      workers: 2,
      heartbeatMs: 5_000,
      historyLimit: 5,
      skewMs: 0,
      managerSkewMs: 0,
    });
    await world.observer.update((tx) => {
      tx.create("specs", { ID: "web.1", ServiceID: "web", Revision: 1, Spec: { Name: "web" } });
      const UpdateStatus = { State: "updating" as const, StartedAt: update };
      tx.create("services", { ID: "web", Name: "web", SpecVersion: { Index: 1 }, UpdateStatus });
      addTask(tx, "old", "shutdown");
      addTask(tx, "up", "running", { slot: 9 });
    });
    const violations = () => (world.violation ? [world.violation.message] : []);
    assert.deepEqual(violations(), []);
    await world.observer.update(write);
    assert.match(violations().join(), expected);
  });
}

interface TaskFacts {
  readonly slot?: number;
  readonly state?: TaskState;
  readonly update?: string;
}

function addTask(tx: Transaction, ID: string, DesiredState: TaskState, facts: TaskFacts = {}): void {
  tx.create("tasks", {
    ID,
    ServiceID: "web",
    Slot: facts.slot ?? 1,
    NodeID: "node-1",
    SpecVersion: { Index: 1 },
    Status: { Timestamp: tx.now, State: facts.state ?? "running" },
    DesiredState,
    ...(facts.update !== undefined && { MadeByUpdate: facts.update }),
  });
}

function setUpdate(tx: Transaction, State: UpdateState): void {
  const service = tx.service("web")!;
  tx.put("services", { ...service, UpdateStatus: { ...service.UpdateStatus, State } });
}
