/**
 * The log broker: brings the lines of tasks from this manager's nodes to whoever asks for them (`reader.ts`, of this or
 * another manager). A question makes a subscription; the agents of its nodes hear of it on their standing stream, and
 * publish.
 *
 * Invariants: a question that does not follow ends once every node of it has said everything or cannot be reached
 * (which is told as a warning, after the lines), and never waits for a node that is down; one that follows stays until
 * its reader leaves.
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import { limits } from "../../lib/limits.ts";
import type { Logger } from "../../lib/log.ts";
import { AsyncQueue } from "../../lib/queue.ts";
import type { Random } from "../../lib/random.ts";
import type { Node } from "../../model/types.ts";
import type { LogsRequest } from "../../rpc/peers.ts";
import type { Caller, LogBrokerService, LogMessage, LogSubscription } from "../../rpc/services.ts";
import type { Change, Store } from "../../store/store.ts";
import { disconnected, notAvailable, Subscription, unknownSubscription } from "./subscription.ts";

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
   * Lines of the matching tasks on those nodes, those of one task in order. Without `follow` it ends by itself, with
   * Unknown and Swarm's warning when a node could not be reached; with it only when `signal` aborts (a plain end).
   */
  async *logs(request: LogsRequest, signal: AbortSignal): AsyncGenerator<LogMessage, void, void> {
    this.#requireRunning();
    const { random, store, clock } = this.#options;
    const subscription = new Subscription(newId(random), request, store.view);
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
        if (subscription.awaits(nodeId)) listener.push(subscription.toNode(nodeId, this.#options.clock.now()));
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
    const subscription = this.#subscriptions.get(subscriptionId.split(".")[0]!);
    if (!subscription) throw unknownSubscription();
    try {
      await subscription.publish(caller.nodeId, subscriptionId, messages);
    } catch (error) {
      const fields = { node: caller.nodeId, subscription: subscriptionId, error: messageOf(error) };
      this.#log.debug("a node's log stream failed", fields);
      throw error;
    }
  }

  /** Sends the subscription to the node; a node that does not listen cannot be reached. */
  #tell(nodeId: string, subscription: Subscription): void {
    const listener = this.#listeners.get(nodeId);
    if (listener) listener.push(subscription.toNode(nodeId, this.#options.clock.now()));
    else subscription.nodeDone(nodeId, notAvailable(nodeId));
  }

  /** The reader has left, or has everything: nodes that still publish are told to stop. */
  #drop(subscription: Subscription): void {
    const told = [...subscription.nodeIds].filter((nodeId) => subscription.follows || subscription.awaits(nodeId));
    subscription.end();
    this.#subscriptions.delete(subscription.id);
    for (const nodeId of told) this.#listeners.get(nodeId)?.push(subscription.closing(nodeId));
  }

  /** The node's stream has ended, or the node is down. */
  #hangUp(nodeId: string): void {
    this.#listeners.get(nodeId)?.close();
    this.#listeners.delete(nodeId);
    for (const subscription of this.#subscriptions.values()) subscription.nodeDone(nodeId, disconnected(nodeId));
  }

  #route(change: Change): void {
    if (change.table === "nodes") this.#routeNode(change.id, change.after);
  }

  #routeNode(id: string, after: Node | undefined): void {
    if ((!after || after.Status.State === "down") && this.#listeners.has(id)) this.#hangUp(id);
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
