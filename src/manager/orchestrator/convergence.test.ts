/**
 * Properties: whatever happens to a service and its nodes, at no moment do more tasks of a slot run than the update
 * order allows (the harness checks that after every commit), and when it stops happening the service converges.
 */
import { test } from "node:test";
import fc from "fast-check";
import type { ServiceSpec, Task } from "../../model/types.ts";
import { type Fate, second, World } from "./harness.ts";

type Event =
  | { readonly kind: "scale"; readonly replicas: number }
  | { readonly kind: "image"; readonly image: string }
  | { readonly kind: "end"; readonly pick: number; readonly as: "failed" | "complete" }
  | { readonly kind: "drain" | "activate" | "down" | "up"; readonly node: number }
  | { readonly kind: "leader" };

const nodes = 3;
const images = ["good", "slow", "unhealthy", "missing", "crashing"];

const fates: Record<string, Fate> = {
  good: {},
  slow: { prepareMs: 4_000, startMs: 2_000, stopMs: 6_000 },
  unhealthy: { endsAfterMs: 3_000 },
  missing: { rejected: true, prepareMs: 300 },
  crashing: { endsAfterMs: 50, endsAs: "complete" },
};

const node = fc.integer({ min: 1, max: nodes });
const commonEvents = [
  fc.record({ kind: fc.constant("scale" as const), replicas: fc.integer({ min: 0, max: 6 }) }),
  fc.record({ kind: fc.constant("image" as const), image: fc.constantFrom(...images) }),
  fc.record({ kind: fc.constant("end" as const), pick: fc.nat(), as: fc.constantFrom("failed", "complete") }),
  fc.record({ kind: fc.constantFrom("drain" as const, "activate" as const), node }),
  fc.constant({ kind: "leader" as const }),
];
/** From "in the same instant" to "all has settled". */
const waitMs = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 400 }), fc.integer({ min: 400, max: 20_000 }));
const outages = fc.record({ kind: fc.constantFrom("down" as const, "up" as const), node });

const config = fc.record({
  Parallelism: fc.integer({ min: 0, max: 3 }),
  Delay: fc.constantFrom(0, 2 * second),
  FailureAction: fc.constantFrom("pause" as const, "continue" as const, "rollback" as const),
  MaxFailureRatio: fc.constantFrom(0, 0.4),
  Monitor: fc.constantFrom(second, 5 * second),
});
const restart = fc.record({
  Condition: fc.constantFrom("any" as const, "on-failure" as const),
  Delay: fc.constantFrom(0, second, 5 * second),
});

for (const order of ["stop-first", "start-first"] as const) {
  for (const withOutages of [false, true]) {
    test(`${order}${withOutages ? ", nodes come and go" : ""}: slots are not shared, and it converges`, async () => {
      const event: fc.Arbitrary<Event> = fc.oneof(...commonEvents, ...(withOutages ? [outages] : [])) as never;
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(event, waitMs), { maxLength: 20 }),
          config,
          restart,
          fc.boolean(),
          async (events, update, RestartPolicy, isGlobal) => {
            const world = await World.create({ nodes, history: 2 });
            world.rivals = order === "start-first" ? 2 : 1;
            // While a node is down, its tasks are replaced; when it is back, both run until it has heard of it.
            world.overlap = withOutages ? Infinity : world.rivals;
            world.fate = (_, { TaskTemplate }) => fates[TaskTemplate?.ContainerSpec?.Image ?? ""] ?? {};
            await world.createService("web", {
              Mode: isGlobal ? { Global: {} } : { Replicated: { Replicas: 3 } },
              TaskTemplate: { ContainerSpec: { Image: "good" }, RestartPolicy },
              UpdateConfig: { ...update, Order: order },
              RollbackConfig: { Parallelism: 1, Order: order },
            });
            for (const [happening, ms] of events) {
              await happen(world, happening, isGlobal);
              await world.run(ms);
            }
            await calmDown(world, isGlobal);
          },
        ),
        { numRuns: 60, seed: 20_260_101 },
      );
    });
  }
}

async function happen(world: World, event: Event, isGlobal: boolean): Promise<void> {
  switch (event.kind) {
    case "scale":
      if (!isGlobal) await world.scale("web", event.replicas);
      break;
    case "image":
      await world.setImage("web", event.image);
      break;
    case "end": {
      const candidates = world.running("web");
      const task: Task | undefined = candidates[event.pick % candidates.length];
      if (task) await world.report(task.ID, event.as);
      break;
    }
    case "drain":
    case "activate":
      await world.changeNode(`node-${event.node}`, { Availability: event.kind === "drain" ? "drain" : "active" });
      break;
    case "down":
    case "up":
      await world.changeNode(`node-${event.node}`, { State: event.kind === "down" ? "down" : "ready" });
      break;
    case "leader":
      await world.changeLeader();
      break;
  }
}

/** All faults end: every slot runs the current spec, nothing else is wanted, and the update is through. */
async function calmDown(world: World, isGlobal: boolean): Promise<void> {
  for (let number = 1; number <= nodes; number++) {
    await world.changeNode(`node-${number}`, { State: "ready", Availability: "active" });
  }
  const healthy = (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: "good" }, ForceUpdate: 1 },
  });
  await world.updateService("web", healthy);
  await world.until(() => {
    const { Spec } = world.store.view.specOf(world.service("web"));
    const count = isGlobal ? nodes : (Spec.Mode?.Replicated?.Replicas ?? 1);
    const state = world.service("web").UpdateStatus?.State;
    return world.hasConverged("web", count) && (state === undefined || state === "completed");
  }, 300_000);
  await world.run(60_000); // what is left of stopping tasks
  const stable = world.store.view.revision;
  await world.run(300_000);
  if (world.store.view.revision !== stable) throw new Error(`it does not come to rest\n${world.describe()}`);
}
