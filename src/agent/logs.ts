/**
 * Service logs, this node's part: for each subscription of a manager, the logs of the matching tasks, in one
 * PublishLogs stream. A following subscription takes in tasks that start later, from their first line on (`tail` is for
 * those that are there), and ends when the manager closes it (or the session ends).
 *
 * Invariant: no line is published twice under one subscription id, also when the manager hands the subscription out
 * again to a new session: each task's log is resumed after the last line that the stream before got rid of. What was on
 * its way when the connection broke is lost that way, if the manager is Swarm's; ours know what has come, and ask for the
 * rest under another id.
 */
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { AssignedTask } from "../model/types.ts";
import type { LogMessage, LogOptions, LogSubscription, ManagerConnection } from "../rpc/services.ts";
import type { Executor } from "./executor/executor.ts";
import { LogChannel } from "./log-channel.ts";
import type { TaskRunner } from "./task.ts";
import type { Worker } from "./worker.ts";

/** Subscriptions whose place in the logs is remembered over a reconnect; one is one `docker service logs -f`. */
const rememberedSubscriptions = 100;

/** Task id to the time of the last line that was published of it. */
type Positions = Map<string, string>;

export interface LogSubscriptionsOptions {
  readonly worker: Worker;
  readonly executor: Executor;
  readonly log: Logger;
}

export class LogSubscriptions {
  readonly #options: LogSubscriptionsOptions;
  readonly #positions = new Map<string, Positions>();

  constructor(options: LogSubscriptionsOptions) {
    this.#options = options;
  }

  /** Serves the subscriptions of one connection until its stream ends; what it throws is the stream's failure. */
  async serve(connection: ManagerConnection, signal: AbortSignal): Promise<void> {
    const end = new AbortController();
    const running = new Map<string, AbortController>();
    try {
      for await (const subscription of connection.listenSubscriptions(signal)) {
        const { id } = subscription;
        if (subscription.close) {
          running.get(id)?.abort(new ShoalError("Canceled", "the subscription was closed"));
          this.#positions.delete(id);
        } else if (!running.has(id)) {
          const closed = new AbortController();
          running.set(id, closed);
          const session = AbortSignal.any([signal, end.signal]);
          void this.#publish(connection, subscription, session, closed).finally(() => running.delete(id));
        }
      }
    } finally {
      end.abort(new ShoalError("Canceled", "the session has ended"));
    }
  }

  /** Never rejects: a subscription that fails is the reader's loss, not the session's. */
  async #publish(
    connection: ManagerConnection,
    subscription: LogSubscription,
    session: AbortSignal,
    closed: AbortController,
  ): Promise<void> {
    const lifetime = AbortSignal.any([session, closed.signal]);
    const channel = new LogChannel(lifetime);
    const reading = this.#readAll(subscription, channel, lifetime)
      .catch((error) => this.#note("reading logs failed", subscription, error))
      .finally(() => channel.close());
    try {
      // With the session's signal alone: a closed subscription ends by the proper end of its stream.
      await connection.publishLogs(subscription.id, this.#counted(subscription.id, channel, session), session);
    } catch (error) {
      this.#note("publishing logs failed", subscription, error);
    } finally {
      closed.abort(new ShoalError("Canceled", "nobody reads these logs any more"));
      await reading;
    }
  }

  /** What the stream takes; it counts as published when the stream comes for the next. */
  async *#counted(subscriptionId: string, batches: AsyncIterable<readonly LogMessage[]>, session: AbortSignal) {
    const positions = this.#positionsOf(subscriptionId);
    for await (const batch of batches) {
      yield batch;
      if (session.aborted) return;
      for (const { context, timestamp, unreadable } of batch) {
        if (!unreadable) positions.set(context.taskId, timestamp);
      }
    }
  }

  #note(text: string, { id }: LogSubscription, error: unknown): void {
    if (!isShoalError(error, "Canceled")) this.#options.log.debug(text, { subscription: id, error: messageOf(error) });
  }

  async #readAll(subscription: LogSubscription, channel: LogChannel, signal: AbortSignal): Promise<void> {
    const { worker } = this.#options;
    const positions = this.#positionsOf(subscription.id);
    const reading = new Map<string, Promise<void>>();
    const consider = (runner: TaskRunner | undefined, options: LogOptions) => {
      if (!runner || reading.has(runner.taskId) || !matches(subscription, runner) || !readable(runner)) return;
      reading.set(runner.taskId, this.#read(runner, options, positions, channel, signal));
    };
    const { options } = subscription;
    // Whatever a task writes that begins only now is new.
    const later = { ...options, tail: undefined };
    // Watched before they are looked at, so that none falls in between.
    const unwatch = options.follow ? worker.watch((taskId) => consider(worker.task(taskId), later)) : undefined;
    try {
      for (const runner of worker.tasks()) consider(runner, options);
      if (options.follow) await aborted(signal);
      await Promise.all(reading.values());
    } finally {
      unwatch?.();
    }
  }

  /** Never rejects: a log that can't be read (its driver doesn't keep one) says so, and leaves the others alone. */
  async #read(
    runner: TaskRunner,
    options: LogOptions,
    positions: Positions,
    channel: LogChannel,
    signal: AbortSignal,
  ): Promise<void> {
    const { task, taskId, observed } = runner;
    if (!task) return;
    const from = positions.get(taskId);
    const follow = options.follow && observed?.kind === "running";
    const request = from === undefined ? { ...options, follow } : { ...options, follow, since: from, tail: undefined };
    try {
      for await (const batch of this.#options.executor.logs(task, request, signal)) {
        const fresh = from === undefined ? batch : batch.filter(({ timestamp }) => timestamp > from);
        if (fresh.length > 0) await channel.push(fresh);
      }
    } catch (error) {
      if (isShoalError(error, "Canceled") || signal.aborted) return;
      this.#options.log.warn("reading a task's log failed", { task: taskId, error: messageOf(error) });
      // The container has been removed meanwhile; or its Engine has gone, which a follower may outlast.
      if (isShoalError(error, "NotFound") || (options.follow && isShoalError(error, "Unavailable"))) return;
      await channel.push([unreadable(task, runner.status.Timestamp, messageOf(error))]).catch(() => undefined); // or nobody reads any more
    }
  }

  #positionsOf(subscriptionId: string): Positions {
    const positions = this.#positions.get(subscriptionId) ?? new Map<string, string>();
    this.#positions.delete(subscriptionId); // so that the one in use is the newest
    this.#positions.set(subscriptionId, positions);
    const oldest = this.#positions.keys().next().value;
    if (this.#positions.size > rememberedSubscriptions && oldest !== undefined) this.#positions.delete(oldest);
    return positions;
  }
}

/** @param timestamp any: a stock manager, which skips the message, stumbles over one without */
function unreadable({ ServiceID, NodeID, ID }: AssignedTask, timestamp: string, why: string): LogMessage {
  const context = { serviceId: ServiceID, nodeId: NodeID, taskId: ID };
  return { context, timestamp, stream: "stderr", data: Buffer.from(why), attributes: {}, unreadable: true };
}

function matches({ selector }: LogSubscription, { taskId, task }: TaskRunner): boolean {
  return (
    selector.taskIds.includes(taskId) ||
    selector.serviceIds.includes(task?.ServiceID ?? "") ||
    selector.nodeIds.includes(task?.NodeID ?? "")
  );
}

/** It has, or had, something that writes a log. */
function readable({ observed }: TaskRunner): boolean {
  return observed?.kind === "running" || observed?.kind === "exited";
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
