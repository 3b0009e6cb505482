/**
 * Brings the tasks' statuses to a manager: the newest of each task, many in one call, one call at a time, and again
 * until it has been accepted. No delay is added: what comes while a call is under way goes with the next one.
 *
 * Invariant: after the last `report` of a task, that status is what the manager accepts last (unless it refuses it).
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, sleep } from "../lib/clock.ts";
import { isShoalError, messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { TaskStatus } from "../model/types.ts";
import type { TaskStatusUpdate } from "../rpc/services.ts";

/** Sends to the manager of the present session. */
export type SendStatuses = (updates: readonly TaskStatusUpdate[], signal: AbortSignal) => Promise<void>;

/** A manager takes 4 MiB in one message; a status is some 300 bytes, its error text at the very most 2 KiB. */
const updatesPerCall = 1000;

const retry = { baseMs: 50, maxMs: 5000 };

export class StatusReporter {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #backoff: Backoff;
  readonly #pending = new Map<string, TaskStatus>();
  #wake: (() => void) | undefined;

  constructor(clock: Clock, random: Random, log: Logger) {
    this.#clock = clock;
    this.#log = log;
    this.#backoff = new Backoff(retry, random);
  }

  /** Statuses that no manager has accepted yet. */
  get waiting(): number {
    return this.#pending.size;
  }

  report(taskId: string, status: TaskStatus): void {
    this.#pending.set(taskId, status);
    this.#wake?.();
  }

  /** The task is gone from this node: nobody wants its status any more. */
  forget(taskId: string): void {
    this.#pending.delete(taskId);
  }

  /**
   * Reports over one session until its signal aborts.
   * @throws what `send` throws when the session itself is refused; everything else is tried again
   */
  async run(send: SendStatuses, signal: AbortSignal): Promise<never> {
    this.#backoff.reset();
    for (;;) {
      await this.#something(signal);
      await Promise.resolve(); // states that a task walks through in one turn are one report
      const batch = [...this.#pending].slice(0, updatesPerCall).map(([taskId, status]) => ({ taskId, status }));
      try {
        await this.#send(send, batch, signal);
        this.#backoff.reset();
      } catch (error) {
        signal.throwIfAborted();
        if (isShoalError(error, "InvalidArgument") || isShoalError(error, "NotFound")) throw error;
        this.#log.debug("reporting task statuses failed", { error: messageOf(error) });
        await sleep(this.#clock, this.#backoff.nextMs(), signal);
      }
    }
  }

  async #send(send: SendStatuses, batch: readonly TaskStatusUpdate[], signal: AbortSignal): Promise<void> {
    try {
      await send(batch, signal);
    } catch (error) {
      if (!isShoalError(error, "PermissionDenied")) throw error;
      // The whole call is refused for one task that is not (or no longer) ours: find it, and leave it out.
      if (batch.length > 1) {
        for (const update of batch) await this.#send(send, [update], signal);
        return;
      }
      this.#log.warn("the manager refuses a task's status", { task: batch[0]?.taskId, error: messageOf(error) });
    }
    for (const { taskId, status } of batch) {
      if (this.#pending.get(taskId) === status) this.#pending.delete(taskId); // unless there is a newer one
    }
  }

  #something(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#pending.size > 0) return resolve();
      const onAbort = () => {
        this.#wake = undefined;
        reject(signal.reason);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#wake = () => {
        this.#wake = undefined;
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
    });
  }
}
