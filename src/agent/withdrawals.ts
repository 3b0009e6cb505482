/**
 * The end of tasks' part in their networks, before they are stopped: first nobody on any node is led to them any more,
 * then what is connected comes to its end. Both are bounded: a stop is never refused, and never waits for long.
 *
 * Tasks that stop in the same moment are one call to the manager.
 */
import { type Clock, within } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { AssignedTask } from "../model/types.ts";
import type { NetworkPlane } from "../network/plane.ts";

/** A node that is cut off is not waited for by managers either. */
const withdrawWithinMs = 2_000;
/** For the requests under way; a connection that is kept open for more is the task's to end, on its stop signal. */
const drainWithinMs = 2_000;
/** The Engine's, where the task has none of its own. */
const graceNanoseconds = 10e9;

export interface WithdrawalsOptions {
  readonly plane: NetworkPlane;
  /** Resolves when no node leads anybody to these tasks; rejects where no manager can be asked. */
  readonly withdraw: (taskIds: readonly string[], signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Withdrawals {
  readonly #options: WithdrawalsOptions;
  /** Tasks of the call that is about to be made. */
  #next: { readonly taskIds: string[]; readonly done: Promise<boolean> } | undefined;

  constructor(options: WithdrawalsOptions) {
    this.#options = options;
  }

  /** Resolves when the task may be stopped: at the latest after four seconds, at once on the signal. Never rejects. */
  async withdraw(task: AssignedTask, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await Promise.race([this.#orderly(task, signal), aborted(signal)]);
  }

  async #orderly(task: AssignedTask, signal: AbortSignal): Promise<void> {
    if (!(await this.#join(task.ID)) || signal.aborted) return;
    const { plane, clock, log } = this.#options;
    const grace = task.Spec.ContainerSpec?.StopGracePeriod ?? graceNanoseconds;
    const limitMs = Math.min(drainWithinMs, grace / 1e6);
    try {
      await within(clock, limitMs, plane.drained(task, limitMs), () => undefined);
    } catch (error) {
      log.warn("a task's connections can't be seen, it is stopped", { task: task.ID, error: messageOf(error) });
    }
  }

  /** The call that this turn's tasks share; whether nobody is led to them any more. */
  #join(taskId: string): Promise<boolean> {
    if (!this.#next) {
      const taskIds: string[] = [];
      this.#next = { taskIds, done: this.#call(taskIds) };
    }
    this.#next.taskIds.push(taskId);
    return this.#next.done;
  }

  async #call(taskIds: readonly string[]): Promise<boolean> {
    await Promise.resolve(); // whoever else stops in this turn is in it too
    this.#next = undefined;
    const { withdraw, clock, log } = this.#options;
    const limit = new AbortController();
    try {
      return await within(
        clock,
        withdrawWithinMs,
        withdraw(taskIds, limit.signal).then(() => true),
        () => {
          log.warn("other nodes may still lead to tasks that are stopped now: no answer in time", { tasks: taskIds });
          return false;
        },
      );
    } catch (error) {
      const context = { tasks: taskIds, error: messageOf(error) };
      log.info("other nodes may still lead to tasks that are stopped now: no manager can be asked", context);
      return false;
    } finally {
      limit.abort();
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
