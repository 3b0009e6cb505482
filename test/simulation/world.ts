/**
 * A whole swarm in one process, from a seed: nodes, their wire, the managers' shared store, the checkers that look at
 * every step, and the trace. What happens to it is up to `workload.ts` and `faults.ts`.
 */
import { messageOf } from "../../src/lib/errors.ts";
import { newId } from "../../src/lib/ids.ts";
import { makeNetwork } from "../../src/manager/endpoints/harness.ts";
import { newCluster } from "../../src/model/cluster.ts";
import { predefinedNetworks } from "../../src/model/networks.ts";
import { type Change, type Commit, Store } from "../../src/store/store.ts";
import { type Checker, type CheckerFactory, describeTask, type Finding, type Overview } from "./checker.ts";
import { AcknowledgedWrites } from "./checkers/always-acknowledged-writes-are-there.ts";
import { containersAreWanted } from "./checkers/always-containers-are-wanted.ts";
import { haltedIsNotLedTo } from "./checkers/always-halted-is-not-led-to.ts";
import { jobsKeepTheirBounds } from "./checkers/always-jobs-keep-their-bounds.ts";
import { leaderAloneDecides } from "./checkers/always-leader-alone-decides.ts";
import { oneContainerPerSlot } from "./checkers/always-one-container-per-slot.ts";
import { oneTaskPerSlot } from "./checkers/always-one-task-per-slot.ts";
import { placedWhereAllowed } from "./checkers/always-placed-where-allowed.ts";
import { removedTasksAreStopped } from "./checkers/always-removed-tasks-are-stopped.ts";
import { statesAdvance } from "./checkers/always-states-advance.ts";
import { updateOrderIsKept } from "./checkers/always-update-order-is-kept.ts";
import { updatesKeepTheirRules } from "./checkers/always-updates-keep-their-rules.ts";
import { containersMatch } from "./checkers/eventually-containers-match.ts";
import { jobsComplete } from "./checkers/eventually-jobs-complete.ts";
import { managersAgree } from "./checkers/eventually-managers-agree.ts";
import { networksMatch } from "./checkers/eventually-networks-match.ts";
import { nodesAreReady } from "./checkers/eventually-nodes-are-ready.ts";
import { payloadsMatch } from "./checkers/eventually-payloads-match.ts";
import { servicesRun } from "./checkers/eventually-services-run.ts";
import { waitingHasAReason } from "./checkers/eventually-waiting-has-a-reason.ts";
import { atRest } from "./checkers/finally-at-rest.ts";
import { Dice } from "./dice.ts";
import type { Container } from "./engine.ts";
import { Network } from "./network.ts";
import { addressOf, SimulatedNode } from "./node.ts";
import { SharedStore } from "./shared-store.ts";
import { Timeline } from "./timeline.ts";
import { Trace } from "./trace.ts";

/** What was not as it must be. The run ends with it. */
export class Violation extends Error {}

export interface Shape {
  readonly managers: number;
  readonly workers: number;
  readonly heartbeatMs: number;
  readonly historyLimit: number;
  /** How far workers' clocks are off, at most; and managers'. */
  readonly skewMs: number;
  readonly managerSkewMs: number;
}

const factories: readonly CheckerFactory[] = [
  statesAdvance,
  oneTaskPerSlot,
  oneContainerPerSlot,
  containersAreWanted,
  placedWhereAllowed,
  removedTasksAreStopped,
  leaderAloneDecides,
  haltedIsNotLedTo,
  updatesKeepTheirRules,
  updateOrderIsKept,
  jobsKeepTheirBounds,
  nodesAreReady,
  managersAgree,
  servicesRun,
  jobsComplete,
  containersMatch,
  networksMatch,
  payloadsMatch,
  waitingHasAReason,
  atRest,
];

const clusterId = "cluster";
/** Ids of the networks that services can be on. */
export const overlays = ["front", "back"];
/** Ids, and names, of what tasks may need. */
export const payloads = { secrets: ["key", "password"], configs: ["settings"] };
const gibibyte = 2 ** 30;

export class World {
  readonly seed: number;
  readonly shape: Shape;
  readonly timeline: Timeline;
  readonly trace: Trace;
  readonly network: Network;
  readonly shared: SharedStore;
  readonly nodes: SimulatedNode[] = [];
  /** The shared store as it is at each moment. */
  readonly observer: Store;
  readonly acknowledged: AcknowledgedWrites;
  readonly #checkers: readonly Checker[];
  /** Until when each node was last down: Infinity while it is. */
  readonly #downUntil = new Map<string, number>();
  /** When each task was made, by true time: the managers' clocks are off. */
  readonly #madeAt = new Map<string, number>();
  #writer = "";
  #disturbances = 0;
  #calmSince = 0;
  #violation: Violation | undefined;

  /** A swarm whose nodes have joined, and whose daemons are not running yet. */
  static async create(seed: number, shape: Shape, print?: (line: string) => void): Promise<World> {
    const timeline = new Timeline();
    const parts: { world?: World } = {};
    const names = Array.from({ length: shape.managers + shape.workers }, (_, index) => `n${index + 1}`);
    const network = new Network(timeline, new Dice(seed, "network"));
    const trace = new Trace(timeline, print);
    const shared = new SharedStore({
      timeline,
      network,
      dice: new Dice(seed, "store"),
      members: names.slice(0, shape.managers),
      isAlive: (host) => parts.world?.node(host)?.hasMember ?? false,
      onAttempt: (attempt) => parts.world?.look((checker) => checker.attempt?.(attempt)),
      onCommit: ({ writer }) => {
        if (parts.world) parts.world.#writer = writer;
      },
      onLeader: (leader) => trace.note("store", leader ? `${leader} leads` : "nobody leads"),
    });
    const observer = await Store.open(shared.observer(), timeline);
    const world = new World({ seed, shape, timeline, network, trace, shared, observer });
    parts.world = world;
    await world.#join(names);
    observer.watch((commit) => world.#observe(commit));
    return world;
  }

  private constructor(parts: Pick<World, "seed" | "shape" | "timeline" | "network" | "trace" | "shared" | "observer">) {
    this.seed = parts.seed;
    this.shape = parts.shape;
    this.timeline = parts.timeline;
    this.network = parts.network;
    this.trace = parts.trace;
    this.shared = parts.shared;
    this.observer = parts.observer;
    const overview: Overview = {
      now: () => this.timeline.now(),
      view: this.observer.view,
      nodes: this.nodes,
      containers: () => this.#containers(),
      wasDown: ({ ID, NodeID }) =>
        !this.observer.view.get("nodes", NodeID) || (this.#downUntil.get(NodeID) ?? 0) >= (this.#madeAt.get(ID) ?? 0),
      calmSince: () => (this.#disturbances > 0 ? this.timeline.now() : this.#calmSince),
      specOf: (task) => this.observer.view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec,
    };
    this.acknowledged = new AcknowledgedWrites(overview);
    this.#checkers = [this.acknowledged, ...factories.map((make) => make(overview))];
  }

  get violation(): Violation | undefined {
    return this.#violation;
  }

  get managers(): readonly SimulatedNode[] {
    return this.nodes.filter(({ options }) => options.isManager);
  }

  node(name: string): SimulatedNode | undefined {
    return this.nodes.find((node) => node.name === name);
  }

  start(): void {
    for (const node of this.nodes) node.start();
  }

  /** Something breaks; the answer tells that it is mended. */
  disturb(): () => void {
    this.#disturbances++;
    return () => {
      this.#disturbances--;
      this.#calmSince = this.timeline.now();
    };
  }

  /** Runs on for a while; rejects with the first violation. */
  async run(forMs: number, isDone: () => boolean = () => false): Promise<void> {
    await this.timeline.run(this.timeline.now() + forMs, () => this.#violation !== undefined || isDone());
    if (this.#violation) throw this.#violation;
  }

  /** The first thing that is not yet (or no longer) as checkers of this kind want it. */
  pending(when: "eventually" | "finally"): Finding {
    for (const checker of this.#checkers) {
      const finding = checker.when === when ? checker.state?.() : undefined;
      if (finding) return `${when}: ${checker.name}: ${finding}`;
    }
    return undefined;
  }

  /** The world ends with the first of these. */
  violate(text: string, cause?: unknown): void {
    if (this.#violation) return;
    this.#violation = new Violation(text, { cause });
    this.trace.note("VIOLATED", text);
  }

  look(ask: (checker: Checker) => Finding): void {
    for (const checker of this.#checkers) {
      const finding = ask(checker);
      if (finding) this.violate(`${checker.when}: ${checker.name}: ${finding}`);
    }
  }

  /** What a client's checks found. */
  found(finding: Finding): void {
    if (finding) this.violate(`always: ${this.acknowledged.name}: ${finding}`);
  }

  *#containers(): Iterable<Container> {
    for (const { engine } of this.nodes) yield* engine.containers;
  }

  async #join(names: readonly string[]): Promise<void> {
    const { seed, shape, timeline, network, shared, trace } = this;
    const dice = new Dice(seed, "world");
    const managers = names.slice(0, shape.managers);
    const wire = {
      network,
      listener: (address: string) => this.nodes.find(({ name }) => addressOf(name) === address)?.listener,
      hostOf: (address: string) => address.split(":")[0] ?? "",
      fault: (error: unknown) => this.violate(`a part broke: ${messageOf(error)}`, error),
    };
    for (const [index, name] of names.entries()) {
      const cpus = dice.pick([2, 4, 8]);
      this.nodes.push(
        new SimulatedNode({
          name,
          nodeId: `node-${index + 1}`,
          clusterId,
          isManager: index < shape.managers,
          seed,
          timeline,
          wire,
          shared,
          managers: managers.map(addressOf),
          skewMs: Math.round(dice.between(-1, 1) * (index < shape.managers ? shape.managerSkewMs : shape.skewMs)),
          description: {
            Hostname: name,
            Platform: { Architecture: "x86_64", OS: "linux" },
            Resources: { NanoCPUs: cpus * 1e9, MemoryBytes: cpus * gibibyte },
            Engine: { EngineVersion: "28.0.0", Labels: {}, Plugins: [] },
          },
          log: trace.logger(name, () => undefined),
          onContainer: (container, event) => {
            trace.note(name, `${event} ${container.id} of ${container.taskId.slice(0, 6)} ${container.exitCode || ""}`);
            this.look((checker) => checker.container?.(container, event));
          },
        }),
      );
    }
    const cluster = newCluster(
      clusterId,
      {
        Spec: {
          Orchestration: { TaskHistoryRetentionLimit: shape.historyLimit },
          Dispatcher: { HeartbeatPeriod: shape.heartbeatMs * 1e6 },
        },
      },
      { Certificate: "root", Key: "", JoinTokens: { Worker: "worker", Manager: "manager" } },
    );
    await this.observer.update((tx) => {
      tx.create("cluster", cluster);
      for (const network of predefinedNetworks(() => newId(dice.random))) tx.create("networks", network);
      makeNetwork(tx, "ingress", 0, { Ingress: true });
      for (const [index, id] of overlays.entries()) makeNetwork(tx, id, index + 1, { Attachable: true });
      for (const table of ["secrets", "configs"] as const) {
        for (const ID of payloads[table]) tx.create(table, { ID, Spec: { Name: ID, Labels: {}, Data: "dGlkZQ==" } });
      }
      for (const { nodeId, name, options } of this.nodes) {
        const Role = options.isManager ? "manager" : "worker";
        tx.create("nodes", {
          ID: nodeId,
          Spec: { Labels: {}, Role, Availability: "active" },
          Status: { State: "unknown" },
          Role,
          ...(options.isManager && { ManagerStatus: { Reachability: "reachable", Addr: addressOf(name) } }),
        });
      }
    });
  }

  #observe(commit: Commit): void {
    for (const change of commit.changes) {
      if (change.table === "nodes") this.#noteNode(change.id, change.before?.Status.State, change.after?.Status.State);
      if (change.table === "tasks" && !change.before) this.#madeAt.set(change.id, this.timeline.now());
      this.#traceChange(change);
    }
    this.look((checker) => checker.commit?.(commit));
    for (const { table, id, after } of commit.changes) if (table === "tasks" && !after) this.#madeAt.delete(id);
  }

  #noteNode(id: string, before: string | undefined, after: string | undefined): void {
    if (after === "down") this.#downUntil.set(id, Number.POSITIVE_INFINITY);
    else if (before === "down") this.#downUntil.set(id, this.timeline.now());
  }

  #traceChange(change: Change): void {
    const text = `${this.#writer}: ${traced(change)}`;
    this.trace.note("store", text);
  }
}

function traced(change: Change): string {
  switch (change.table) {
    case "tasks": {
      const { before, after } = change;
      if (!after) return `task deleted: ${describeTask(before)}`;
      return `task ${describeTask(after)}${after.Status.Err ? ` (${after.Status.Err})` : ""}`;
    }
    case "services": {
      const { before, after } = change;
      const update = after?.UpdateStatus ? ` ${after.UpdateStatus.State} ${after.UpdateStatus.Message}` : "";
      return after ? `service ${after.Name} r${after.SpecVersion.Index}${update}` : `service ${before?.Name} deleted`;
    }
    case "nodes": {
      const { id, after } = change;
      return after ? `node ${id} ${after.Status.State} ${after.Spec.Availability}` : `node ${id} deleted`;
    }
    default:
      return `${change.table} ${change.id}${change.after ? "" : " deleted"}`;
  }
}
