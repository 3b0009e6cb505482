/**
 * The log broker: brings the lines of tasks from the nodes that run them to the client that asks. A reader makes a
 * subscription; the agents of the nodes concerned hear of it on their standing stream, and publish.
 *
 * Invariants: a reader that does not follow ends once every node concerned has said everything or cannot be reached
 * (which it is told as a warning, after the lines), and never waits for a node that is down; a reader that follows
 * stays until it leaves, and hears of each node that gets a matching task later.
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import { limits } from "../../lib/limits.ts";
import type { Logger } from "../../lib/log.ts";
import { AsyncQueue } from "../../lib/queue.ts";
import type { Random } from "../../lib/random.ts";
import type { Node, Task } from "../../model/types.ts";
import type { Caller, LogBrokerService, LogMessage, LogOptions, LogSubscription } from "../../rpc/services.ts";
import type { Change, Store } from "../../store/store.ts";
import { disconnected, type LogSelector, notAvailable, Subscription, unknownSubscription } from "./subscription.ts";

export interface LogBrokerOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** An agent opens its stream as soon as it hears of a subscription, so one that has not by then will not. */
const answerLimitMs = 15_000;

/** An agent's standing stream. A node has two for a moment when it reconnects: the newer one counts. */
type Listener = AsyncQueue<LogSubscription>;

export class LogBroker implements LogBrokerService {
  readonly #options: LogBrokerOptions;
  readonly #log: Logger;
  readonly #listeners = new Map<string, Listener>();
  readonly #subscriptions = new Map<string, Subscription>();
  #state: "new" | "running" | "stopped" = "new";
  #unwatch: (() => void) | undefined;

  constructor(options: LogBrokerOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "logbroker" });
  }

  start(): void {
    if (this.#state !== "new") return;
    this.#state = "running";
    this.#unwatch = this.#options.store.watch((commit) => {
      for (const change of commit.changes) this.#route(change);
    });
  }

  /** Ends every reader and every agent's stream with Unavailable. */
  stop(): void {
    this.#state = "stopped";
    this.#unwatch?.();
    for (const listener of this.#listeners.values()) listener.fail(notRunning());
    this.#listeners.clear();
    for (const subscription of this.#subscriptions.values()) subscription.end();
  }

  /**
   * Lines of the matching tasks, those of one task in order. Without `follow` it ends by itself, with Unknown and
   * Swarm's warning when a node could not be reached; with it only when `signal` aborts (a plain end).
   * @param isElsewhere whether a node that does not listen here is somebody else's to ask: nothing is said of it
   */
  async *logs(
    selector: LogSelector,
    options: LogOptions,
    signal: AbortSignal,
    isElsewhere: (nodeId: string) => boolean = () => false,
  ): AsyncGenerator<LogMessage, void, void> {
    this.#requireRunning();
    const { random, store, clock } = this.#options;
    const subscription = new Subscription(newId(random), selector, options, store.view, isElsewhere);
    const onAbort = () => subscription.end();
    signal.addEventListener("abort", onAbort, { once: true });
    this.#subscriptions.set(subscription.id, subscription);
    const timer = clock.after(answerLimitMs, () => subscription.giveUpSilent());
    try {
      if (signal.aborted) return;
      for (const nodeId of [...subscription.nodeIds]) this.#tell(nodeId, subscription);
      subscription.endIfComplete();
      yield* subscription.lines();
      if (signal.aborted) return;
      if (this.#stopped()) throw notRunning();
      const warning = subscription.warning();
      if (warning) throw warning;
    } finally {
      signal.removeEventListener("abort", onAbort);
      timer.cancel();
      this.#drop(subscription);
    }
  }

  async *listenSubscriptions(caller: Caller, signal: AbortSignal): AsyncGenerator<LogSubscription, void, void> {
    this.#requireRunning();
    const { nodeId } = caller;
    const listener: Listener = new AsyncQueue(limits.streamBacklog);
    this.#listeners.get(nodeId)?.close();
    this.#listeners.set(nodeId, listener);
    const onAbort = () => listener.close();
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      for (const subscription of this.#subscriptions.values()) {
        if (subscription.awaits(nodeId)) listener.push(subscription.toNode(nodeId));
      }
      yield* listener;
    } finally {
      signal.removeEventListener("abort", onAbort);
      if (this.#listeners.get(nodeId) === listener) this.#hangUp(nodeId);
    }
  }

  async publishLogs(
    caller: Caller,
    subscriptionId: string,
    messages: AsyncIterable<readonly LogMessage[]>,
  ): Promise<void> {
    this.#requireRunning();
    const subscription = this.#subscriptions.get(subscriptionId);
    if (!subscription) throw unknownSubscription();
    try {
      await subscription.publish(caller.nodeId, messages);
    } catch (error) {
      const fields = { node: caller.nodeId, subscription: subscriptionId, error: messageOf(error) };
      this.#log.debug("a node's log stream failed", fields);
      throw error;
    }
  }

  /** Sends the subscription to the node; a node that does not listen cannot be reached. */
  #tell(nodeId: string, subscription: Subscription): void {
    const listener = this.#listeners.get(nodeId);
    if (listener) listener.push(subscription.toNode(nodeId));
    else subscription.nodeDone(nodeId, subscription.isElsewhere(nodeId) ? undefined : notAvailable(nodeId));
  }

  /** The reader has left, or has everything: nodes that still publish are told to stop. */
  #drop(subscription: Subscription): void {
    const told = [...subscription.nodeIds].filter(
      (nodeId) => subscription.options.follow || subscription.awaits(nodeId),
    );
    subscription.end();
    this.#subscriptions.delete(subscription.id);
    for (const nodeId of told) this.#listeners.get(nodeId)?.push(subscription.closing());
  }

  /** The node's stream has ended, or the node is down. */
  #hangUp(nodeId: string): void {
    this.#listeners.get(nodeId)?.close();
    this.#listeners.delete(nodeId);
    for (const subscription of this.#subscriptions.values()) subscription.nodeDone(nodeId, disconnected(nodeId));
  }

  #route(change: Change): void {
    if (change.table === "nodes") this.#routeNode(change.id, change.after);
    if (change.table === "tasks" && this.#subscriptions.size > 0) this.#routeTask(change.before, change.after);
  }

  #routeNode(id: string, after: Node | undefined): void {
    if ((!after || after.Status.State === "down") && this.#listeners.has(id)) this.#hangUp(id);
  }

  /** A follower hears of a node that has just got its first matching task; the node itself sees its later ones. */
  #routeTask(before: Task | undefined, after: Task | undefined): void {
    if (!after?.NodeID || before?.NodeID === after.NodeID) return;
    for (const subscription of this.#subscriptions.values()) {
      if (!subscription.options.follow || !subscription.matches(after)) continue;
      if (subscription.addNode(after.NodeID)) this.#tell(after.NodeID, subscription);
    }
  }

  #requireRunning(): void {
    if (this.#state !== "running") throw notRunning();
  }

  #stopped(): boolean {
    return this.#state === "stopped";
  }
}

function notRunning(): ShoalError {
  return new ShoalError("Unavailable", "log broker is stopped");
}
