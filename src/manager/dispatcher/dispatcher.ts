/**
 * The dispatcher: where agents meet the manager. It registers nodes, watches whether they live, streams their
 * assignments and takes their tasks' statuses. Every manager has one.
 *
 * Invariants: a node has at most one session, and the store says with which manager (`SessionManager`): that manager
 * alone judges it, and a verdict on a node that has moved meanwhile writes nothing. A node whose session lives is
 * `ready`; it is `down` when its heartbeats, or its connection (`connections.ts`), have been silent for too long. What
 * becomes of the nodes of a manager that is gone is the leader's affair (`takeover.ts`).
 * Streams are only served between `start` and `stop`, thus from a loaded store (a set of assignments that lacks a task
 * removes its container).
 * The cost of a commit grows with what it changed: one listener routes each change to the sessions concerned.
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Logger } from "../../lib/log.ts";
import { between, type Random } from "../../lib/random.ts";
import { sameJson } from "../../lib/same.ts";
import type { Cluster, Node, NodeDescription, Task } from "../../model/types.ts";
import type {
  AssignmentsMessage,
  Caller,
  DispatcherService,
  SessionMessage,
  TaskStatusUpdate,
  WeightedPeer,
} from "../../rpc/services.ts";
import type { Election } from "../../store/replica.ts";
import type { Change, Store } from "../../store/store.ts";
import { concernsNode } from "./assignments.ts";
import { ConnectionWatch } from "./connections.ts";
import { Contact } from "./contact.ts";
import { Liveness } from "./liveness.ts";
import { markDown, markStarting, registerNode } from "./node-status.ts";
import { Orphans } from "./orphans.ts";
import { RegistrationLimit } from "./registrations.ts";
import { Session } from "./session.ts";
import { Spread } from "./spread.ts";
import { Takeover, takeoverGraceMs } from "./takeover.ts";
import { applyReports } from "./task-status.ts";

export interface DispatcherOptions {
  /** Id of this manager's node: who applied a task's status. */
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** All managers as agents are to know them; read again whenever a node's manager status changes. Never empty. */
  readonly managers: () => readonly WeightedPeer[];
  /** Which manager leads. */
  readonly election: Pick<Election, "fence" | "watch">;
  /** Whether another manager is there; absent: what the store says of it. See `managersChanged`. */
  readonly reachable?: (managerId: string) => boolean;
}

const defaultPeriodMs = 5_000;
/** Each reply's period varies by a tenth both ways (Swarm's ± 0.5 s of 5 s), so that nodes do not beat in step. */
const periodJitter = 0.1;
const missedPeriods = 3;
/** After the only manager's start agents, which may be pausing between tries, have to find it first (Swarm's number). */
const startGraceFactor = 2;
/** The same with other managers, to which an agent turns at once; a stock one tries every 8 s at least. */
const restartGraceMs = 10_000;
/** Until a verdict that could not be written is tried again. */
const retryVerdictMs = 1_000;

export class Dispatcher implements DispatcherService {
  readonly #options: DispatcherOptions;
  readonly #log: Logger;
  readonly #sessions = new Map<string, Session>();
  readonly #registrations = new RegistrationLimit();
  /** Nodes whose registration is being written: not to be judged. */
  readonly #registering = new Map<string, number>();
  readonly #liveness: Liveness;
  readonly #connections: ConnectionWatch;
  readonly #orphans: Orphans;
  readonly #takeover: Takeover;
  readonly #contact: Contact;
  readonly #spread = new Spread();
  #managers: readonly WeightedPeer[] | undefined;
  #startedAt = 0;
  #state: "new" | "running" | "stopped" = "new";
  #unwatch: (() => void)[] = [];

  constructor(options: DispatcherOptions) {
    const { clock, election, store } = options;
    this.#options = options;
    this.#log = options.log.child({ module: "dispatcher" });
    this.#liveness = new Liveness(clock, (nodeId) => void this.#lose(nodeId, "heartbeat failure"));
    this.#connections = new ConnectionWatch(clock, (nodeId, why) => void this.#lose(nodeId, why));
    const fence = () => election.fence;
    this.#orphans = new Orphans({ ...options, log: this.#log, fence });
    const reachable = options.reachable ?? ((managerId: string) => isReachable(store.view.get("nodes", managerId)));
    this.#takeover = new Takeover({ ...options, log: this.#log, fence, reachable });
    this.#contact = new Contact(
      clock,
      () => store.caughtUp(),
      (inTouch) => this.#contactChanged(inTouch),
    );
  }

  /**
   * Serves from now on. Nodes whose session this manager had before stay as they are and get a grace to come back
   * (but for its own, whose agent starts with it); those of other managers are theirs.
   */
  async start(): Promise<void> {
    const { clock, election, store } = this.#options;
    if (this.#state !== "new") return;
    this.#state = "running";
    this.#startedAt = clock.now();
    this.#unwatch = [
      store.watch((commit) => {
        for (const change of commit.changes) this.#route(change);
      }),
      election.watch(() => this.#leadChanged()),
    ];
    for (const node of store.view.all("nodes")) {
      this.#orphans.observe(node.ID, node);
      this.#spread.observe(node.ID, holderOf(node));
    }
    this.#contact.set(!this.#isAlone());
    this.#awaitOwnNodes();
    this.#leadChanged();
    // Not awaited: without a quorum it can't be written, and the start does not depend on it.
    void this.#markStarting();
  }

  async #markStarting(): Promise<void> {
    const { nodeId, store } = this.#options;
    try {
      await store.update((tx) => {
        if (!this.#sessions.has(nodeId)) markStarting(tx, nodeId);
      });
    } catch (error) {
      this.#log.warn("the node's own state was not written", { error: messageOf(error) });
    }
  }

  /** Ends every stream with Unavailable; later calls are refused with it. */
  stop(): void {
    if (this.#state === "stopped") return;
    this.#state = "stopped";
    for (const unwatch of this.#unwatch) unwatch();
    this.#liveness.stop();
    this.#connections.stop();
    this.#orphans.stop();
    this.#takeover.end();
    this.#contact.set(false);
    for (const session of this.#sessions.values()) session.end(notRunning());
    this.#sessions.clear();
  }

  /** What `reachable` answers has changed for some manager. */
  managersChanged(): void {
    if (this.#state === "running") this.#takeover.lookAtAll();
  }

  async *session(
    caller: Caller,
    request: { readonly description: NodeDescription; readonly sessionId: string },
    signal: AbortSignal,
  ): AsyncGenerator<SessionMessage, void, void> {
    const session = await this.#register(caller, request);
    yield* session.messages(signal);
  }

  async heartbeat(caller: Caller, sessionId: string): Promise<{ readonly periodMs: number }> {
    const session = this.#sessionOf(caller, sessionId);
    const basePeriodMs = this.#periodMs();
    const spreadMs = basePeriodMs * periodJitter;
    const periodMs = between(this.#options.random, basePeriodMs - spreadMs, basePeriodMs + spreadMs);
    this.#liveness.beat(session.nodeId, periodMs * missedPeriods);
    return { periodMs };
  }

  async updateTaskStatus(caller: Caller, sessionId: string, updates: readonly TaskStatusUpdate[]): Promise<void> {
    const session = this.#sessionOf(caller, sessionId);
    await this.#options.store.update((tx) => applyReports(tx, session.nodeId, updates, this.#options.nodeId));
  }

  async *assignments(
    caller: Caller,
    sessionId: string,
    signal: AbortSignal,
  ): AsyncGenerator<AssignmentsMessage, void, void> {
    yield* this.#sessionOf(caller, sessionId).assignments(signal);
  }

  async #register(
    caller: Caller,
    request: { readonly description: NodeDescription; readonly sessionId: string },
  ): Promise<Session> {
    const { store, clock, nodeId: self } = this.#options;
    const { nodeId } = caller;
    this.#requireMember(nodeId);
    if (!this.#keeps(nodeId, request.sessionId)) this.#registrations.grant(nodeId, clock.now());
    this.#registering.set(nodeId, (this.#registering.get(nodeId) ?? 0) + 1);
    try {
      await store.update((tx) => registerNode(tx, caller, request.description, self));
    } finally {
      const others = this.#registering.get(nodeId)! - 1;
      if (others > 0) this.#registering.set(nodeId, others);
      else this.#registering.delete(nodeId);
      if (this.#state === "running") this.#liveness.beat(nodeId, this.#graceMs());
    }
    this.#requireMember(nodeId);
    // Another manager has registered it in the same moment: the agent is there by now.
    if (store.view.get("nodes", nodeId)?.SessionManager !== self) throw sessionInvalid();
    if (caller.connection) this.#connections.watch(nodeId, caller.connection);
    return this.#openSession(caller, request.sessionId);
  }

  #openSession({ nodeId, address }: Caller, sessionId: string): Session {
    const { random, store } = this.#options;
    const current = this.#sessions.get(nodeId);
    if (current && this.#keeps(nodeId, sessionId)) return current;
    current?.end(sessionInvalid());
    const session = new Session(newId(random), nodeId, store.view, () => this.#weightedManagers());
    this.#sessions.set(nodeId, session);
    this.#log.debug("node registered", { node: nodeId, address });
    return session;
  }

  #keeps(nodeId: string, sessionId: string): boolean {
    return sessionId !== "" && this.#sessions.get(nodeId)?.id === sessionId;
  }

  #sessionOf(caller: Caller, sessionId: string): Session {
    this.#requireRunning();
    const session = this.#sessions.get(caller.nodeId);
    if (!session) throw new ShoalError("NotFound", "node not registered");
    if (session.id !== sessionId) throw sessionInvalid();
    return session;
  }

  #requireRunning(): void {
    if (this.#state !== "running") throw notRunning();
    if (!this.#contact.inTouch) throw outOfTouch();
  }

  #requireMember(nodeId: string): void {
    this.#requireRunning();
    const { view } = this.#options.store;
    if (view.cluster()?.RemovedNodes[nodeId] !== undefined) throw removed(nodeId);
    if (!view.get("nodes", nodeId)) throw new ShoalError("NotFound", "node not found");
  }

  /** The node has been silent for too long. */
  async #lose(nodeId: string, why: string): Promise<void> {
    const { nodeId: self, store } = this.#options;
    // Its registration ends with a new grace, whatever comes of it.
    if (this.#registering.has(nodeId)) return;
    this.#endSession(nodeId, new ShoalError("Aborted", "node must disconnect"));
    const isBack = () => this.#sessions.has(nodeId) || this.#registering.has(nodeId);
    try {
      const lost = await store.update((tx) => !isBack() && markDown(tx, nodeId, self, why));
      if (lost) this.#log.info("node is down", { node: nodeId, reason: why });
    } catch (error) {
      this.#log.error("marking a lost node down failed", { node: nodeId, error: messageOf(error) });
      if (this.#state === "running" && !isBack()) this.#liveness.beat(nodeId, retryVerdictMs);
    }
  }

  /** Nodes that are this manager's, but have no session: a grace to come back. */
  #awaitOwnNodes(): void {
    const graceMs = this.#startGraceMs();
    for (const { ID: id, SessionManager: manager, Status } of this.#options.store.view.all("nodes")) {
      if (manager !== this.#options.nodeId || Status.State === "down" || this.#sessions.has(id)) continue;
      this.#liveness.beat(id, graceMs);
    }
  }

  #leadChanged(): void {
    if (!this.#options.election.fence) {
      this.#takeover.end();
      return;
    }
    // A manager that has just started can't know for how long the agents have been without any.
    const sinceStartMs = this.#options.clock.now() - this.#startedAt;
    const graceMs = this.#startGraceMs();
    this.#takeover.begin(Math.max(takeoverGraceMs, graceMs - sinceStartMs), graceMs);
  }

  #contactChanged(inTouch: boolean): void {
    if (inTouch) {
      this.#log.info("in touch with the other managers again");
      this.#awaitOwnNodes();
      return;
    }
    this.#log.warn("out of touch with the other managers: letting the agents go to them");
    for (const nodeId of [...this.#sessions.keys()]) {
      this.#endSession(nodeId, outOfTouch());
      this.#liveness.forget(nodeId);
    }
  }

  #isAlone(): boolean {
    return this.#knownManagers().length === 1;
  }

  #knownManagers(): readonly WeightedPeer[] {
    this.#managers ??= this.#options.managers();
    return this.#managers;
  }

  #weightedManagers(): readonly WeightedPeer[] {
    return this.#spread.weigh(this.#knownManagers());
  }

  #endSession(nodeId: string, error: ShoalError): void {
    this.#connections.forget(nodeId);
    this.#sessions.get(nodeId)?.end(error);
    this.#sessions.delete(nodeId);
  }

  #forget(nodeId: string): void {
    this.#endSession(nodeId, removed(nodeId));
    this.#liveness.forget(nodeId);
    this.#registrations.forget(nodeId);
  }

  #route(change: Change): void {
    switch (change.table) {
      case "tasks":
        this.#routeTask(change.id, change.before, change.after);
        return;
      case "nodes":
        this.#routeNode(change.id, change.before, change.after);
        return;
      case "cluster":
        this.#routeCluster(change.before, change.after);
        return;
      case "networks":
        for (const session of this.#sessions.values()) session.touchAllTasks();
        return;
      default: // services reach agents as tasks, and a spec revision never changes
        return;
    }
  }

  #routeTask(id: string, before: Task | undefined, after: Task | undefined): void {
    const nodeIds = before?.NodeID === after?.NodeID ? [after?.NodeID] : [before?.NodeID, after?.NodeID];
    for (const nodeId of nodeIds) {
      const session = nodeId ? this.#sessions.get(nodeId) : undefined;
      if (session && concernsNode(session.nodeId, before, after)) session.touchTask(id);
    }
  }

  #routeNode(id: string, before: Node | undefined, after: Node | undefined): void {
    this.#orphans.observe(id, after);
    this.#spread.observe(id, after && holderOf(after));
    if (!sameJson(before?.ManagerStatus, after?.ManagerStatus)) {
      this.#managers = undefined;
      this.#contact.set(!this.#isAlone());
      this.#touchSessions();
      this.#takeover.lookAtAll();
    }
    this.#takeover.observe(id, after);
    if (after) {
      this.#sessions.get(id)?.touchSession();
      this.#endIfElsewhere(after);
    } else this.#forget(id);
  }

  /** A session that another manager has taken over, or whose node the leader took for dead, is none any more. */
  #endIfElsewhere({ ID: id, SessionManager: manager, Status }: Node): void {
    const moved = manager !== this.#options.nodeId;
    if (moved && !this.#registering.has(id)) this.#liveness.forget(id);
    if (!this.#sessions.has(id) || this.#registering.has(id)) return;
    if (moved) this.#endSession(id, sessionInvalid());
    else if (Status.State === "down") this.#endSession(id, new ShoalError("Aborted", "node must disconnect"));
  }

  #routeCluster(before: Cluster | undefined, after: Cluster | undefined): void {
    for (const id in after?.RemovedNodes) if (before?.RemovedNodes[id] === undefined) this.#forget(id);
    if (before?.RootCA.Certificate !== after?.RootCA.Certificate) this.#touchSessions();
  }

  #touchSessions(): void {
    for (const session of this.#sessions.values()) session.touchSession();
  }

  #periodMs(): number {
    const periodNs = this.#options.store.view.cluster()?.Spec.Dispatcher?.HeartbeatPeriod;
    return periodNs ? periodNs / 1e6 : defaultPeriodMs;
  }

  /** How long nodes are waited for that have had no manager for a time that is not known. */
  #startGraceMs(): number {
    return this.#isAlone() ? this.#graceMs() * startGraceFactor : restartGraceMs;
  }

  #graceMs(): number {
    return this.#periodMs() * missedPeriods;
  }
}

/** The manager that has the node's session. */
function holderOf(node: Node): string | undefined {
  return node.Status.State === "down" ? undefined : node.SessionManager;
}

/** What the store says of a manager. */
function isReachable(manager: Node | undefined): boolean {
  return manager?.ManagerStatus?.Reachability === "reachable";
}

function outOfTouch(): ShoalError {
  return new ShoalError("Unavailable", "this manager is out of touch with the other managers");
}

function notRunning(): ShoalError {
  return new ShoalError("Unavailable", "dispatcher is stopped");
}

function sessionInvalid(): ShoalError {
  return new ShoalError("InvalidArgument", "session invalid");
}

function removed(nodeId: string): ShoalError {
  return new ShoalError("PermissionDenied", `node ${nodeId} was removed from the swarm`);
}
