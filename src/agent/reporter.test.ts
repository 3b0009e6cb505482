import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { TaskState, TaskStatus } from "../model/types.ts";
import type { TaskStatusUpdate } from "../rpc/services.ts";
import { StatusReporter } from "./reporter.ts";

function status(State: TaskState): TaskStatus {
  return { State, Timestamp: "" };
}

function setUp() {
  const clock = new FakeClock();
  const reporter = new StatusReporter(clock, seededRandom(1), silentLogger);
  const sent: string[] = [];
  const session = new AbortController();
  let answer: (updates: readonly TaskStatusUpdate[]) => Promise<void> = async () => undefined;
  const run = () =>
    reporter.run((updates) => {
      sent.push(updates.map(({ taskId, status: { State } }) => `${taskId} ${State}`).join(", "));
      return answer(updates);
    }, session.signal);
  return {
    clock,
    reporter,
    sent,
    session,
    run,
    setAnswer: (next: typeof answer) => {
      answer = next;
    },
  };
}

test("what comes in one turn is one call, of each task the newest; what comes during a call goes with the next", async () => {
  const { reporter, sent, run, session, setAnswer } = setUp();
  let answered = () => {};
  setAnswer(() => new Promise((resolve) => (answered = resolve)));
  const running = run();
  reporter.report("a", status("accepted"));
  reporter.report("a", status("preparing"));
  reporter.report("b", status("accepted"));
  await settled();
  reporter.report("a", status("ready"));
  reporter.report("a", status("starting"));
  reporter.report("c", status("running"));
  await settled();
  assert.deepEqual(sent, ["a preparing, b accepted"]);
  answered();
  await settled();
  assert.deepEqual(sent.slice(1), ["a starting, c running"]);
  answered();
  await settled();
  assert.equal(reporter.waiting, 0);
  session.abort(new ShoalError("Canceled", "over"));
  await assert.rejects(running, /over/);
});

test("tried again until it is accepted, over sessions too", async () => {
  const { clock, reporter, sent, run, session, setAnswer } = setUp();
  setAnswer(() => Promise.reject(new ShoalError("Unavailable", "no leader")));
  const first = run();
  reporter.report("a", status("running"));
  await clock.advance(10_000);
  assert.ok(sent.length > 3);
  session.abort(new ShoalError("Canceled", "over"));
  await assert.rejects(first, /over/);
  const again: string[] = [];
  const next = new AbortController();
  const second = reporter.run(async (updates) => void again.push(updates[0]?.taskId ?? ""), next.signal);
  await settled();
  assert.deepEqual(again, ["a"]);
  next.abort(new ShoalError("Canceled", "over"));
  await assert.rejects(second, /over/);
});

test("a session that the manager doesn't know ends the reporting, and nothing is lost", async () => {
  const { reporter, run, setAnswer } = setUp();
  setAnswer(() => Promise.reject(new ShoalError("InvalidArgument", "session invalid")));
  reporter.report("a", status("running"));
  await assert.rejects(run(), /session invalid/);
  assert.equal(reporter.waiting, 1);
});

test("one task that is not ours does not hold up the others", async () => {
  const { reporter, sent, run, session, setAnswer } = setUp();
  setAnswer((updates) =>
    updates.some(({ taskId }) => taskId === "foreign")
      ? Promise.reject(new ShoalError("PermissionDenied", "not yours"))
      : Promise.resolve(),
  );
  for (const id of ["a", "foreign", "b"]) reporter.report(id, status("running"));
  const running = run();
  await settled();
  assert.deepEqual(sent.slice(1), ["a running", "foreign running", "b running"]);
  assert.equal(reporter.waiting, 0);
  session.abort(new ShoalError("Canceled", "over"));
  await assert.rejects(running, /over/);
});
