import assert from "node:assert/strict";
import { test } from "node:test";
import { rfc3339 } from "../../lib/clock.ts";
import { FakeClock } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { drive } from "../planner.ts";
import { makeNetwork } from "./harness.ts";
import { networkKeyPlanner } from "./network-key.ts";
import { openStore } from "./steps-fixture.ts";

const hourMs = 3_600_000;

test("the key comes with the first encrypted network, and is another one every twelve hours", async () => {
  const clock = new FakeClock();
  const store = await openStore(clock);
  const random = seededRandom(1);
  const { loop, unwatch } = drive(networkKeyPlanner(random), { store, clock, random, log: silentLogger });
  loop.start();
  const key = () => store.view.cluster()?.NetworkKey;
  await store.update((tx) => makeNetwork(tx, "plain", 1));
  await clock.advance(13 * hourMs);
  assert.equal(key(), undefined);

  await store.update((tx) => makeNetwork(tx, "secret", 2, { Options: { encrypted: "" } }));
  await clock.advance(1_000);
  const first = key();
  assert.equal(Buffer.from(first?.Key ?? "", "base64").length, 32);
  assert.equal(first?.Revision, 1);
  await clock.advance(11 * hourMs);
  assert.deepEqual(key(), first);
  await clock.advance(hourMs);
  assert.equal(key()?.Revision, 2);
  assert.notEqual(key()?.Key, first?.Key);

  // The clock of the leader that made this one was ahead.
  const MadeAt = rfc3339(clock.now() + 5 * hourMs);
  await store.update((tx) => {
    const cluster = tx.cluster()!;
    tx.put("cluster", { ...cluster, NetworkKey: { Key: first!.Key, Revision: 7, MadeAt } });
  });
  await clock.advance(12 * hourMs - 60_000);
  assert.equal(key()?.Revision, 7);
  await clock.advance(2 * 60_000);
  assert.equal(key()?.Revision, 8);
  unwatch();
  await loop.stop();
});
