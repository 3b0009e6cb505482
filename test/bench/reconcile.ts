/**
 * `npm run bench -- reconcile`: what a change of one service costs the leader's control loops when there are ten
 * services, and when there are a thousand. Counted is work, not time, so the figures are the same on every machine: keys
 * that a loop planned, and rows of the store that the loops read for it. Agents are played; the loops, the allocator
 * and the scheduler are the real ones, on a clock of their own.
 */
import { strict as assert } from "node:assert";
import { FakeClock } from "../../src/lib/fake-clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { allocator } from "../../src/manager/allocator/allocator.ts";
import { deletedNodesPlanner } from "../../src/manager/orchestrator/deleted-nodes.ts";
import { globalPlanner } from "../../src/manager/orchestrator/global.ts";
import { jobsPlanner } from "../../src/manager/orchestrator/jobs/jobs.ts";
import { reaperPlanner } from "../../src/manager/orchestrator/reaper.ts";
import { replicatedPlanner } from "../../src/manager/orchestrator/replicated.ts";
import { drive, type Planner } from "../../src/manager/planner.ts";
import { constraintEnforcer } from "../../src/manager/scheduler/enforcer.ts";
import { Scheduler } from "../../src/manager/scheduler/scheduler.ts";
import { rank, type TaskState } from "../../src/model/state.ts";
import { type ServiceSpec, specKey, type Task } from "../../src/model/types.ts";
import { MemoryBackend } from "../../src/store/memory.ts";
import { Store, type Transaction, type View } from "../../src/store/store.ts";
import { printTable, type Row } from "./figures.ts";

const few = 10;
const many = 1_000;
const nodes = 20;
const replicas = 3;
const second = 1e9;
/** A service comes to rest within it, an update's monitoring period included; well within a loop's resync. */
const settleMs = 20_000;

interface Work {
  plans: number;
  rows: number;
}

const changes: Readonly<Record<string, (spec: ServiceSpec) => ServiceSpec>> = {
  "its labels": (spec) => ({ ...spec, Labels: { release: "2" } }),
  "one replica more": (spec) => ({ ...spec, Mode: { Replicated: { Replicas: replicas + 1 } } }),
  "its image, a rolling update": (spec) => ({
    ...spec,
    TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: "two" } },
  }),
};

export async function run(): Promise<boolean> {
  const [withFew, withMany] = [await measure(few), await measure(many)];
  const rows: Row[] = Object.keys(changes).flatMap((what) => {
    const [less, more] = [withFew[what]!, withMany[what]!];
    return [
      { what: `${what}: keys planned`, unit: "", shoal: more.plans, other: less.plans, ratioTarget: 1 },
      { what: `${what}: rows read`, unit: "", shoal: more.rows, other: less.rows, ratioTarget: 1 },
    ];
  });
  return printTable(`Changing one service: of ${many} (shoal), of ${few} (other), each of ${replicas} tasks`, rows);
}

/** What each of the changes costs where there are so many services. */
async function measure(services: number): Promise<Record<string, Work>> {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) => fill(tx, services));
  playAgents(store);
  const work: Work = { plans: 0, rows: 0 };
  const begin = () => {
    const scheduler = new Scheduler(store);
    const planners = [
      replicatedPlanner,
      globalPlanner,
      jobsPlanner,
      allocator,
      scheduler,
      constraintEnforcer,
      deletedNodesPlanner,
      reaperPlanner,
    ];
    const driven = planners.map((planner) =>
      drive(counted(planner, work), { store, clock, random, log: silentLogger }),
    );
    for (const { loop } of driven) loop.start();
    return async () => {
      for (const { loop, unwatch } of driven) {
        unwatch();
        await loop.stop();
      }
      scheduler.close();
    };
  };
  const result: Record<string, Work> = {};
  for (const [what, change] of Object.entries(changes)) {
    // Begun anew for each: so the loops' resync, which looks at everything once a minute, does not fall into it.
    const end = begin();
    await clock.advance(settleMs);
    assert.ok(allRun(store.view), "everything runs before the change");
    Object.assign(work, { plans: 0, rows: 0 });
    await store.update((tx) => respecify(tx, "service-5", change));
    await clock.advance(settleMs);
    assert.ok(allRun(store.view), "everything runs after the change");
    const state = store.view.service("service-5")?.UpdateStatus?.State;
    assert.ok(state === undefined || state === "completed", "the update is completed");
    result[what] = { ...work };
    await end();
  }
  await store.close();
  return result;
}

function fill(tx: Transaction, services: number): void {
  tx.create("cluster", {
    ID: "cluster",
    Spec: { Name: "default", Orchestration: { TaskHistoryRetentionLimit: 5 } },
    RootCA: { Certificate: "", Key: "", JoinTokens: { Worker: "", Manager: "" } },
    DefaultAddrPool: [],
    SubnetSize: 24,
    DataPathPort: 4789,
    RemovedNodes: {},
  });
  for (let number = 1; number <= nodes; number++) {
    tx.create("nodes", {
      ID: `node-${number}`,
      Spec: { Role: "worker", Availability: "active", Labels: {} },
      Role: "worker",
      Status: { State: "ready", Addr: "10.0.0.1" },
      Description: { Hostname: `node-${number}` },
    });
  }
  for (let number = 1; number <= services; number++) {
    const id = `service-${number}`;
    const Spec: ServiceSpec = {
      Name: id,
      Mode: { Replicated: { Replicas: replicas } },
      TaskTemplate: { ContainerSpec: { Image: "one" } },
      UpdateConfig: { Parallelism: 1, Monitor: second },
    };
    tx.create("specs", { ID: specKey(id, 1), ServiceID: id, Revision: 1, Spec });
    tx.create("services", { ID: id, Name: id, SpecVersion: { Index: 1 } });
  }
}

function respecify(tx: Transaction, id: string, change: (spec: ServiceSpec) => ServiceSpec): void {
  const { UpdateStatus: _, ...service } = tx.service(id)!;
  const Revision = service.SpecVersion.Index + 1;
  const Spec = change(tx.specOf(service).Spec);
  tx.create("specs", { ID: specKey(id, Revision), ServiceID: id, Revision, Spec });
  tx.put("services", { ...service, SpecVersion: { Index: Revision }, PreviousSpecVersion: service.SpecVersion });
}

/** Every task gets at once where its manager wants it. */
function playAgents(store: Store): void {
  store.watch(({ changes }) => {
    for (const { table, after } of changes) {
      if (table !== "tasks" || !after) continue;
      const next = nextState(after);
      if (next === undefined) continue;
      void store.update((tx) => {
        const task = tx.get("tasks", after.ID);
        if (!task || rank(task.Status.State) >= rank(next)) return;
        tx.put("tasks", { ...task, Status: { Timestamp: tx.now, State: next, Message: next } });
      });
    }
  });
}

function nextState({ DesiredState, Status: { State } }: Task): TaskState | undefined {
  if (rank(State) < rank("assigned") || rank(State) > rank("running")) return undefined;
  if (rank(DesiredState) > rank("running")) return "shutdown";
  const steps: readonly TaskState[] = ["assigned", "accepted", "preparing", "ready", "starting", "running"];
  const next = steps[steps.indexOf(State) + 1];
  return next && (rank(next) <= rank("ready") || DesiredState === "running") ? next : undefined;
}

function allRun(view: View): boolean {
  for (const service of view.all("services")) {
    const wanted = view.specOf(service).Spec.Mode?.Replicated?.Replicas;
    const running = [...view.tasksOfService(service.ID)].filter(
      ({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running",
    );
    if (running.length !== wanted) return false;
  }
  return true;
}

/** The same planner, its work counted. */
function counted(planner: Planner, work: Work): Planner {
  return {
    name: planner.name,
    ...(planner.alone !== undefined && { alone: planner.alone }),
    keys: (view) => planner.keys(view),
    wakes: (change, view) => planner.wakes(change, countedView(view, work)),
    plan(view, key, context) {
      work.plans++;
      return planner.plan(countedView(view, work), key, context);
    },
  };
}

function countedView(view: View, work: Work): View {
  return new Proxy(view, {
    get(target, name, proxy) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      switch (name) {
        case "get":
          return (...args: unknown[]) => {
            work.rows++;
            return value.apply(target, args);
          };
        case "all":
        case "find":
          return (...args: unknown[]) => countedRows(value.apply(target, args), work);
        case "heardAt":
        case "count":
          return value.bind(target);
        default:
          return value.bind(proxy); // made of the others
      }
    },
  });
}

function* countedRows<T>(rows: Iterable<T>, work: Work): Iterable<T> {
  for (const row of rows) {
    work.rows++;
    yield row;
  }
}
