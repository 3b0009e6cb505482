/**
 * The dispatcher: where agents meet the manager. It registers nodes, watches their heartbeats, streams their
 * assignments and takes their tasks' statuses.
 *
 * Invariants: a node has at most one session; a node that beats is `ready`, one that has not for three periods is
 * `down`; streams are only served between `start` and `stop`, thus from a loaded store (a set of assignments that
 * lacks a task removes its container).
 * The cost of a commit grows with what it changed: one listener routes each change to the sessions concerned.
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import { limits } from "../../lib/limits.ts";
import type { Logger } from "../../lib/log.ts";
import { between, type Random } from "../../lib/random.ts";
import type { Cluster, Node, NodeDescription, NodeStatus, Task } from "../../model/types.ts";
import type {
  AssignmentsMessage,
  Caller,
  DispatcherService,
  SessionMessage,
  TaskStatusUpdate,
  WeightedPeer,
} from "../../rpc/services.ts";
import type { Change, Store, Transaction } from "../../store/store.ts";
import { concernsNode } from "./assignments.ts";
import { Liveness } from "./liveness.ts";
import { Orphans } from "./orphans.ts";
import { RegistrationLimit } from "./registrations.ts";
import { sameJson } from "./same.ts";
import { Session } from "./session.ts";
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
}

const defaultPeriodMs = 5_000;
/** Each reply's period varies by a tenth both ways (Swarm's ± 0.5 s of 5 s), so that nodes do not beat in step. */
const periodJitter = 0.1;
const missedPeriods = 3;
/** After a manager's start agents have to find it first. */
const startGraceFactor = 2;

const unknownMessage = 'Node moved to "unknown" state due to leadership change in cluster';
const lostMessage = "heartbeat failure";

export class Dispatcher implements DispatcherService {
  readonly #options: DispatcherOptions;
  readonly #log: Logger;
  readonly #sessions = new Map<string, Session>();
  readonly #registrations = new RegistrationLimit();
  readonly #liveness: Liveness;
  readonly #orphans: Orphans;
  #state: "new" | "running" | "stopped" = "new";
  #unwatch: (() => void) | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "dispatcher" });
    this.#liveness = new Liveness(options.clock, (nodeId) => void this.#lose(nodeId));
    this.#orphans = new Orphans({ ...options, log: this.#log });
  }

  /** Makes every ready node unknown until it is heard of, then serves. */
  async start(): Promise<void> {
    const { store } = this.#options;
    this.#unwatch = store.watch((commit) => {
      for (const change of commit.changes) this.#route(change);
    });
    while ((await store.update(markUnknown)) === limits.changesPerTransaction);
    if (this.#state === "stopped") return;
    const graceMs = this.#graceMs() * startGraceFactor;
    for (const node of store.view.all("nodes")) {
      if (node.Status.State !== "down") this.#liveness.beat(node.ID, graceMs);
      this.#orphans.observe(node.ID, node);
    }
    this.#state = "running";
  }

  /** Ends every stream with Unavailable; later calls are refused with it. */
  stop(): void {
    if (this.#state === "stopped") return;
    this.#state = "stopped";
    this.#unwatch?.();
    this.#liveness.stop();
    this.#orphans.stop();
    for (const session of this.#sessions.values()) session.end(notRunning());
    this.#sessions.clear();
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
    const { store, clock, random, managers } = this.#options;
    const { nodeId } = caller;
    this.#requireMember(nodeId);
    if (!this.#keeps(nodeId, request.sessionId)) this.#registrations.grant(nodeId, clock.now());
    // Before the write: the node must not be counted as lost while it is being registered.
    this.#liveness.beat(nodeId, this.#graceMs());
    await store.update((tx) => registerNode(tx, caller, request.description));
    this.#requireMember(nodeId);
    const current = this.#sessions.get(nodeId);
    if (current && this.#keeps(nodeId, request.sessionId)) return current;
    current?.end(sessionInvalid());
    const session = new Session(newId(random), nodeId, store.view, managers);
    this.#sessions.set(nodeId, session);
    this.#log.debug("node registered", { node: nodeId, address: caller.address });
    return session;
  }

  #keeps(nodeId: string, sessionId: string): boolean {
    return sessionId !== "" && this.#sessions.get(nodeId)?.id === sessionId;
  }

  #sessionOf(caller: Caller, sessionId: string): Session {
    if (this.#state !== "running") throw notRunning();
    const session = this.#sessions.get(caller.nodeId);
    if (!session) throw new ShoalError("NotFound", "node not registered");
    if (session.id !== sessionId) throw sessionInvalid();
    return session;
  }

  #requireMember(nodeId: string): void {
    if (this.#state !== "running") throw notRunning();
    const { view } = this.#options.store;
    if (view.cluster()?.RemovedNodes[nodeId] !== undefined) throw removed(nodeId);
    if (!view.get("nodes", nodeId)) throw new ShoalError("NotFound", "node not found");
  }

  /** The node has been silent for too long. */
  async #lose(nodeId: string): Promise<void> {
    this.#endSession(nodeId, new ShoalError("Aborted", "node must disconnect"));
    try {
      await this.#options.store.update((tx) => {
        const node = tx.get("nodes", nodeId);
        // A node that has registered since this was asked for has a session: it is not lost.
        if (!node || node.Status.State === "down" || this.#sessions.has(nodeId)) return;
        putStatus(tx, node, { ...node.Status, State: "down", Message: lostMessage });
      });
    } catch (error) {
      this.#log.error("marking a lost node down failed", { node: nodeId, error: messageOf(error) });
      if (this.#state === "running" && !this.#sessions.has(nodeId)) this.#liveness.beat(nodeId, this.#graceMs());
    }
  }

  #endSession(nodeId: string, error: ShoalError): void {
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
    if (after) this.#sessions.get(id)?.touchSession();
    else this.#forget(id);
    if (!sameJson(before?.ManagerStatus, after?.ManagerStatus)) this.#touchSessions();
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

  #graceMs(): number {
    return this.#periodMs() * missedPeriods;
  }
}

/** Makes ready nodes unknown, as many as fit into a transaction; how many. */
function markUnknown(tx: Transaction): number {
  const nodes: Node[] = [];
  for (const node of tx.all("nodes")) {
    if (node.Status.State !== "ready" && node.Status.State !== "disconnected") continue;
    nodes.push(node);
    if (nodes.length === limits.changesPerTransaction) break;
  }
  for (const node of nodes) putStatus(tx, node, { ...node.Status, State: "unknown", Message: unknownMessage });
  return nodes.length;
}

function registerNode(tx: Transaction, caller: Caller, description: NodeDescription): void {
  const node = tx.get("nodes", caller.nodeId);
  if (!node) throw new ShoalError("NotFound", "node not found");
  const Status: NodeStatus = { State: "ready", Addr: caller.address };
  if (sameJson(node.Status, Status) && sameJson(node.Description, description)) return;
  tx.put("nodes", { ...node, Description: description, Status });
}

function putStatus(tx: Transaction, node: Node, Status: NodeStatus): void {
  tx.put("nodes", { ...node, Status });
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
