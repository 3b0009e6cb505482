/**
 * The state of overlay networks, from this manager to the nodes that have their session with it; and the withdrawal of
 * tasks that are about to stop.
 *
 * A task is withdrawn when no node that lives leads anybody to it: each manager marks it in its own index (the store
 * may still call it running, or this manager may not have heard the contrary yet), and waits for its own nodes to say
 * that their kernels are so far. A mark ends with the task; it also ends by itself, as a node that asked for it may
 * have died before it came to stop the task, and taken it up again.
 */
import { type Clock, type Timer, within } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { addTo, removeFrom } from "../../lib/sets.ts";
import type { DataPath, NetworksMessage } from "../../model/network-state.ts";
import { isTerminal } from "../../model/state.ts";
import type { AttachRequest, Caller, NetworkStateService } from "../../rpc/services.ts";
import type { Commit, Store } from "../../store/store.ts";
import type { Session } from "../dispatcher/session.ts";
import { attach, detach } from "./attachments.ts";
import { keepDataPath } from "./data-path.ts";
import { Follower } from "./follower.ts";
import { NetworkIndex, type NetworkPart } from "./network-index.ts";
import { NodeStream } from "./node-stream.ts";

/** Another manager, as far as withdrawals go. See `PeerService.withdrawTasks`. */
export interface WithdrawalPeer {
  withdrawTasks(taskIds: readonly string[], holdMs: number, signal: AbortSignal): Promise<void>;
}

export interface NetworkStatesOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The caller's session with this manager; throws what agents act by where it has none, or another one. */
  readonly session: (caller: Caller, sessionId: string) => Session;
  /** The other managers that can be reached now. */
  readonly peers: () => Iterable<WithdrawalPeer>;
}

/** Agents give it two seconds, and take our answer for more than none: it must come before. */
const withdrawWithinMs = 1_800;
/** A mark outlives the time that a task has to stop by so much: for what comes before and after that. */
const holdLongerMs = 30_000;
/** The Engine's, where the task has none of its own. */
const defaultGraceMs = 10_000;
/** The longest that a message between managers can say. */
const longestHoldMs = 2 ** 32 - 1;

export class NetworkStates implements NetworkStateService {
  readonly #options: NetworkStatesOptions;
  readonly #log: Logger;
  /** By node. */
  readonly #followers = new Map<string, Follower>();
  /** By network: nodes that no longer take part, and may not have been told so. */
  readonly #leaving = new Map<string, Set<string>>();
  readonly #holds = new Map<string, Timer>();
  #index: NetworkIndex | undefined;
  #unwatch = () => {};

  constructor(options: NetworkStatesOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "networks" });
  }

  /** From now on it follows the store. */
  start(): void {
    const { store } = this.#options;
    this.#index = new NetworkIndex(
      store.view,
      (networkId, part, id) => this.#touch(networkId, part, id),
      () => {
        for (const { stream } of this.#followers.values()) stream.touchKey();
      },
    );
    this.#unwatch = store.watch((commit) => this.#follow(commit));
  }

  stop(): void {
    this.#unwatch();
    this.#index = undefined;
    for (const timer of this.#holds.values()) timer.cancel();
    this.#holds.clear();
    for (const { stream } of this.#followers.values()) stream.end(notRunning());
  }

  async *networks(
    caller: Caller,
    sessionId: string,
    dataPath: DataPath,
    signal: AbortSignal,
  ): AsyncGenerator<NetworksMessage, void, void> {
    const { store, clock, session } = this.#options;
    session(caller, sessionId);
    await keepDataPath(store, caller.nodeId, dataPath);
    // What the node says late of the stream before must not count for this one.
    const after = this.#followers.get(caller.nodeId)?.stream.revision ?? 0;
    const { nodeId } = caller;
    const stream = new NodeStream({
      nodeId,
      index: this.#running(),
      revision: () => store.view.revision,
      clock,
      after,
      onForgotten: (networkId) => removeFrom(this.#leaving, networkId, nodeId),
    });
    yield* this.#follower(session(caller, sessionId), stream).messages(stream, signal);
  }

  #follower(session: Session, stream: NodeStream): Follower {
    const { nodeId, ended } = session;
    const known = this.#followers.get(nodeId);
    if (known?.session === session) {
      known.replace(stream);
      return known;
    }
    const follower = new Follower(session, stream);
    this.#followers.set(nodeId, follower);
    const forget = () => {
      if (this.#followers.get(nodeId) === follower) this.#followers.delete(nodeId);
    };
    ended.addEventListener("abort", forget, { once: true });
    return follower;
  }

  async applied(caller: Caller, sessionId: string, revision: number): Promise<void> {
    this.#options.session(caller, sessionId);
    this.#followers.get(caller.nodeId)?.stream.acknowledge(revision);
  }

  async withdraw(caller: Caller, sessionId: string, taskIds: readonly string[], signal: AbortSignal): Promise<void> {
    this.#options.session(caller, sessionId);
    const { view } = this.#options.store;
    // One that is gone from the store may still be in the tables of nodes that have not heard of that.
    const tasks = taskIds.filter((id) => (view.get("tasks", id)?.NodeID ?? caller.nodeId) === caller.nodeId);
    if (tasks.length === 0) return;
    const holdMs = Math.max(...tasks.map((id) => this.#holdMs(id)));
    const { peers } = this.#options;
    const others = [...peers()].map((peer) => this.#askPeer(peer, tasks, holdMs, signal));
    await this.#inTime(Promise.all([this.#withdrawHere(tasks, holdMs), ...others]), tasks);
  }

  /** Another manager's node is about to stop these. As `PeerService.withdrawTasks`. */
  async withdrawTasks(taskIds: readonly string[], holdMs: number): Promise<void> {
    await this.#inTime(this.#withdrawHere(taskIds, holdMs), taskIds);
  }

  async attach(caller: Caller, request: AttachRequest): Promise<{ readonly taskId: string }> {
    return { taskId: await attach(this.#options, caller.nodeId, request) };
  }

  async detach(caller: Caller, taskId: string): Promise<void> {
    await detach(this.#options.store, caller.nodeId, taskId);
  }

  #running(): NetworkIndex {
    if (!this.#index) throw notRunning();
    return this.#index;
  }

  #follow({ changes }: Commit): void {
    const index = this.#index;
    if (!index) return;
    for (const change of changes) {
      if (change.table === "tasks" && (!change.after || isTerminal(change.after.Status.State)))
        this.#release(change.id);
      // A watcher that throws would fail the commit of whoever made it.
      try {
        index.apply(change);
      } catch (error) {
        this.#log.error("a change of the networks was lost", {
          table: change.table,
          id: change.id,
          error: messageOf(error),
        });
      }
    }
  }

  /**
   * Whoever takes part hears of it, and whoever has not been told yet that it no longer does: it may take part again
   * before that, and then is told of the differences only.
   */
  #touch(networkId: string, part: NetworkPart, id: string): void {
    if (this.#followers.size === 0) return;
    if (part === "network") {
      for (const { stream } of this.#followers.values()) stream.touch(networkId, part, id);
      return;
    }
    const nodes = this.#index?.network(networkId)?.nodes;
    for (const nodeId of nodes?.keys() ?? []) this.#followers.get(nodeId)?.stream.touch(networkId, part, id);
    if (part === "node" && !nodes?.has(id)) addTo(this.#leaving, networkId, id);
    for (const nodeId of this.#leaving.get(networkId) ?? []) {
      const stream = this.#followers.get(nodeId)?.stream;
      if (nodes?.has(nodeId) || !stream?.knows(networkId)) removeFrom(this.#leaving, networkId, nodeId);
      else stream.touch(networkId, part, id);
    }
  }

  async #withdrawHere(taskIds: readonly string[], holdMs: number): Promise<unknown> {
    const index = this.#running();
    for (const id of taskIds) {
      index.withdraw(id);
      this.#hold(id, holdMs);
    }
    return await Promise.all(this.#whoMayLeadTo(taskIds).map((follower) => follower.caughtUp()));
  }

  #whoMayLeadTo(taskIds: readonly string[]): Follower[] {
    const followers = [...this.#followers.values()];
    const networks = new Set<string>();
    for (const id of taskIds) {
      const task = this.#options.store.view.get("tasks", id);
      if (!task) return followers; // nobody knows any more where it was
      for (const { NetworkID } of task.Addresses ?? []) networks.add(NetworkID);
    }
    return followers.filter(({ stream }) => [...networks].some((id) => stream.concerns(id)));
  }

  async #askPeer(
    peer: WithdrawalPeer,
    taskIds: readonly string[],
    holdMs: number,
    signal: AbortSignal,
  ): Promise<unknown> {
    try {
      return await peer.withdrawTasks(taskIds, holdMs, signal);
    } catch (error) {
      // It has gone: so have its nodes' sessions.
      this.#log.debug("another manager does not withdraw tasks", { error: messageOf(error) });
      return undefined;
    }
  }

  #inTime(work: Promise<unknown>, taskIds: readonly string[]): Promise<unknown> {
    return within(this.#options.clock, withdrawWithinMs, work, () => {
      this.#log.info("some nodes may still lead to tasks that are about to stop", { tasks: taskIds });
      return undefined;
    });
  }

  /** For how long a mark may be needed: until the task can have stopped. */
  #holdMs(taskId: string): number {
    const { view } = this.#options.store;
    const task = view.get("tasks", taskId);
    const spec = task && view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec.TaskTemplate;
    const grace = spec?.ContainerSpec?.StopGracePeriod;
    return Math.min((grace === undefined ? defaultGraceMs : grace / 1e6) + holdLongerMs, longestHoldMs);
  }

  #hold(taskId: string, holdMs: number): void {
    this.#release(taskId);
    const timer = this.#options.clock.after(holdMs, () => {
      this.#holds.delete(taskId);
      this.#index?.restore(taskId);
    });
    this.#holds.set(taskId, timer);
  }

  #release(taskId: string): void {
    this.#holds.get(taskId)?.cancel();
    this.#holds.delete(taskId);
  }
}

function notRunning(): ShoalError {
  return new ShoalError("Unavailable", "this manager is stopping");
}
