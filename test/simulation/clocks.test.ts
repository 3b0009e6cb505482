/**
 * Managers whose clocks are up to two hours apart, while the lead goes from one to the other: nothing that waits is
 * released too early by it, and nothing waits for an hour.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServiceSpec, Task } from "../../src/model/types.ts";
import { World } from "./world.ts";

const seeds = 12;
const second = 1e9;
const settledWithinMs = 60_000;
const leadMovesEveryMs = 40_000;

const shape = {
  managers: 3,
  workers: 2,
  heartbeatMs: 5_000,
  historyLimit: 5,
  skewMs: 0,
  managerSkewMs: 3_600_000,
};

interface Swarm {
  readonly world: World;
  readonly tasks: () => Task[];
  /** Milliseconds until it holds, the lead moving all the while; fails after the limit, or where a checker does. */
  readonly until: (what: string, limitMs: number, holds: () => boolean) => Promise<number>;
  readonly request: (method: string, path: string, body?: unknown) => Promise<{ readonly ID: string }>;
}

async function swarm(seed: number, spec: ServiceSpec): Promise<Swarm> {
  const world = await World.create(seed, shape);
  world.start();
  let moving = true;
  const moveLead = () => {
    if (moving) world.shared.depose();
    world.timeline.after(leadMovesEveryMs, moveLead);
  };
  const request = async (method: string, path: string, body?: unknown) => {
    let answered = false;
    const answer = world.managers[0]!.request(method, path, body).finally(() => (answered = true));
    await world.run(settledWithinMs, () => answered);
    const { status, body: said } = await answer;
    assert.ok(status < 300, `seed ${seed}: ${status} ${JSON.stringify(said)}`);
    return said;
  };
  const until: Swarm["until"] = async (what, limitMs, holds) => {
    const start = world.timeline.now();
    await world.run(limitMs, holds);
    if (!holds()) assert.fail(`seed ${seed}: not within ${limitMs} ms: ${what}\n${world.trace.last().join("\n")}`);
    return world.timeline.now() - start;
  };
  const tasks = () => [...world.observer.view.all("tasks")];
  await until("there is a leader", settledWithinMs, () => world.managers.some(({ leads }) => leads));
  moving = false;
  await request("POST", "/services/create", { Name: "web", ...spec });
  const replicas = spec.Mode?.Replicated?.Replicas ?? 1;
  await until("it runs", settledWithinMs, () => runningOf(tasks()).length === replicas);
  moving = true;
  moveLead();
  return { world, tasks, until, request };
}

function runningOf(tasks: readonly Task[]): Task[] {
  return tasks.filter(({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running");
}

test("a stop-first update waits for tasks that take long to stop, whatever the clocks say", async () => {
  const spec = (image: string): ServiceSpec => ({
    Mode: { Replicated: { Replicas: 3 } },
    TaskTemplate: { ContainerSpec: { Image: image, StopGracePeriod: 900 * second } },
    UpdateConfig: { Parallelism: 0, Order: "stop-first" },
  });
  for (let seed = 1; seed <= seeds; seed++) {
    const { world, tasks, until, request } = await swarm(seed, spec("stubborn"));
    const { ID, Version } = [...world.observer.view.all("services")][0]!;
    await request("POST", `/services/${ID}/update?version=${Version.Index}`, { Name: "web", ...spec("good") });
    await until("the update is through", 1_000_000, () => {
      return runningOf(tasks()).filter(({ SpecVersion }) => SpecVersion.Index === 2).length === 3;
    });
  }
});

test("a restart is delayed for no less than it is to be, and for no hour", async () => {
  const delayMs = 30_000;
  for (let seed = 1; seed <= seeds; seed++) {
    const { world, tasks, until } = await swarm(seed, {
      Mode: { Replicated: { Replicas: 1 } },
      TaskTemplate: { ContainerSpec: { Image: "good" }, RestartPolicy: { Delay: (delayMs / 1000) * second } },
    });
    for (let round = 1; round <= 4; round++) {
      const [task] = runningOf(tasks());
      const engine = world.nodes.find(({ nodeId }) => nodeId === task!.NodeID)!.engine;
      engine.die([...engine.containers].find(({ taskId }) => taskId === task!.ID)!, 1);
      const tookMs = await until("its successor runs", 3 * delayMs, () => {
        return runningOf(tasks()).some(({ ID }) => ID !== task!.ID);
      });
      assert.ok(tookMs >= delayMs, `seed ${seed}: restarted after ${tookMs} ms`);
    }
  }
});

test("an update's pauses between its slots are kept, and none lasts for an hour", async () => {
  const delayMs = 50_000;
  const spec = (image: string): ServiceSpec => ({
    Mode: { Replicated: { Replicas: 4 } },
    TaskTemplate: { ContainerSpec: { Image: image } },
    UpdateConfig: { Parallelism: 1, Delay: (delayMs / 1000) * second, FailureAction: "continue" },
  });
  for (let seed = 1; seed <= seeds; seed++) {
    const { world, tasks, until, request } = await swarm(seed, spec("good"));
    const { ID, Version } = [...world.observer.view.all("services")][0]!;
    await request("POST", `/services/${ID}/update?version=${Version.Index}`, { Name: "web", ...spec("checked") });
    const updated = () => runningOf(tasks()).filter(({ SpecVersion }) => SpecVersion.Index === 2).length;
    for (let slot = 1; slot <= 4; slot++) {
      const tookMs = await until(`${slot} slots are updated`, 3 * delayMs, () => updated() >= slot);
      assert.equal(updated(), slot);
      if (slot > 1) assert.ok(tookMs >= delayMs, `seed ${seed}: slot ${slot} after ${tookMs} ms`);
    }
  }
});
