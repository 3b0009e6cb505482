/**
 * How long the loss of a machine is felt, in virtual time, over many seeds: the promised numbers, and that only what
 * is lost is taken for lost.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { SimulatedNode } from "./node.ts";
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
const triesEveryMs = 20;

const shape = { managers: 3, workers: 2, heartbeatMs: 5_000, historyLimit: 5, skewMs: 0, managerSkewMs: 100 };

/** A swarm in which a service runs on every node. */
async function running(seed: number): Promise<World> {
  const world = await World.create(seed, shape);
  world.start();
  await world.run(settledWithinMs, () => world.managers.some(({ leads }) => leads) && allReady(world));
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

async function overSeeds(run: (world: World) => Promise<number>): Promise<string> {
  const times: number[] = [];
  for (let seed = 1; seed <= seeds; seed++) times.push(await run(await running(seed)));
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
