/**
 * For the tests of this folder: a store in memory, the planners on a fake clock, and in place of the scheduler and
 * the agents a player that gives tasks a node and walks them on, as each test says. After every commit it checks what
 * must always hold.
 */
import assert from "node:assert/strict";
import { rfc3339 } from "../../lib/clock.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { type LogFields, type Logger, silentLogger } from "../../lib/log.ts";
import type { Loop } from "../../lib/loop.ts";
import { seededRandom } from "../../lib/random.ts";
import { isActiveDesire, isRunnableDesire, isTerminal, rank } from "../../model/state.ts";
import {
  type Node,
  type NodeAvailability,
  type NodeState,
  type Service,
  type ServiceSpec,
  type SpecRevision,
  specKey,
  type Task,
  type TaskState,
  type TaskStatus,
} from "../../model/types.ts";
import { isJob } from "../../model/validate-service.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store, type Transaction } from "../../store/store.ts";
import { allocator } from "../allocator/allocator.ts";
import { drive, type Planner } from "../planner.ts";
import { constraintEnforcer } from "../scheduler/enforcer.ts";
import { Scheduler } from "../scheduler/scheduler.ts";
import { deletedNodesPlanner } from "./deleted-nodes.ts";
import { globalPlanner } from "./global.ts";
import { jobsPlanner } from "./jobs/jobs.ts";
import { reaperPlanner } from "./reaper.ts";
import { replicatedPlanner } from "./replicated.ts";

/** How a task fares on its node; times are how long each stage takes. */
export interface Fate {
  readonly prepareMs?: number;
  readonly startMs?: number;
  readonly stopMs?: number;
  /** Ends while it is prepared. */
  readonly rejected?: boolean;
  /** Ends by itself, this long after it runs. */
  readonly endsAfterMs?: number;
  readonly endsAs?: "failed" | "complete";
  /** What its agent says of its end. */
  readonly because?: Pick<TaskStatus, "Err">;
  /** Finds no node, until no other task of the service is on one. */
  readonly needsFreeNode?: boolean;
  /** Finds no node at all. */
  readonly fitsNowhere?: boolean;
}

export const second = 1e9;
/** An agent says that it is at its pull where that takes so long. */
const slowPullMs = 1_000;

export class World {
  readonly clock: FakeClock;
  readonly store: Store;
  /** Most tasks of one slot that were running at the same time, on nodes that are up. */
  overlap = 1;
  /** Most tasks of one slot that are wanted running at the same time. */
  rivals = 1;
  /** Decides how each task fares, when it gets its node. */
  fate: (task: Task, spec: ServiceSpec) => Fate = () => ({});
  readonly #random = seededRandom(7);
  /** What the planners log as an error breaks the test. */
  readonly #log: Logger = {
    ...silentLogger,
    error: (message: string, fields?: LogFields) => {
      this.#broken ??= `${message}: ${JSON.stringify(fields)}`;
    },
    child: () => this.#log,
  };
  readonly #pending = new Map<string, { key: string; cancel: () => void }>();
  #drivers: { loop: Loop; unwatch: () => void }[] = [];
  /** Tasks get their nodes as in a real swarm, not by turns. */
  readonly #scheduling: boolean;
  #scheduler: Scheduler | undefined;
  #round = 0;
  #broken: string | undefined;

  private constructor(clock: FakeClock, store: Store, scheduling: boolean) {
    this.clock = clock;
    this.store = store;
    this.#scheduling = scheduling;
  }

  /** @param options.scheduling with the real allocator, scheduler and constraint enforcer */
  static async create(
    options: { readonly nodes?: number; readonly history?: number; readonly scheduling?: boolean } = {},
  ): Promise<World> {
    const clock = new FakeClock();
    const store = await Store.open(new MemoryBackend(), clock);
    const world = new World(clock, store, options.scheduling ?? false);
    await world.store.update((tx) => {
      tx.create("cluster", {
        ID: "cluster",
        Spec: { Name: "default", Orchestration: { TaskHistoryRetentionLimit: options.history ?? 5 } },
        RootCA: { Certificate: "", Key: "", JoinTokens: { Worker: "", Manager: "" } },
        DefaultAddrPool: [],
        SubnetSize: 24,
        DataPathPort: 4789,
        RemovedNodes: {},
      });
    });
    for (let number = 1; number <= (options.nodes ?? 3); number++) await world.addNode(`node-${number}`);
    world.store.watch((commit) => {
      world.#check();
      for (const change of commit.changes) {
        if (change.table === "tasks") world.#consider(change.id);
        if (change.table === "nodes")
          for (const task of world.store.view.tasksOfNode(change.id)) world.#consider(task.ID);
      }
    });
    world.startLeader();
    return world;
  }

  /** Starts the planners, as a manager that becomes the leader does. */
  startLeader(planners: readonly Planner[] = this.#allPlanners()): void {
    const runtime = { store: this.store, clock: this.clock, random: this.#random, log: this.#log };
    this.#drivers = planners.map((planner) => drive(planner, runtime));
    for (const { loop } of this.#drivers) loop.start();
  }

  #allPlanners(): readonly Planner[] {
    const orchestrators = [replicatedPlanner, globalPlanner, jobsPlanner, reaperPlanner, deletedNodesPlanner];
    if (!this.#scheduling) return orchestrators;
    this.#scheduler = new Scheduler(this.store);
    return [...orchestrators, allocator, this.#scheduler, constraintEnforcer];
  }

  async stopLeader(): Promise<void> {
    for (const { loop, unwatch } of this.#drivers) {
      unwatch();
      await loop.stop();
    }
    this.#scheduler?.close();
  }

  async run(ms: number): Promise<void> {
    await this.clock.advance(ms);
    this.#assertSound();
  }

  /** Runs until `condition` holds; fails when it does not within `limitMs` of the fake clock. */
  async until(condition: () => boolean, limitMs = 600_000): Promise<void> {
    const end = this.clock.now() + limitMs;
    await settled();
    while (!condition()) {
      if (this.clock.now() >= end) assert.fail(`not within ${limitMs} ms: ${condition}\n${this.describe()}`);
      await this.clock.advance(50);
    }
    this.#assertSound();
  }

  async addNode(id: string, labels: Record<string, string> = {}): Promise<void> {
    await this.store.update((tx) => {
      tx.create("nodes", {
        ID: id,
        Spec: { Role: "worker", Availability: "active", Labels: labels },
        Role: "worker",
        Status: { State: "ready", Addr: "10.0.0.1" },
        Description: { Hostname: id },
      });
    });
  }

  changeNode(
    id: string,
    change: { State?: NodeState; Availability?: NodeAvailability; Labels?: Record<string, string> },
  ): Promise<unknown> {
    return this.store.update((tx) => {
      const node = tx.get("nodes", id)!;
      const { State = node.Status.State, ...spec } = change;
      tx.put("nodes", { ...node, Status: { ...node.Status, State }, Spec: { ...node.Spec, ...spec } });
    });
  }

  deleteNode(id: string): Promise<unknown> {
    return this.store.update((tx) => tx.delete("nodes", id));
  }

  /** As `docker service create` does. The service's id is its name. */
  createService(name: string, spec: ServiceSpec): Promise<unknown> {
    return this.store.update((tx) => {
      const Spec = { Name: name, ...spec };
      tx.create("specs", { ID: specKey(name, 1), ServiceID: name, Revision: 1, Spec });
      const JobStatus = isJob(spec) && { JobIteration: { Index: 0 }, LastExecution: tx.now };
      tx.create("services", { ID: name, Name: name, SpecVersion: { Index: 1 }, ...(JobStatus && { JobStatus }) });
    });
  }

  /** As `docker service update` does. */
  updateService(name: string, change: (spec: ServiceSpec) => ServiceSpec, RegistryAuth?: string): Promise<unknown> {
    return this.store.update((tx) => {
      const { UpdateStatus: _, ...service } = tx.service(name)!;
      const Spec = change(tx.specOf(service).Spec);
      this.#respecify(tx, service, { Spec, ...(RegistryAuth !== undefined && { PullOptions: { RegistryAuth } }) });
    });
  }

  /** As `docker service rollback` does; the service must have a previous spec. */
  rollBack(name: string): Promise<unknown> {
    return this.store.update((tx) => {
      const service = tx.service(name)!;
      const Message = "manually requested rollback";
      const UpdateStatus = { State: "rollback_started" as const, StartedAt: tx.now, Message };
      const { Spec } = tx.spec(name, service.PreviousSpecVersion!.Index)!;
      this.#respecify(tx, { ...service, UpdateStatus }, { Spec });
    });
  }

  #respecify(tx: Transaction, service: Service, spec: Pick<SpecRevision, "Spec" | "PullOptions">): void {
    const { ID, SpecVersion } = service;
    const Revision = 1 + Math.max(...[...tx.specsOfService(ID)].map((one) => one.Revision));
    tx.create("specs", { ID: specKey(ID, Revision), ServiceID: ID, Revision, ...spec });
    const iteration = service.JobStatus?.JobIteration.Index;
    tx.put("services", {
      ...service,
      SpecVersion: { Index: Revision },
      PreviousSpecVersion: SpecVersion,
      ...(iteration !== undefined && {
        JobStatus: { JobIteration: { Index: iteration + 1 }, LastExecution: tx.now },
      }),
    });
  }

  scale(name: string, Replicas: number): Promise<unknown> {
    return this.updateService(name, (spec) => ({ ...spec, Mode: { Replicated: { Replicas } } }));
  }

  setImage(name: string, Image: string): Promise<unknown> {
    return this.updateService(name, (spec) => ({
      ...spec,
      TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { ...spec.TaskTemplate?.ContainerSpec, Image } },
    }));
  }

  removeService(name: string): Promise<unknown> {
    return this.store.update((tx) => tx.delete("services", name));
  }

  service(name: string): Service {
    return this.store.view.service(name)!;
  }

  node(id: string): Node {
    return this.store.view.get("nodes", id)!;
  }

  tasks(name: string): Task[] {
    return [...this.store.view.tasksOfService(name)].toSorted((left, right) => left.Slot - right.Slot);
  }

  wanted(name: string): Task[] {
    return this.tasks(name).filter((task) => isRunnableDesire(task.DesiredState));
  }

  running(name: string): Task[] {
    return this.wanted(name).filter((task) => task.DesiredState === "running" && task.Status.State === "running");
  }

  slots(tasks: readonly Task[]): number[] {
    return tasks.map((task) => task.Slot);
  }

  imageOf(task: Task): string | undefined {
    return this.store.view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec.TaskTemplate?.ContainerSpec?.Image;
  }

  /** All wanted tasks run, and there are `count` of them. */
  hasConverged(name: string, count: number): boolean {
    return this.wanted(name).length === count && this.running(name).length === count;
  }

  /** An agent's report. */
  report(id: string, State: TaskState, more: Partial<TaskStatus> = {}): Promise<unknown> {
    return this.store.update((tx) => {
      const task = tx.get("tasks", id);
      if (!task || rank(State) < rank(task.Status.State)) return;
      const Status = { ...task.Status, Timestamp: tx.now, AppliedAt: tx.now, State, Message: State, ...more };
      tx.put("tasks", { ...task, Status });
    });
  }

  describe(): string {
    const lines = [...this.store.view.all("tasks")].map(
      (task) =>
        `${task.ServiceID}.${task.Slot} r${task.SpecVersion.Index} ${task.NodeID || "-"} ${task.Status.State} -> ` +
        `${task.DesiredState} ${task.StartAfter ?? ""}${task.MadeByUpdate ? " update" : ""}`,
    );
    for (const service of this.store.view.all("services")) lines.push(JSON.stringify(service));
    return `${rfc3339(this.clock.now())}\n${lines.toSorted().join("\n")}`;
  }

  /** Gives the task what comes next for it, once. */
  #consider(id: string): void {
    const task = this.store.view.get("tasks", id);
    const next = task && this.#nextOf(task);
    const key = task && next ? `${task.Status.State} ${task.DesiredState} ${task.NodeID}` : "";
    const set = this.#pending.get(id);
    if (set?.key === key) return;
    set?.cancel();
    this.#pending.delete(id);
    if (!next) return;
    const timer = this.clock.after(next.afterMs, () => {
      this.#pending.delete(id);
      void next.act();
    });
    this.#pending.set(id, { key, cancel: () => timer.cancel() });
  }

  #nextOf(task: Task): { afterMs: number; act: () => Promise<unknown> } | undefined {
    const { State } = task.Status;
    if (isTerminal(State)) return undefined;
    const spec = this.store.view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec ?? {};
    const fate = this.fate(task, spec);
    if (rank(State) < rank("assigned")) {
      if (this.#scheduling || !isActiveDesire(task.DesiredState)) return undefined;
      return { afterMs: 0, act: () => this.#assign(task.ID, fate) };
    }
    if (this.store.view.get("nodes", task.NodeID)?.Status.State === "down") return undefined;
    if (!isActiveDesire(task.DesiredState)) {
      return { afterMs: fate.stopMs ?? 100, act: () => this.report(task.ID, "shutdown") };
    }
    if (State === "assigned" && (fate.prepareMs ?? 0) >= slowPullMs) {
      const Message = `preparing: pulling image ${spec.TaskTemplate?.ContainerSpec?.Image}`;
      return { afterMs: 0, act: () => this.report(task.ID, "preparing", { Message }) };
    }
    if (rank(State) < rank("ready")) {
      const act = () =>
        fate.rejected ? this.report(task.ID, "rejected", fate.because) : this.report(task.ID, "ready");
      return { afterMs: fate.prepareMs ?? 100, act };
    }
    if (State === "ready") {
      if (task.DesiredState === "ready") return undefined;
      return { afterMs: 0, act: () => this.report(task.ID, "starting") };
    }
    if (State === "starting") return { afterMs: fate.startMs ?? 100, act: () => this.report(task.ID, "running") };
    if (fate.endsAfterMs === undefined) return undefined;
    return { afterMs: fate.endsAfterMs, act: () => this.report(task.ID, fate.endsAs ?? "failed", fate.because) };
  }

  #assign(id: string, fate: Fate): Promise<unknown> {
    return this.store.update((tx) => {
      const task = tx.get("tasks", id);
      if (!task || !isActiveDesire(task.DesiredState) || rank(task.Status.State) >= rank("assigned")) return;
      const others = [...tx.tasksOfService(task.ServiceID)].filter((other) => other.ID !== id && other.NodeID !== "");
      const isFree = others.every((other) => isTerminal(other.Status.State));
      const nodes = [...tx.all("nodes")].filter(
        (node) => node.Status.State === "ready" && node.Spec.Availability === "active",
      );
      const node = task.NodeID || nodes[this.#round++ % nodes.length]?.ID;
      if (!node || (fate.needsFreeNode && !isFree) || fate.fitsNowhere) {
        this.clock.after(500, () => void this.#assign(id, fate));
        if (task.Status.Err) return;
        const reason = fate.fitsNowhere ? "scheduling constraints not satisfied on" : "insufficient resources on";
        const Err = `no suitable node (${reason} 3 nodes)`;
        tx.put("tasks", { ...task, Status: { ...task.Status, State: "pending", Err } });
        return;
      }
      const Status = { Timestamp: tx.now, State: "assigned" as const, Message: "scheduler assigned task to node" };
      tx.put("tasks", { ...task, NodeID: node, Status });
    });
  }

  /** What was not as it must be after some commit. (A throw there would fail that commit, not the test.) */
  #assertSound(): void {
    if (this.#broken) assert.fail(this.#broken);
  }

  /** What must hold after every commit. */
  #check(): void {
    const running = new Map<string, number>();
    const wanted = new Map<string, number>();
    for (const task of this.store.view.all("tasks")) {
      const { State } = task.Status;
      const { Spec } = this.store.view.spec(task.ServiceID, task.SpecVersion.Index) ?? {};
      const place = `${task.ServiceID}.${Spec?.Mode?.ReplicatedJob ? task.Slot : task.Slot || task.NodeID}`;
      const isWanted = task.DesiredState === "running" || (task.DesiredState === "complete" && !isTerminal(State));
      if (isWanted) this.#count(wanted, place, this.rivals, "are wanted running");
      const node = this.store.view.get("nodes", task.NodeID);
      const isUp = node && node.Status.State !== "down";
      if (isUp && (State === "starting" || State === "running")) this.#count(running, place, this.overlap, "run");
    }
  }

  #count(counts: Map<string, number>, place: string, limit: number, what: string): void {
    const count = (counts.get(place) ?? 0) + 1;
    counts.set(place, count);
    if (count > limit) this.#broken ??= `${count} tasks ${what} in ${place}\n${this.describe()}`;
  }

  /** Another manager takes over: what the planners had in memory is lost. */
  async changeLeader(): Promise<void> {
    await this.stopLeader();
    this.startLeader();
  }
}
