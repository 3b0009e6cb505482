/**
 * How long the loss of a machine is felt, in virtual time, over many seeds: the promised numbers, and that only what
 * is lost is taken for lost.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { addressOf, type SimulatedNode } from "./node.ts";
import { World } from "./world.ts";

const seeds = 25;
const replicas = 12;
const settledWithinMs = 60_000;
/** Sessions are no longer new. */
const restMs = 30_000;
/** From a machine's death until all of its tasks run elsewhere, without a restart delay. */
const tasksElsewhereMs = 7_000;
/** From the leader's death until a write is answered. */
const firstWriteMs = 3_000;
/** From the moment in which the leader's process stands still until another one's loops have acted. */
const standstillMs = 10_000;
const triesEveryMs = 20;
/** From a manager's loss of power until all agents are with another one. */
const agentsElsewhereMs = 4_000;
/** How much later in a session's life each seed's loss falls. */
const laterMs = 80;

const shape = { managers: 3, workers: 2, heartbeatMs: 5_000, historyLimit: 5, skewMs: 0, managerSkewMs: 100 };

/** A swarm whose nodes have just opened their sessions. */
async function opened(seed: number): Promise<World> {
  const world = await World.create(seed, shape);
  world.start();
  await world.run(settledWithinMs, () => world.managers.some(({ leads }) => leads) && allReady(world));
  return world;
}

/** A swarm in which a service runs on every node. */
async function running(seed: number): Promise<World> {
  const world = await opened(seed);
  assert.equal((await create(world, world.managers[0]!, "web")).status, 201);
  await world.run(settledWithinMs, () => runningOn(world, world.nodes).length === replicas);
  assert.equal(runningOn(world, world.nodes).length, replicas);
  await world.run(restMs);
  return world;
}

function create(world: World, manager: SimulatedNode, name: string) {
  const spec = {
    Name: name,
    Mode: { Replicated: { Replicas: replicas } },
    TaskTemplate: { ContainerSpec: { Image: "good" }, RestartPolicy: { Delay: 0 } },
  };
  return settle(world, manager.request("POST", "/services/create", spec));
}

/** The answer, running the world until it comes. */
async function settle<T>(world: World, promise: Promise<T>): Promise<T> {
  let answered = false;
  const done = promise.finally(() => (answered = true));
  await world.run(settledWithinMs, () => answered);
  return done;
}

function allReady(world: World): boolean {
  return world.nodes.every(({ nodeId }) => world.observer.view.get("nodes", nodeId)?.Status.State === "ready");
}

function runningOn(world: World, nodes: readonly SimulatedNode[]) {
  const there = new Set(nodes.map(({ nodeId }) => nodeId));
  return [...world.observer.view.all("tasks")].filter(
    (task) => there.has(task.NodeID) && task.DesiredState === "running" && task.Status.State === "running",
  );
}

function powerOff(world: World, node: SimulatedNode): void {
  for (const other of world.nodes) if (other !== node) world.network.cut(node.name, other.name);
  node.kill();
  node.engine.stop(false);
  world.shared.reconsider();
}

/** Names of the nodes that are ever taken for down from now on. */
function watchDown(world: World): Set<string> {
  const down = new Set<string>();
  world.observer.watch(({ changes }) => {
    for (const { table, id, after } of changes) if (table === "nodes" && after?.Status.State === "down") down.add(id);
  });
  return down;
}

/** Milliseconds until the condition holds; fails after the limit. */
async function timeUntil(world: World, limitMs: number, what: string, condition: () => boolean): Promise<number> {
  const start = world.timeline.now();
  await world.run(limitMs, condition);
  const tookMs = world.timeline.now() - start;
  if (!condition())
    assert.fail(`seed ${world.seed}: not within ${limitMs} ms: ${what}\n${world.trace.last().join("\n")}`);
  return tookMs;
}

async function overSeeds(run: (world: World) => Promise<number>, begin = running): Promise<string> {
  const times: number[] = [];
  for (let seed = 1; seed <= seeds; seed++) times.push(await run(await begin(seed)));
  times.sort((a, b) => a - b);
  return `median ${times[seeds >> 1]} ms, longest ${times.at(-1)} ms`;
}

async function losing(world: World, lose: SimulatedNode[], begin: () => void): Promise<number> {
  const rest = world.nodes.filter((node) => !lose.includes(node));
  const down = watchDown(world);
  begin();
  const tookMs = await timeUntil(world, tasksElsewhereMs, "its tasks run elsewhere", () => {
    return runningOn(world, rest).length === replicas;
  });
  await world.run(settledWithinMs);
  assert.deepEqual([...down].sort(), lose.map(({ nodeId }) => nodeId).sort(), `seed ${world.seed}: who is down`);
  return tookMs;
}

test(`a worker loses power: its tasks run elsewhere within ${tasksElsewhereMs} ms`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const worker = world.node("n4")!;
      return losing(world, [worker], () => powerOff(world, worker));
    }),
  );
});

test(`the leader loses power: its tasks run elsewhere within ${tasksElsewhereMs} ms`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const leader = world.managers.find(({ leads }) => leads)!;
      return losing(world, [leader], () => powerOff(world, leader));
    }),
  );
});

/** How long the managers that are to take over have run when the leader is lost. */
const justStartedMs = 3_000;

/** A process dies and is started anew, and its manager is there again. */
async function restart(world: World, node: SimulatedNode): Promise<void> {
  node.kill();
  node.start();
  await timeUntil(world, settledWithinMs, "it is a manager again", () => node.listener !== undefined);
}

test(`the leader loses power just after the others have started: its tasks run elsewhere within ${tasksElsewhereMs} ms`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const leader = world.managers.find(({ leads }) => leads)!;
      for (const other of world.managers) if (other !== leader) await restart(world, other);
      await world.run(justStartedMs);
      assert.ok(leader.leads, `seed ${world.seed}`);
      await timeUntil(world, settledWithinMs, "all tasks run", () => runningOn(world, world.nodes).length === replicas);
      return losing(world, [leader], () => powerOff(world, leader));
    }),
  );
});

test("the leader loses power just after all managers have started: it alone is taken for dead", async (t) => {
  const awayMs = 60_000;
  const goneWithinMs = 20_000;
  t.diagnostic(
    await overSeeds(async (world) => {
      for (const manager of world.managers) manager.kill();
      await world.run(awayMs);
      const down = watchDown(world);
      for (const manager of world.managers) manager.start();
      await timeUntil(world, settledWithinMs, "one leads", () => world.managers.some(({ leads }) => leads));
      await world.run(justStartedMs);
      const lost = world.managers.find(({ leads }) => leads)!;
      powerOff(world, lost);
      const tookMs = await timeUntil(world, goneWithinMs, "it is down", () => down.size > 0);
      await world.run(settledWithinMs);
      assert.deepEqual([...down], [lost.nodeId], `seed ${world.seed}: who is down`);
      return tookMs;
    }),
  );
});

test(`a manager and a worker are cut off: their tasks run elsewhere within ${tasksElsewhereMs} ms`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const side = [world.node("n3")!, world.node("n5")!];
      return losing(world, side, () => {
        for (const node of world.nodes) {
          for (const { name } of side) if (!side.includes(node)) world.network.cut(node.name, name);
        }
        world.shared.reconsider();
      });
    }),
  );
});

test(`a manager loses power early in its sessions: its agents are with another one within ${agentsElsewhereMs} ms`, async (t) => {
  const lose = async (world: World) => {
    await world.run(world.seed * laterMs);
    const lost = world.managers[world.seed % world.managers.length]!;
    const rest = world.nodes.filter((node) => node !== lost);
    const down = watchDown(world);
    powerOff(world, lost);
    const tookMs = await timeUntil(world, agentsElsewhereMs, "the agents are with other managers", () =>
      rest.every(({ agent }) => ![undefined, addressOf(lost.name)].includes(agent?.report().manager)),
    );
    await world.run(settledWithinMs);
    assert.deepEqual([...down], [lost.nodeId], `seed ${world.seed}: who is down`);
    return tookMs;
  };
  t.diagnostic(await overSeeds(lose, opened));
});

test(`the leader's process is killed: a write is answered within ${firstWriteMs} ms, and no other node is lost`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const leader = world.managers.find(({ leads }) => leads)!;
      const other = world.managers.find((manager) => manager !== leader)!;
      const down = watchDown(world);
      leader.kill();
      const start = world.timeline.now();
      let tries = 0;
      for (;;) {
        const { status } = await create(world, other, `after-${++tries}`);
        if (status === 201) break;
        assert.ok(status >= 500, `${status}`);
        await world.run(triesEveryMs);
      }
      const tookMs = world.timeline.now() - start;
      assert.ok(tookMs <= firstWriteMs, `seed ${world.seed}: ${tookMs} ms`);
      await world.run(settledWithinMs);
      assert.deepEqual([...down], [leader.nodeId]);
      return tookMs;
    }),
  );
});

test(`the leader's process stands still: another one acts within ${standstillMs} ms, and it follows when it goes on`, async (t) => {
  t.diagnostic(
    await overSeeds(async (world) => {
      const leader = world.managers.find(({ leads }) => leads)!;
      const other = world.managers.find((manager) => manager !== leader)!;
      const rest = world.nodes.filter((node) => node !== leader);
      const goOn = leader.hang()!;
      const start = world.timeline.now();
      await timeUntil(world, standstillMs, "another one leads", () => rest.some(({ leads }) => leads));
      const tookMs = world.timeline.now() - start;
      assert.equal((await create(world, other, "after")).status, 201);
      await timeUntil(world, standstillMs, "its tasks run elsewhere, and new ones", () => {
        return runningOn(world, rest).length === 2 * replicas;
      });
      goOn();
      await timeUntil(world, settledWithinMs, "it is back", () => allReady(world));
      await world.run(settledWithinMs);
      assert.equal(world.managers.filter(({ leads }) => leads).length, 1);
      assert.equal(leader.leads, false);
      return tookMs;
    }),
  );
});

test("every manager is away for a while: no node that lives is taken for dead, and one that does not is soon", async (t) => {
  const awayMs = 60_000;
  const goneWithinMs = 20_000;
  t.diagnostic(
    await overSeeds(async (world) => {
      const dead = world.node("n5")!;
      for (const manager of world.managers) manager.kill();
      await world.run(awayMs / 2);
      powerOff(world, dead);
      await world.run(awayMs / 2);
      const down = watchDown(world);
      for (const manager of world.managers) manager.start();
      const tookMs = await timeUntil(world, goneWithinMs, "the dead node is known", () => down.size > 0);
      await world.run(settledWithinMs);
      assert.deepEqual([...down], [dead.nodeId], `seed ${world.seed}`);
      return tookMs;
    }),
  );
});
