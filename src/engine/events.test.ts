import assert from "node:assert/strict";
import { test } from "node:test";
import type { EventMessage } from "@docker/node-sdk";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { EngineEvents } from "./events.ts";
import { FakeEngine } from "./fake-engine.ts";

function setUp() {
  const engine = new FakeEngine();
  const clock = new FakeClock();
  const seen: string[] = [];
  const fail = { connected: undefined as Error | undefined };
  const events = new EngineEvents({
    engine,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    filters: {},
    listener: {
      connected: async () => {
        seen.push("connected");
        if (fail.connected) throw fail.connected;
      },
      event: ({ Action }) => seen.push(Action ?? ""),
      lost: () => seen.push("lost"),
    },
  });
  return { engine, clock, seen, fail, events };
}

const event = (Action: string, ms: number): EventMessage => ({
  Action,
  Actor: { ID: "c" },
  timeNano: (Date.UTC(2026, 0, 1) + ms) * 1e6,
});

test("each stream begins by a look at everything; an ended one is opened again from the last event, without repeats", async () => {
  const { engine, clock, seen, events } = setUp();
  events.start();
  await settled();
  engine.send(event("start", 1000));
  engine.send(event("die", 2000));
  await settled();
  assert.deepEqual(seen, ["connected", "start", "die"]);
  engine.stop();
  await settled();
  engine.down = false;
  await clock.advance(1000);
  engine.send(event("die", 2000));
  engine.send(event("destroy", 2001));
  await settled();
  assert.deepEqual(seen.slice(3), ["lost", "connected", "destroy"]);
  const [first, second] = engine.sinces;
  const startedAt = Date.UTC(2026, 0, 1) / 1000;
  for (const [since, expected] of [[first, startedAt] as const, [second, startedAt + 2] as const]) {
    const back = expected - Number(since);
    assert.ok(back >= 0 && back < 0.001, `${since} is not just before ${expected}`);
  }
  await events.stop();
});

test("an Engine that is gone is looked for every second or so, for ever", async () => {
  const { engine, clock, seen, events } = setUp();
  engine.down = true;
  events.start();
  await clock.advance(60_000);
  assert.ok(seen.length > 60 && seen.length < 400, `${seen.length} tries`);
  engine.down = false;
  await clock.advance(1000);
  assert.equal(seen.at(-1), "connected");
  await events.stop();
  assert.equal(clock.timers, 0);
});

test("a look that fails ends the stream, and both are tried again", async () => {
  const { clock, seen, fail, events } = setUp();
  fail.connected = new ShoalError("Unavailable", "no list");
  events.start();
  await settled();
  fail.connected = undefined;
  await clock.advance(1000);
  assert.deepEqual(seen, ["connected", "lost", "connected"]);
  await events.stop();
});
