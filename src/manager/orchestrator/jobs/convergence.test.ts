/**
 * Properties: whatever happens to a job and its nodes, no more of its tasks are wanted (and without outages: run) than
 * may be at a time, no place that has completed is run again in the same iteration, and when it stops happening each
 * place has completed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isActiveDesire, isTerminal } from "../../../model/state.ts";
import type { ServiceSpec, Task } from "../../../model/types.ts";
import type { Commit } from "../../../store/store.ts";
import { type Fate, second, World } from "../harness.ts";

type Event =
  | { readonly kind: "resize"; readonly completions: number; readonly concurrent: number }
  | { readonly kind: "image"; readonly image: string }
  | { readonly kind: "end"; readonly pick: number; readonly as: "failed" | "complete" }
  | { readonly kind: "drain" | "pause" | "activate" | "down" | "up"; readonly node: number }
  | { readonly kind: "leader" };

const nodes = 3;

const fates: Record<string, Fate> = {
  quick: { endsAfterMs: 100, endsAs: "complete" },
  long: { endsAfterMs: 30_000, endsAs: "complete", stopMs: 6_000 },
  failing: { endsAfterMs: 300, endsAs: "failed" },
  missing: { rejected: true, prepareMs: 300 },
};

const node = fc.integer({ min: 1, max: nodes });
const resize = fc.record({
  kind: fc.constant("resize" as const),
  completions: fc.integer({ min: 0, max: 7 }),
  concurrent: fc.integer({ min: 0, max: 4 }),
});
const commonEvents = [
  resize,
  fc.record({ kind: fc.constant("image" as const), image: fc.constantFrom(...Object.keys(fates)) }),
  fc.record({ kind: fc.constant("end" as const), pick: fc.nat(), as: fc.constantFrom("failed", "complete") }),
  fc.record({ kind: fc.constantFrom("drain" as const, "pause" as const, "activate" as const), node }),
  fc.constant({ kind: "leader" as const }),
];
/** From "in the same instant" to "all has settled". */
const waitMs = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 400 }), fc.integer({ min: 400, max: 20_000 }));
const outages = fc.record({ kind: fc.constantFrom("down" as const, "up" as const), node });

const restart = fc.record({
  Condition: fc.constantFrom("any" as const, "on-failure" as const, "none" as const),
  Delay: fc.constantFrom(0, second, 5 * second),
  MaxAttempts: fc.constantFrom(0, 2),
});

for (const isGlobal of [false, true]) {
  for (const withOutages of [false, true]) {
    const what = `a ${isGlobal ? "global" : "replicated"} job${withOutages ? ", nodes come and go" : ""}`;
    test(`${what}: within its concurrency, nothing twice, and it completes`, async () => {
      const event: fc.Arbitrary<Event> = fc.oneof(...commonEvents, ...(withOutages ? [outages] : [])) as never;
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(event, waitMs), { maxLength: 20 }),
          resize,
          restart,
          async (events, size, RestartPolicy) => {
            const world = await World.create({ nodes, history: 2 });
            // While a node is down, its tasks are replaced; when it is back, both run until it has heard of it.
            if (withOutages) world.overlap = Infinity;
            world.fate = (_, { TaskTemplate }) => fates[TaskTemplate?.ContainerSpec?.Image ?? ""] ?? {};
            const check = new Check(world, withOutages);
            await world.createService("job", {
              Mode: isGlobal ? { GlobalJob: {} } : modeOf(size),
              TaskTemplate: { ContainerSpec: { Image: "long" }, RestartPolicy },
            });
            for (const [happening, ms] of events) {
              await happen(world, happening, isGlobal);
              await world.run(ms);
            }
            await calmDown(world, isGlobal);
            check.assert();
          },
        ),
        { numRuns: 60, seed: 20_260_202 },
      );
    });
  }
}

function modeOf({ completions, concurrent }: { completions: number; concurrent: number }): ServiceSpec["Mode"] {
  return { ReplicatedJob: { TotalCompletions: completions, MaxConcurrent: concurrent } };
}

/** What must hold after every commit. */
class Check {
  readonly #world: World;
  readonly #withOutages: boolean;
  #broken: string | undefined;

  constructor(world: World, withOutages: boolean) {
    this.#world = world;
    this.#withOutages = withOutages;
    world.store.watch((commit) => {
      this.#broken ??= this.#look(commit);
    });
  }

  assert(): void {
    if (this.#broken) assert.fail(this.#broken);
  }

  #look(commit: Commit): string | undefined {
    const { store } = this.#world;
    const service = store.view.service("job");
    if (!service) return undefined;
    const { Mode } = store.view.specOf(service).Spec;
    const most = Mode?.ReplicatedJob?.MaxConcurrent ?? nodes;
    const present = presentTasks(this.#world);
    const wanted = present.filter(
      ({ DesiredState, Status }) => isActiveDesire(DesiredState) && !isTerminal(Status.State),
    );
    if (wanted.length > most) return `${wanted.length} tasks are wanted, not ${most}\n${this.#world.describe()}`;
    const running = present.filter(({ Status }) => Status.State === "running");
    if (!this.#withOutages && running.length > most) {
      return `${running.length} tasks run, not ${most}\n${this.#world.describe()}`;
    }
    for (const change of commit.changes) {
      if (change.table !== "tasks" || change.before || !change.after) continue;
      const { after } = change;
      const place = placeOf(after, Mode);
      const done = present.find((task) => placeOf(task, Mode) === place && task.Status.State === "complete");
      if (done && done.Version.Index < after.Version.Index) return `${place} is run again\n${this.#world.describe()}`;
    }
    return undefined;
  }
}

function placeOf(task: Task, mode: ServiceSpec["Mode"]): number | string {
  return mode?.GlobalJob ? task.NodeID : task.Slot;
}

/** The tasks of the iteration that runs. */
function presentTasks(world: World): Task[] {
  const { JobStatus } = world.service("job");
  return world.tasks("job").filter((task) => task.JobIteration?.Index === JobStatus?.JobIteration.Index);
}

async function happen(world: World, event: Event, isGlobal: boolean): Promise<void> {
  switch (event.kind) {
    case "resize":
      if (!isGlobal) await world.updateService("job", (spec) => ({ ...spec, Mode: modeOf(event) }));
      break;
    case "image":
      await world.setImage("job", event.image);
      break;
    case "end": {
      const candidates = presentTasks(world).filter(({ Status }) => Status.State === "running");
      const task: Task | undefined = candidates[event.pick % candidates.length];
      if (task) await world.report(task.ID, event.as);
      break;
    }
    case "drain":
    case "pause":
    case "activate": {
      const Availability = event.kind === "activate" ? "active" : event.kind;
      await world.changeNode(`node-${event.node}`, { Availability });
      break;
    }
    case "down":
    case "up":
      await world.changeNode(`node-${event.node}`, { State: event.kind === "down" ? "down" : "ready" });
      break;
    case "leader":
      await world.changeLeader();
      break;
  }
}

/** All faults end: the job runs once more, each place completes, and nothing is left to do. */
async function calmDown(world: World, isGlobal: boolean): Promise<void> {
  for (let number = 1; number <= nodes; number++) {
    await world.changeNode(`node-${number}`, { State: "ready", Availability: "active" });
  }
  await world.updateService("job", (spec) => ({
    ...spec,
    Mode: isGlobal ? { GlobalJob: {} } : modeOf({ completions: 5, concurrent: 2 }),
    TaskTemplate: { ContainerSpec: { Image: "quick" }, RestartPolicy: { Delay: second } },
  }));
  const completed = () => presentTasks(world).filter(({ Status }) => Status.State === "complete");
  await world.until(() => completed().length === (isGlobal ? nodes : 5), 300_000);
  await world.run(60_000); // what is left of stopping tasks
  const stable = world.store.view.revision;
  await world.run(300_000);
  if (world.store.view.revision !== stable) throw new Error(`it does not come to rest\n${world.describe()}`);
  assert.equal(presentTasks(world).length, isGlobal ? nodes : 5, "no task but those that completed");
}
