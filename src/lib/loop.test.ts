import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settled } from "./fake-clock.ts";
import { silentLogger } from "./log.ts";
import { Loop, type RunResult } from "./loop.ts";
import { seededRandom } from "./random.ts";

interface Setup {
  readonly keys?: string[];
  readonly run?: (keys: readonly string[]) => Promise<RunResult> | RunResult;
}

function setUp({ keys = [], run = () => ({ changes: 0 }) }: Setup = {}) {
  const clock = new FakeClock();
  const runs: string[][] = [];
  const loop = new Loop({
    name: "test",
    clock,
    random: seededRandom(1),
    log: silentLogger,
    run: async (woken) => {
      runs.push([...woken]);
      return run([...woken]);
    },
    allKeys: () => keys,
    resyncMs: 60_000,
  });
  return { clock, loop, runs };
}

test("it starts with all keys, and looks at all again at each resync", async () => {
  const keys = ["a", "b"];
  const { clock, loop, runs } = setUp({ keys });
  loop.start();
  await settled();
  keys.push("c");
  await clock.advance(60_000);
  assert.deepEqual(runs, [
    ["a", "b"],
    ["a", "b", "c"],
  ]);
  await loop.stop();
});

test("what is woken in one turn is one run, and a key is in it once", async () => {
  const { loop, runs } = setUp();
  loop.start();
  for (const key of ["a", "b", "a"]) loop.wake(key);
  await settled();
  assert.deepEqual(runs, [["a", "b"]]);
  await loop.stop();
});

test("never two runs at once: what is woken meanwhile comes after, before what did not fit", async () => {
  const gate = Promise.withResolvers<void>();
  let running = 0;
  let again = ["large"];
  const { loop, runs } = setUp({
    async run() {
      assert.equal(++running, 1);
      await gate.promise;
      running--;
      const result = { changes: 1, again };
      again = [];
      return result;
    },
  });
  loop.start();
  loop.wake("large");
  await settled();
  loop.wake("small");
  gate.resolve();
  await settled();
  assert.deepEqual(runs, [["large"], ["small", "large"]]);
  await loop.stop();
});

test("a run that fails wakes its keys again, later and later", async () => {
  let healthy = false;
  const { clock, loop, runs } = setUp({
    run() {
      if (!healthy) throw new Error("no store");
      return { changes: 3 };
    },
  });
  loop.start();
  loop.wake("a");
  await clock.advance(30_000);
  const early = runs.length;
  assert.ok(early > 3 && early < 30, `${early} tries`);
  assert.equal(loop.report().lastError, "no store");
  assert.equal(loop.report().failures, early);
  healthy = true;
  await clock.advance(10_000);
  const { lastError, lastChanges, state, waitingKeys } = loop.report();
  assert.deepEqual([lastError, lastChanges, state, waitingKeys], [undefined, 3, "idle", 0]);
  await loop.stop();
});

test("wakeAt: at its time, and the earlier of two", async () => {
  const { clock, loop, runs } = setUp();
  loop.start();
  const now = clock.now();
  loop.wakeAt("a", now + 5_000);
  loop.wakeAt("a", now + 1_000);
  loop.wakeAt("a", now + 3_000);
  await clock.advance(999);
  assert.equal(runs.length, 0);
  await clock.advance(1);
  assert.equal(runs.length, 1);
  await clock.advance(10_000);
  assert.equal(runs.length, 1);
  await loop.stop();
});

test("stop waits for the run under way, and nothing runs after it", async () => {
  const gate = Promise.withResolvers<void>();
  const { clock, loop, runs } = setUp({
    async run() {
      await gate.promise;
      return { changes: 0, again: ["a"], later: new Map([["b", 0]]) };
    },
  });
  loop.start();
  loop.wake("a");
  await settled();
  let stopped = false;
  const stopping = loop.stop().then(() => {
    stopped = true;
  });
  await settled();
  assert.equal(stopped, false);
  gate.resolve();
  await stopping;
  loop.wake("c");
  loop.wakeAt("d", 0);
  await clock.advance(120_000);
  assert.deepEqual(runs, [["a"]]);
  assert.equal(clock.timers, 0);
});

test("started again while it stops, it still never runs twice at once", async () => {
  const gate = Promise.withResolvers<void>();
  let running = 0;
  const { loop, runs } = setUp({
    async run() {
      assert.equal(++running, 1);
      await gate.promise;
      running--;
      return { changes: 0 };
    },
  });
  loop.start();
  loop.wake("a");
  await settled();
  const stopping = loop.stop();
  loop.start();
  loop.wake("b");
  await settled();
  gate.resolve();
  await stopping;
  await settled();
  assert.deepEqual(runs, [["a"], ["b"]]);
  assert.equal(loop.report().state, "idle");
  await loop.stop();
});
