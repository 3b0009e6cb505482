import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { FakeClock } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import { Reachability } from "./reachability.ts";

async function watching() {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  const down = new Set<string>();
  const calls: string[] = [];
  const told: number[] = [];
  let changes = 0;
  const reachability = new Reachability({
    nodeId: "self",
    store,
    clock,
    log: silentLogger,
    connect: (address) => ({
      ping: async () => {
        calls.push(address);
        if (down.has(address)) throw new Error("refused");
        return 7_000 + calls.length;
      },
      close: () => {},
    }),
    onChange: () => {
      changes++;
    },
    onInService: (ms) => told.push(ms),
  });
  const manager = (ID: string, Addr: string | undefined) =>
    store.update((tx) => {
      const rest = { ID, Spec: {}, Status: { State: "ready" as const }, Role: "manager" as const };
      const before = tx.get("nodes", ID);
      const ManagerStatus = Addr ? { ManagerStatus: { Addr } } : {};
      if (before) tx.put("nodes", { ...before, ManagerStatus: undefined, ...ManagerStatus } as typeof before);
      else tx.create("nodes", { ...rest, ...ManagerStatus });
    });
  /** Moves time on second by second, with room for what waits for it. */
  const pass = async (seconds: number) => {
    for (let second = 0; second < seconds; second++) {
      await new Promise<void>((resolve) => systemClock.after(2, resolve));
      clock.advance(1_000);
    }
    await new Promise<void>((resolve) => systemClock.after(2, resolve));
  };
  reachability.start();
  return { reachability, manager, down, calls, told, pass, changes: () => changes };
}

test("a manager that misses its answers for 2.5 s is unreachable, until it answers again", async () => {
  const { reachability, manager, down, pass, changes } = await watching();
  await manager("m1", "a:1");
  await pass(2);
  assert.equal(reachability.isReachable("m1"), true);
  const heard: [string, boolean][] = [];
  const stop = reachability.listen((nodeId, reachable) => heard.push([nodeId, reachable]));
  down.add("a:1");
  await pass(1);
  assert.equal(reachability.isReachable("m1"), true, "one answer may be missed");
  await pass(3);
  assert.equal(reachability.isReachable("m1"), false);
  assert.equal(changes(), 1);
  down.clear();
  await pass(2);
  assert.equal(reachability.isReachable("m1"), true);
  assert.equal(changes(), 2);
  assert.deepEqual(heard, [
    ["m1", false],
    ["m1", true],
  ]);
  stop();
  reachability.stop();
});

test("each answer says for how long the managers have been in service, the first one at once", async () => {
  const { reachability, manager, down, told, pass } = await watching();
  await manager("m1", "a:1");
  await pass(0);
  assert.deepEqual(told, [7_001]);
  down.add("a:1");
  await pass(2);
  down.clear();
  await pass(1);
  assert.deepEqual(told, [7_001, 7_004]);
  reachability.stop();
});

test("this manager itself is always there, one that is none never is, and a new address is asked anew", async () => {
  const { reachability, manager, calls, pass } = await watching();
  assert.equal(reachability.isReachable("self"), true);
  assert.equal(reachability.isReachable("m1"), false);
  await manager("m1", "a:1");
  await pass(1);
  await manager("m1", "b:1");
  await pass(1);
  const before = calls.filter((address) => address === "a:1").length;
  await manager("m1", undefined);
  await pass(2);
  assert.equal(calls.filter((address) => address === "a:1").length, before);
  assert.ok(calls.includes("b:1"));
  assert.equal(reachability.isReachable("m1"), false);
  const asked = calls.length;
  await pass(2);
  assert.equal(calls.length, asked, "nobody is left to be asked");
  reachability.stop();
});
