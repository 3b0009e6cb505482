/**
 * The scheduler's benchmark: swarmkit's own workload W and the more realistic X, through the real store (in memory,
 * as swarmkit's) and the real loop, each checked for a feasible and balanced result.
 *
 * The timed part starts inside the transaction that creates the nodes and tasks, after the last create: its commit,
 * the index following it, every decision, the writes of every assignment, a second subscriber that counts them, and
 * the stop. Two differences from swarmkit's runs, both said in the output: no 50 ms debounce, because ours has none;
 * and W's tasks have service "" and one spec revision, where swarmkit's have no revision at all (which sends them one
 * by one through its slower path; X is the fair comparison of grouped work).
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { drive } from "../../src/manager/planner.ts";
import { Scheduler } from "../../src/manager/scheduler/scheduler.ts";
import type { NodeDescription, ServiceSpec } from "../../src/model/types.ts";
import { specKey } from "../../src/model/types.ts";
import { MemoryBackend } from "../../src/store/memory.ts";
import { Store, type Transaction, type View } from "../../src/store/store.ts";

interface Case {
  readonly name: string;
  readonly nodes: number;
  readonly tasks: number;
  fill(tx: Transaction): void;
  check(view: View): void;
  /** Seconds that swarmkit needed on this kind of machine, best and worst of its runs. */
  readonly swarmkit: readonly [number, number];
  /** At least so many times faster than swarmkit's best; none: shown only. */
  readonly target?: number;
}

/** Swarmkit's base workload; with `net`, only every third node has the plugin that the tasks need. */
function workloadW(nodes: number, tasks: number, net: boolean) {
  return {
    nodes,
    tasks,
    fill(tx: Transaction): void {
      if (net) tx.create("networks", { ID: "net", Name: "net", Labels: {}, Driver: "network", Predefined: false });
      createSpec(tx, "", { TaskTemplate: net ? { Networks: [{ Target: "net" }] } : {} });
      for (let i = 0; i < nodes; i++) {
        const plugins = i % 3 === 0 ? [{ Type: "Network", Name: "network" }] : [];
        createNode(tx, `node-${i}-${systemRandom.float()}`, {}, { Engine: { Plugins: plugins } });
      }
      for (let i = 0; i < tasks; i++) createTask(tx, `task${i}`, "", 0);
    },
    check(view: View): void {
      const counts = new Map<string, number>();
      for (const node of view.all("nodes")) {
        if (!net || (node.Description?.Engine?.Plugins ?? []).length > 0) counts.set(node.ID, 0);
      }
      for (const task of view.all("tasks")) {
        const count = counts.get(task.NodeID);
        assert(count !== undefined, `${task.ID} is on ${task.NodeID || "no node"}, which is not feasible`);
        counts.set(task.NodeID, count + 1);
      }
      assertBalanced("nodes", [...counts.values()]);
    },
  };
}

interface XOptions {
  readonly res: boolean;
  readonly con: boolean;
  readonly spread: boolean;
}

/** Services with several replicas, reservations, a constraint and a spread over ten zones. */
function workloadX(nodes: number, services: number, replicas: number, { res, con, spread }: XOptions) {
  const reservations = res ? { NanoCPUs: 100_000_000, MemoryBytes: 64 * 2 ** 20 } : undefined;
  return {
    nodes,
    tasks: services * replicas,
    fill(tx: Transaction): void {
      const spec: ServiceSpec = {
        TaskTemplate: {
          Resources: { Reservations: reservations },
          Placement: {
            Constraints: con ? ["node.labels.disk==ssd"] : [],
            Preferences: spread ? [{ Spread: { SpreadDescriptor: "node.labels.zone" } }] : [],
          },
        },
      };
      for (let i = 0; i < services; i++) createSpec(tx, `service${i}`, spec);
      for (let i = 0; i < nodes; i++) {
        const labels = { zone: `z${i % 10}`, disk: i % 2 === 0 ? "ssd" : "hdd" };
        createNode(tx, `node${i}`, labels, { Resources: { NanoCPUs: 64e9, MemoryBytes: 256 * 2 ** 30 } });
      }
      for (let i = 0; i < services * replicas; i++) {
        createTask(tx, `task${i}`, `service${i % services}`, Math.floor(i / services) + 1);
      }
    },
    check(view: View): void {
      const perNode = new Map<string, number>();
      const perService = new Map<string, Map<string, number>>();
      const zones = new Set<string>();
      for (const node of view.all("nodes")) {
        if (con && node.Spec.Labels?.disk !== "ssd") continue;
        perNode.set(node.ID, 0);
        zones.add(node.Spec.Labels?.zone ?? "");
      }
      for (const task of view.all("tasks")) {
        const count = perNode.get(task.NodeID);
        assert(count !== undefined, `${task.ID} is on ${task.NodeID || "no node"}, which is not feasible`);
        perNode.set(task.NodeID, count + 1);
        const branch = spread ? (view.get("nodes", task.NodeID)?.Spec.Labels?.zone ?? "") : task.NodeID;
        const branches = perService.get(task.ServiceID) ?? new Map<string, number>();
        perService.set(task.ServiceID, branches.set(branch, (branches.get(branch) ?? 0) + 1));
      }
      const most = Math.max(...perNode.values());
      assert(
        !res || (most * 0.1 <= 64 && most * 64 <= 256 * 1024),
        `a node has ${most} tasks: more than its resources`,
      );
      for (const [service, branches] of perService) {
        const all = spread ? [...zones] : [...perNode.keys()];
        assertBalanced(
          service,
          all.map((branch) => branches.get(branch) ?? 0),
        );
      }
      // Services rank before totals, and zones before both: all that must hold of totals is that no node is passed over.
      const mean = (services * replicas) / perNode.size;
      assert(most <= mean + 2 && Math.min(...perNode.values()) >= mean - 2, "the totals of the nodes are not balanced");
    },
  };
}

const cases: readonly Case[] = [
  { name: "W 1k nodes, 1k tasks", ...workloadW(1000, 1000, false), swarmkit: [0.094, 0.206] },
  { name: "W 1k nodes, 10k tasks", ...workloadW(1000, 10_000, false), swarmkit: [1.24, 2.06] },
  { name: "W 1k nodes, 100k tasks", ...workloadW(1000, 100_000, false), swarmkit: [14.7, 17.7], target: 10 },
  { name: "W 100k nodes, 1k tasks", ...workloadW(100_000, 1000, false), swarmkit: [23.8, 26.7], target: 10 },
  { name: "W 1k nodes, 100k tasks, plugin", ...workloadW(1000, 100_000, true), swarmkit: [14.9, 21.6] },
  { name: "W 5k nodes, 100k tasks, plugin", ...workloadW(5000, 100_000, true), swarmkit: [61.7, 64.7] },
  { name: "X 1k nodes, 1 x 10k", ...x(1000, 1, 10_000, "none"), swarmkit: [0.399, 0.437] },
  { name: "X 1k nodes, 1k x 10, res", ...x(1000, 1000, 10, "res"), swarmkit: [0.463, 0.507] },
  { name: "X 1k nodes, 1k x 10, res+con+spread", ...x(1000, 1000, 10, "all"), swarmkit: [0.62, 0.681], target: 4 },
  { name: "X 5k nodes, 1k x 30, res+con+spread", ...x(5000, 1000, 30, "all"), swarmkit: [2.67, 2.86] },
  { name: "X 5k nodes, 1k x 100, res", ...x(5000, 1000, 100, "res"), swarmkit: [6.99, 7.03] },
  { name: "X 100k nodes, 1 x 100k", ...x(100_000, 1, 100_000, "none"), swarmkit: [6.1, 7.5] },
];

function x(nodes: number, services: number, replicas: number, kind: "none" | "res" | "all") {
  const options = { res: kind !== "none", con: kind === "all", spread: kind === "all" };
  return workloadX(nodes, services, replicas, options);
}

const memoryLimitMiB = 1024;
const pastText = "2020-01-01T00:00:00.000Z";

function createSpec(tx: Transaction, serviceId: string, spec: ServiceSpec): void {
  tx.create("specs", { ID: specKey(serviceId, 1), ServiceID: serviceId, Revision: 1, Spec: spec });
}

function createNode(tx: Transaction, id: string, labels: Record<string, string>, description: NodeDescription): void {
  tx.create("nodes", {
    ID: id,
    Spec: { Labels: labels, Availability: "active", Role: "worker" },
    Description: description,
    Status: { State: "ready" },
    Role: "worker",
  });
}

function createTask(tx: Transaction, id: string, serviceId: string, slot: number): void {
  tx.create("tasks", {
    ID: id,
    ServiceID: serviceId,
    Slot: slot,
    NodeID: "",
    SpecVersion: { Index: 1 },
    Status: { State: "pending", Timestamp: pastText, Message: "pending task scheduling" },
    DesiredState: "running",
  });
}

function assertBalanced(what: string, counts: readonly number[]): void {
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (const count of counts) {
    least = Math.min(least, count);
    most = Math.max(most, count);
  }
  assert(most - least <= 1, `${what}: between ${least} and ${most} tasks`);
}

/** One op: what it took, and the store that it left. */
interface Run {
  /** Of the timed part. */
  readonly seconds: number;
  /** What the process used of the processors meanwhile, all threads: far below `seconds` on a machine that is busy. */
  readonly cpuSeconds: number;
  readonly store: Store;
}

async function runOnce(workload: Pick<Case, "tasks" | "fill" | "check">): Promise<Run> {
  const store = await Store.open(new MemoryBackend(), systemClock);
  const scheduler = new Scheduler(store);
  const runtime = { store, clock: systemClock, random: systemRandom, log: silentLogger };
  const { loop, unwatch } = drive(scheduler, runtime);
  loop.start();
  const done = Promise.withResolvers<void>();
  let updated = 0;
  const uncount = store.watch(({ changes }) => {
    for (const { table, before, after } of changes) if (table === "tasks" && before && after) updated++;
    if (updated >= workload.tasks) done.resolve();
  });
  let startedAt = 0;
  let cpuAtStart = process.cpuUsage();
  await store.update((tx) => {
    workload.fill(tx);
    cpuAtStart = process.cpuUsage();
    startedAt = performance.now();
  });
  await done.promise;
  await loop.stop();
  unwatch();
  uncount();
  scheduler.close();
  await store.close();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpuAtStart);
  assert.equal(updated, workload.tasks, "each task is written once");
  assert.equal(loop.report().failures, 0, loop.report().lastError);
  workload.check(store.view);
  return { seconds, cpuSeconds: (user + system) / 1e6, store };
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** RSS of a fresh process that has scheduled and keeps 100,000 tasks on 1,000 nodes, in MiB. */
function measureMemory(): number {
  const child = spawnSync(process.execPath, [import.meta.filename, "--memory-of-this-process"], { encoding: "utf8" });
  assert.equal(child.status, 0, child.stderr);
  return Number(child.stdout);
}

/**
 * Prints the table; `--case TEXT` runs only the cases whose name has it, `--runs N` so many times each (3).
 * @returns whether every target was met
 */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      case: { type: "string", default: "" },
      runs: { type: "string", default: "3" },
      "memory-of-this-process": { type: "boolean", default: false },
    },
  });
  if (values["memory-of-this-process"]) {
    const { store } = await runOnce(workloadX(1000, 1000, 100, { res: true, con: false, spread: false }));
    console.log((process.memoryUsage.rss() / 2 ** 20).toFixed(0));
    assert.equal(store.view.count("tasks"), 100_000);
    return true;
  }
  console.log(
    "Times in seconds. Swarmkit's include its debounce of 50 ms, ours has none. W: see the file's head.\n" +
      "cpu: used by all threads of this process meanwhile; far below the median, the machine is busy with other work.",
  );
  const row = (cells: readonly string[]) =>
    console.log(cells.map((cell, i) => cell.padEnd(i === 0 ? 38 : 12)).join(""));
  row(["case", "min", "median", "max", "cpu", "swarmkit", "ratio", "target", ""]);
  let met = true;
  for (const workload of cases.filter(({ name }) => name.includes(values.case))) {
    const times: number[] = [];
    const cpuTimes: number[] = [];
    for (let i = 0; i < Number(values.runs); i++) {
      const { seconds, cpuSeconds } = await runOnce(workload);
      times.push(seconds);
      cpuTimes.push(cpuSeconds);
    }
    const median = medianOf(times);
    const ratio = workload.swarmkit[0] / median;
    const verdict = workload.target === undefined ? "" : ratio >= workload.target ? "met" : "NOT MET";
    if (verdict === "NOT MET") met = false;
    row([
      workload.name,
      ...[Math.min(...times), median, Math.max(...times), medianOf(cpuTimes)].map((time) => time.toFixed(3)),
      workload.swarmkit.join("-"),
      `${ratio.toFixed(1)}x`,
      workload.target === undefined ? "" : `>= ${workload.target}x`,
      verdict,
    ]);
  }
  if (!values.case) {
    const rssMiB = measureMemory();
    if (rssMiB >= memoryLimitMiB) met = false;
    console.log(
      `memory: ${rssMiB} MiB RSS with 100,000 tasks on 1,000 nodes, target < ${memoryLimitMiB} MiB: ` +
        (rssMiB < memoryLimitMiB ? "met" : "NOT MET"),
    );
  }
  return met;
}

if (import.meta.main) process.exitCode = (await run(process.argv.slice(2))) ? 0 : 1;
