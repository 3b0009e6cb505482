/**
 * The dispatcher: where agents meet the manager. It registers nodes, watches whether they live, streams their
 * assignments and takes their tasks' statuses. Every manager has one.
 *
 * Invariants: a node has at most one session, and the store says with which manager (`SessionManager`): that manager
 * alone judges it (`vigil.ts`). A node whose session lives is `ready`; it is `down` when it has been silent for too
 * long. What becomes of the nodes of a manager that is gone is the leader's affair (`takeover.ts`).
 * Streams are only served between `start` and `stop`, thus from a loaded store (a set of assignments that lacks a task
 * removes its container).
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { sameJson } from "../../lib/same.ts";
import type { Cluster, Node, NodeDescription } from "../../model/types.ts";
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
import { Contact } from "./contact.ts";
import { Graces } from "./graces.ts";
import { markStarting, registerNode } from "./node-status.ts";
import { Orphans } from "./orphans.ts";
import { mustDisconnect, notRunning, outOfTouch, removed, sessionInvalid } from "./refusals.ts";
import { Registrations } from "./registrations.ts";
import { Roster } from "./roster.ts";
import { ServiceTime } from "./service-time.ts";
import type { Session } from "./session.ts";
import { Sessions } from "./sessions.ts";
import { Takeover, takeoverGraceMs } from "./takeover.ts";
import { applyReports } from "./task-status.ts";
import { Vigil } from "./vigil.ts";

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

/** What counts as served by the manager of a swarm that begins: more than any node is waited for. */
const longerThanAnyGraceMs = 60_000;

export class Dispatcher implements DispatcherService {
  readonly #options: DispatcherOptions;
  readonly #log: Logger;
  readonly #sessions: Sessions;
  readonly #roster: Roster;
  readonly #registrations = new Registrations();
  readonly #graces: Graces;
  readonly #vigil: Vigil;
  readonly #orphans: Orphans;
  readonly #takeover: Takeover;
  readonly #contact: Contact;
  readonly #serviceTime: ServiceTime;
  #state: "new" | "running" | "stopped" = "new";
  #unwatch: (() => void)[] = [];

  constructor(options: DispatcherOptions) {
    const { clock, election, random, store } = options;
    this.#options = options;
    this.#roster = new Roster(options.managers);
    this.#sessions = new Sessions({ view: store.view, random, managers: () => this.#roster.weighted() });
    this.#log = options.log.child({ module: "dispatcher" });
    this.#graces = new Graces(store.view, this.#roster);
    this.#serviceTime = new ServiceTime(clock);
    this.#vigil = new Vigil({
      ...options,
      log: this.#log,
      isRegistering: (nodeId) => this.#registrations.isUnderWay(nodeId),
      hasSession: (nodeId) => this.#sessions.has(nodeId),
      onLost: (nodeId) => this.#endSession(nodeId, mustDisconnect()),
    });
    const fence = () => election.fence;
    this.#orphans = new Orphans({ ...options, log: this.#log, fence });
    const reachable = options.reachable ?? ((managerId: string) => isReachable(store.view.get("nodes", managerId)));
    this.#takeover = new Takeover({
      ...options,
      log: this.#log,
      fence,
      reachable,
      // Longer where they may have been without any manager until just now.
      leftGraceMs: () => Math.max(takeoverGraceMs, this.#graces.returnMs - this.#serviceTime.ms),
      newGraceMs: () => this.#graces.returnMs,
    });
    this.#contact = new Contact({
      clock,
      ask: () => store.caughtUp(),
      onChange: (inTouch) => this.#contactChanged(inTouch),
      onGap: () => this.#serviceTime.begin(),
    });
  }

  /**
   * Serves from now on. Nodes whose session this manager had before stay as they are and get a grace to come back
   * (but for its own, whose agent starts with it); those of other managers are theirs.
   */
  async start(): Promise<void> {
    const { election, store } = this.#options;
    if (this.#state !== "new") return;
    this.#state = "running";
    this.#serviceTime.begin(this.#isFirstOfAll() ? longerThanAnyGraceMs : 0);
    this.#unwatch = [
      store.watch((commit) => {
        for (const change of commit.changes) this.#route(change);
      }),
      election.watch(() => this.#leadChanged()),
    ];
    for (const node of store.view.all("nodes")) {
      this.#orphans.observe(node.ID, node);
      this.#roster.observe(node.ID, node);
    }
    this.#contact.set(!this.#roster.isAlone);
    this.#awaitOwnNodes();
    this.#leadChanged();
    // Not awaited: without a quorum it can't be written, and the start does not depend on it.
    void this.#markStarting();
  }

  /** The swarm has no other node yet: no agent has been without a manager. */
  #isFirstOfAll(): boolean {
    const { nodeId, store } = this.#options;
    return [...store.view.all("nodes")].every(({ ID }) => ID === nodeId);
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
    this.#vigil.stop();
    this.#orphans.stop();
    this.#takeover.end();
    this.#contact.set(false);
    this.#serviceTime.end();
    for (const nodeId of this.#sessions.nodeIds()) this.#sessions.end(nodeId, notRunning());
  }

  /** What `reachable` answers has changed for some manager. */
  managersChanged(): void {
    if (this.#state === "running") this.#takeover.lookAtAll();
  }

  /** For how long the managers have been in service, as far as this one knows. */
  get inServiceMs(): number {
    return this.#serviceTime.ms;
  }

  /** Another manager says for how long they have been. */
  heardInService(ms: number): void {
    if (this.#serviceTime.heard(ms)) this.#takeover.hasten();
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
    const session = this.requireSession(caller, sessionId);
    const { periodMs, graceMs } = this.#graces.nextBeat(this.#options.random);
    this.#vigil.beat(session.nodeId, graceMs);
    return { periodMs };
  }

  async rest(caller: Caller, sessionId: string): Promise<void> {
    const { nodeId } = this.requireSession(caller, sessionId);
    this.#vigil.forgetConnection(nodeId);
  }

  async updateTaskStatus(caller: Caller, sessionId: string, updates: readonly TaskStatusUpdate[]): Promise<void> {
    const session = this.requireSession(caller, sessionId);
    await this.#options.store.update((tx) => applyReports(tx, session.nodeId, updates, this.#options.nodeId));
  }

  async *assignments(
    caller: Caller,
    sessionId: string,
    signal: AbortSignal,
  ): AsyncGenerator<AssignmentsMessage, void, void> {
    yield* this.requireSession(caller, sessionId).assignments(signal);
  }

  async #register(
    caller: Caller,
    request: { readonly description: NodeDescription; readonly sessionId: string },
  ): Promise<Session> {
    const { store, clock, nodeId: self } = this.#options;
    const { nodeId } = caller;
    this.#requireMember(nodeId);
    if (!this.#sessions.keeps(nodeId, request.sessionId)) this.#registrations.grant(nodeId, clock.now());
    try {
      await this.#registrations.during(nodeId, () =>
        store.update((tx) => registerNode(tx, caller, request.description, self)),
      );
    } finally {
      this.#vigil.beat(nodeId, this.#graces.registeredMs);
    }
    this.#requireMember(nodeId);
    // Another manager has registered it in the same moment: the agent is there by now.
    if (store.view.get("nodes", nodeId)?.SessionManager !== self) throw sessionInvalid();
    if (caller.connection) this.#vigil.watchConnection(nodeId, caller.connection);
    this.#log.debug("node registered", { node: nodeId, address: caller.address });
    return this.#sessions.open(nodeId, request.sessionId);
  }

  /** The caller's session; throws what agents act by where it has none with this manager, or another one. */
  requireSession(caller: Caller, sessionId: string): Session {
    this.#requireRunning();
    return this.#sessions.require(caller, sessionId);
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

  /** Nodes that are this manager's, but have no session: a grace to come back. */
  #awaitOwnNodes(): void {
    const graceMs = this.#graces.returnMs;
    for (const { ID: id, SessionManager: manager, Status } of this.#options.store.view.all("nodes")) {
      if (manager !== this.#options.nodeId || Status.State === "down" || this.#sessions.has(id)) continue;
      this.#vigil.beat(id, graceMs);
    }
  }

  #leadChanged(): void {
    if (this.#options.election.fence) this.#takeover.begin();
    else this.#takeover.end();
  }

  #contactChanged(inTouch: boolean): void {
    if (inTouch) {
      this.#log.info("in touch with the other managers again");
      this.#awaitOwnNodes();
      return;
    }
    this.#serviceTime.end();
    this.#log.warn("out of touch with the other managers: letting the agents go to them");
    for (const nodeId of this.#sessions.nodeIds()) {
      this.#endSession(nodeId, outOfTouch());
      this.#vigil.forget(nodeId);
    }
  }

  #endSession(nodeId: string, error: ShoalError): void {
    this.#vigil.forgetConnection(nodeId);
    this.#sessions.end(nodeId, error);
  }

  #forget(nodeId: string): void {
    this.#endSession(nodeId, removed(nodeId));
    this.#vigil.forget(nodeId);
    this.#registrations.forget(nodeId);
  }

  #route(change: Change): void {
    if (change.table === "nodes") this.#routeNode(change.id, change.before, change.after);
    if (change.table === "cluster") this.#routeCluster(change.before, change.after);
    this.#sessions.observe(change);
  }

  #routeNode(id: string, before: Node | undefined, after: Node | undefined): void {
    this.#orphans.observe(id, after);
    this.#roster.observe(id, after);
    if (!sameJson(before?.ManagerStatus, after?.ManagerStatus)) {
      this.#roster.managersChanged();
      this.#contact.set(!this.#roster.isAlone);
      this.#sessions.touchAll();
      this.#takeover.lookAtAll();
    }
    this.#takeover.observe(id, after);
    if (after) this.#endIfElsewhere(after);
    else this.#forget(id);
  }

  /** A session that another manager has taken over, or whose node the leader took for dead, is none any more. */
  #endIfElsewhere({ ID: id, SessionManager: manager, Status }: Node): void {
    const moved = manager !== this.#options.nodeId;
    if (moved && !this.#registrations.isUnderWay(id)) this.#vigil.forget(id);
    if (!this.#sessions.has(id) || this.#registrations.isUnderWay(id)) return;
    if (moved) this.#endSession(id, sessionInvalid());
    else if (Status.State === "down") this.#endSession(id, mustDisconnect());
  }

  #routeCluster(before: Cluster | undefined, after: Cluster | undefined): void {
    for (const id in after?.RemovedNodes) if (before?.RemovedNodes[id] === undefined) this.#forget(id);
  }
}

/** What the store says of a manager. */
function isReachable(manager: Node | undefined): boolean {
  return manager?.ManagerStatus?.Reachability === "reachable";
}
