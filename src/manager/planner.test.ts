import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { limits } from "../lib/limits.ts";
import { type LogFields, type Logger, silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { Network } from "../model/types.ts";
import { MemoryBackend } from "../store/memory.ts";
import { Store } from "../store/store.ts";
import type { Draft } from "../store/view.ts";
import { drive, type Plan, type PlanContext, type PlannedChange, type Planner } from "./planner.ts";

/** Networks stand for anything here: their ids are what the plans write. */
function network(ID: string): Draft<Network> {
  return { ID, Name: ID, Labels: {}, Driver: "host", Predefined: true };
}

function create(ID: string): PlannedChange {
  return { kind: "create", table: "networks", object: network(ID) };
}

async function setUp(plan: (key: string, store: Store, context: PlanContext) => Plan, more: Partial<Planner> = {}) {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  const errors: (LogFields | undefined)[] = [];
  const log: Logger = { ...silentLogger, error: (_, fields) => void errors.push(fields), child: () => log };
  const planner: Planner = {
    name: "test",
    wakes: () => [],
    keys: () => [],
    plan: (_, key, context) => plan(key, store, context),
    ...more,
  };
  const { loop, unwatch } = drive(planner, { store, clock, random: seededRandom(1), log });
  loop.start();
  return { clock, store, errors, loop, unwatch };
}

const ids = (store: Store) => [...store.view.all("networks")].map(({ ID }) => ID);

test("a key whose plan throws does not hold up the others, and comes again after a growing delay", async () => {
  let tries = 0;
  const { clock, store, errors, loop } = await setUp((key, { view }) => {
    if (key !== "bad") return { changes: view.network(key) ? [] : [create(key)] };
    if (++tries < 6) throw new Error("broken spec");
    return { changes: [create("bad")] };
  });
  for (const key of ["a", "bad", "b"]) loop.wake(key);
  await settled();
  assert.deepEqual(ids(store), ["a", "b"]);
  assert.deepEqual(errors, [{ key: "bad", error: "broken spec" }]);
  assert.equal(loop.report().lastError, "bad: broken spec");
  await clock.advance(60_000);
  assert.deepEqual(ids(store), ["a", "b", "bad"]);
  assert.equal(errors.length, 5);
  assert.equal(loop.report().lastError, undefined);
  await loop.stop();
});

test("a key whose changes cannot be made loses all of them, and only them", async () => {
  const { store, errors, loop } = await setUp((key) => {
    const lost: PlannedChange = { kind: "update", table: "networks", object: network("none") as Network };
    return { changes: key === "bad" ? [create("half"), lost] : [create(key)] };
  });
  for (const key of ["a", "bad", "b"]) loop.wake(key);
  await settled();
  assert.deepEqual(ids(store), ["a", "b"]);
  assert.equal(errors.length, 1);
  await loop.stop();
});

test("a plan that does not fit is cut, made anew from what is written, and lets others in between", async () => {
  const count = limits.changesPerTransaction * 2 + 60;
  const commits: string[][] = [];
  const { store, loop } = await setUp((key, { view }) => {
    if (key === "small") return { changes: view.network("small") ? [] : [create("small")] };
    const all = Array.from({ length: count }, (_, index) => `large-${index}`);
    return { changes: all.filter((id) => !view.network(id)).map(create) };
  });
  store.watch(({ changes }) => commits.push(changes.map(({ id }) => id)));
  for (const key of ["large", "small"]) loop.wake(key);
  await settled();
  assert.deepEqual(
    commits.map((commit) => commit.length),
    [1000, 1000, 61],
  );
  assert.ok(commits[1]?.includes("small"));
  assert.equal(ids(store).length, count + 1);
  await loop.stop();
});

test("a planner that stops at the room there is says so and goes on", async () => {
  const count = limits.changesPerTransaction * 2 + 60;
  let longest = 0;
  const { store, loop } = await setUp((_, { view }, { room }) => {
    const changes: PlannedChange[] = [];
    for (let index = 0; index < count; index++) {
      if (view.network(`${index}`)) continue;
      if (changes.length >= room) return { changes, more: true };
      changes.push(create(`${index}`));
      longest = Math.max(longest, changes.length);
    }
    return { changes };
  });
  loop.wake("all");
  await settled();
  assert.equal(ids(store).length, count);
  assert.equal(longest, limits.changesPerTransaction);
  await loop.stop();
});

test("what belongs together is not cut: a planner that minds the room may end its unit", async () => {
  const commits: number[] = [];
  const { store, loop } = await setUp((_, { view }, { room }) => {
    const changes: PlannedChange[] = [];
    for (let index = 0; index < 500; index++) {
      if (view.network(`${index}.0`)) continue;
      if (changes.length >= room) return { changes, more: true };
      for (let part = 0; part < 3; part++) changes.push(create(`${index}.${part}`));
    }
    return { changes };
  });
  store.watch(({ changes }) => commits.push(changes.length));
  loop.wake("all");
  await settled();
  assert.deepEqual(commits, [1002, 498]);
  await loop.stop();
});

test("a plan that always wants more without changing anything does not spin", async () => {
  const { errors, loop } = await setUp(() => ({ changes: [], more: true }));
  loop.wake("a");
  await settled();
  assert.equal(errors.length, 1);
  await loop.stop();
});

test("againAt plans the key again at that time, with nothing else happening", async () => {
  const plannedAt: number[] = [];
  const { clock, loop } = await setUp((_, __, { now }) => {
    plannedAt.push(now);
    return plannedAt.length < 3 ? { changes: [], againAt: now + 2_000 } : { changes: [] };
  });
  const start = clock.now();
  loop.wake("a");
  await clock.advance(30_000);
  assert.deepEqual(plannedAt, [start, start + 2_000, start + 4_000]);
  await loop.stop();
});

test("commits wake the keys that they concern; a planner that cannot tell which fails nobody's commit", async () => {
  const planned: string[] = [];
  const { store, errors, loop, unwatch } = await setUp(
    (key) => {
      planned.push(key);
      return { changes: [] };
    },
    {
      wakes(change) {
        if (change.id === "odd") throw new Error("odd");
        return [change.id];
      },
    },
  );
  await store.update((tx) => tx.create("networks", network("odd")));
  await store.update((tx) => tx.create("networks", network("even")));
  await settled();
  assert.deepEqual(planned, ["even"]);
  assert.deepEqual(errors, [{ table: "networks", id: "odd", error: "odd" }]);
  unwatch();
  await store.update((tx) => tx.create("networks", network("later")));
  await settled();
  assert.deepEqual(planned, ["even"]);
  await loop.stop();
});

test("a conflict plans again from what is there then", async () => {
  const clock = new FakeClock();
  const memory = new MemoryBackend();
  let conflicts = 2;
  const store = await Store.open(
    {
      load: () => memory.load(),
      follow: (listener) => memory.follow(listener),
      commit: async (batch) => (conflicts-- > 0 ? { kind: "conflict" } : memory.commit(batch)),
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    },
    clock,
  );
  const log: Logger = { ...silentLogger, child: () => log };
  let plans = 0;
  const planner: Planner = {
    name: "test",
    wakes: () => [],
    keys: () => [],
    plan() {
      plans++;
      return { changes: plans < 3 ? [create("seen")] : [create("fresh")] };
    },
  };
  const { loop } = drive(planner, { store, clock, random: seededRandom(1), log });
  loop.start();
  loop.wake("a");
  await settled();
  assert.equal(plans, 3);
  assert.deepEqual(ids(store), ["fresh"]);
  await loop.stop();
});
