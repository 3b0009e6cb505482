import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import type { NetworkPlane } from "../network/plane.ts";
import { fakeTask } from "./fake-manager.ts";
import { Withdrawals } from "./withdrawals.ts";

function setUp() {
  const clock = new FakeClock();
  const happened: string[] = [];
  const gates: { withdraw: Promise<void>; drained: Promise<void> } = {
    withdraw: Promise.resolve(),
    drained: Promise.resolve(),
  };
  const plane: NetworkPlane = {
    describe: () => assert.fail("not asked"),
    apply: () => assert.fail("not asked"),
    attach: () => assert.fail("not asked"),
    drained: async ({ ID }, limitMs) => {
      happened.push(`drained ${ID} ${limitMs}`);
      await gates.drained;
    },
  };
  const withdraw = async (taskIds: readonly string[]) => {
    happened.push(`withdraw ${taskIds.join(" ")}`);
    await gates.withdraw;
  };
  const withdrawals = new Withdrawals({ plane, withdraw, clock, log: silentLogger });
  const begin = (id: string, signal = new AbortController().signal, StopGracePeriod?: number) => {
    const Spec = { ContainerSpec: { Image: "bb:1", StopGracePeriod } };
    void withdrawals.withdraw(fakeTask(id, { Spec }), signal).then(() => happened.push(`stop ${id}`));
  };
  return { clock, happened, gates, begin };
}

const never = new Promise<void>(() => {});

test("tasks that stop in the same moment are one call; each then waits for its own connections", async () => {
  const { happened, begin, clock } = setUp();
  begin("a");
  begin("b");
  await settled();
  begin("c");
  await settled();
  assert.deepEqual(happened, [
    "withdraw a b",
    "drained a 2000",
    "drained b 2000",
    "stop a",
    "stop b",
    "withdraw c",
    "drained c 2000",
    "stop c",
  ]);
  assert.equal(clock.timers, 0);
});

test("a manager that does not answer is not waited for longer than two seconds", async () => {
  const { happened, begin, clock, gates } = setUp();
  gates.withdraw = never;
  begin("a");
  await clock.advance(1999);
  assert.deepEqual(happened, ["withdraw a"]);
  await clock.advance(1);
  assert.deepEqual(happened, ["withdraw a", "stop a"], "others still lead to it: there is no end to wait for");
});

test("without a manager the task is stopped at once", async () => {
  const { happened, begin, gates } = setUp();
  gates.withdraw = Promise.reject(new ShoalError("Unavailable", "no session"));
  begin("a");
  await settled();
  assert.deepEqual(happened, ["withdraw a", "stop a"]);
});

test("connections that do not end are waited for two seconds, or as long as the task's grace is", async () => {
  const { happened, begin, clock, gates } = setUp();
  gates.drained = never;
  begin("a");
  begin("b", undefined, 0.5e9);
  await clock.advance(500);
  assert.deepEqual(happened.slice(1), ["drained a 2000", "drained b 500", "stop b"]);
  await clock.advance(1500);
  assert.equal(happened.at(-1), "stop a");
  assert.equal(clock.timers, 0);
});

test("on the signal there is nothing to wait for", async () => {
  const { happened, begin, gates } = setUp();
  gates.withdraw = never;
  const controller = new AbortController();
  begin("a", controller.signal);
  await settled();
  controller.abort();
  await settled();
  assert.deepEqual(happened, ["withdraw a", "stop a"]);
});
