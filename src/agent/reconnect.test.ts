/** How an agent notices that its manager is gone, and where it goes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { Agent } from "./agent.ts";
import { FakeExecutor } from "./executor/fake-executor.ts";
import { FakeManager, fakeIdentity } from "./fake-manager.ts";
import { MemoryTaskDatabase } from "./task-database.ts";

const one = { nodeId: "m1", address: "one:2377", weight: 1 };
const two = { nodeId: "m2", address: "two:2377", weight: 1 };

/** A manager that pings each second, for as long as it lives. */
async function pinging(manager: FakeManager, clock: FakeClock, seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    manager.life = { ...manager.life!, bytesRead: manager.life!.bytesRead + 17 };
    await clock.advance(1000);
  }
}

async function connected(
  t: { after(run: () => Promise<void>): void },
  managers: readonly (typeof one)[],
  pings: boolean,
  forSeconds = 20,
) {
  const clock = new FakeClock();
  const manager = new FakeManager();
  manager.managers = [...managers];
  manager.life = { accepted: true, bytesRead: 100, pings };
  const random = seededRandom(1);
  const agent = new Agent({
    identity: fakeIdentity,
    dialer: manager,
    managers: managers.map(({ address }) => address),
    executor: new FakeExecutor(),
    taskDatabase: new MemoryTaskDatabase(),
    certificates: {
      tlsInfo: () => ({ TrustRoot: "root" }),
      renewAt: () => Number.MAX_SAFE_INTEGER,
      renew: async (_, current) => current,
    },
    clock,
    random,
    log: silentLogger,
  });
  t.after(() => agent.stop());
  agent.start();
  await settled();
  assert.equal(manager.dialled.length, 1);
  if (pings) await pinging(manager, clock, forSeconds);
  else await clock.advance(forSeconds * 1000);
  assert.equal(manager.dialled.length, 1);
  return { clock, manager, other: manager.dialled[0] === one.address ? two.address : one.address };
}

test("a manager whose pings cease is left for another within four seconds", async (t) => {
  const { clock, manager, other } = await connected(t, [one, two], true);
  await clock.advance(2000);
  assert.equal(manager.dialled.length, 1);
  await clock.advance(2000);
  assert.equal(manager.dialled[1], other);
});

test("a manager that falls silent as soon as the session is open is left as well", async (t) => {
  const { clock, manager } = await connected(t, [one, two], true, 0);
  await clock.advance(2900);
  assert.equal(manager.dialled.length, 1);
  await clock.advance(700);
  assert.equal(manager.dialled.length, 2);
});

test("a manager that takes the connection and opens no session is left in time, unless it is the only one", async (t) => {
  for (const [managers, tries] of [
    [[one, two], 2],
    [[one], 1],
  ] as const) {
    const { clock, manager } = await connected(t, managers, true);
    manager.dialled.length = 0;
    manager.opens = false;
    manager.disconnect();
    await clock.advance(100);
    assert.equal(manager.dialled.length, 1);
    await clock.advance(3500);
    assert.equal(manager.dialled.length, tries);
  }
});

test("the only manager is not left for its silence", async (t) => {
  const { clock, manager } = await connected(t, [one], true);
  await clock.advance(30_000);
  assert.equal(manager.dialled.length, 1);
});

test("a manager that never pings, as Swarm's, is judged by its heartbeats alone", async (t) => {
  const { clock, manager } = await connected(t, [one, two], false);
  await clock.advance(30_000);
  assert.equal(manager.dialled.length, 1);
});

test("a machine that does not take the connection is given up after two seconds, without a pause", async (t) => {
  const { clock, manager, other } = await connected(t, [one, two], true);
  manager.life = { accepted: false, bytesRead: 0, pings: false };
  manager.disconnect();
  await clock.advance(1900);
  assert.equal(manager.dialled.length, 2);
  assert.equal(manager.dialled[1], other);
  await clock.advance(200);
  assert.equal(manager.dialled.length, 3);
});

test("the other manager is tried at once; only after a whole round there is a pause", async (t) => {
  const { clock, manager } = await connected(t, [one, two], true);
  manager.fail.session = new ShoalError("Unavailable", "connection refused");
  manager.dialled.length = 0;
  manager.disconnect();
  await settled();
  assert.equal(manager.dialled.length, 1);
  manager.fail.session = undefined;
  await clock.advance(1000);
  assert.equal(manager.connected, true);
});
