/**
 * Calls to etcd that need a leader: tried until one answers, for a limited time. Who comes when there has been none for
 * long does not wait as long again.
 */
import type { Clock } from "../../lib/clock.ts";
import { ShoalError } from "../../lib/errors.ts";
import { noLeader, retried } from "./client.ts";

/** How long a call waits before it is asked what became of it: a leader may have died with it. */
export const attemptMs = 1_000;
/** How long a read or write waits for a leader before its caller is told that there is none. */
const noLeaderMs = 5_000;
const pauseMs = 50;

export interface LeadershipOptions {
  readonly clock: Clock;
  /** Ends every wait, with its reason. */
  readonly closed: AbortSignal;
  /** Why this manager's own member cannot run, where that is so. */
  readonly trouble: (() => string | undefined) | undefined;
}

export class Leadership {
  readonly #options: LeadershipOptions;
  /** When the first call began that no leader has answered, if none has since. */
  #missingSince: number | undefined;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  /** Tries `attempt` until there is a leader that answers it. */
  async led<T>(attempt: () => Promise<T>): Promise<T> {
    const { clock, closed } = this.#options;
    const startedAt = clock.now();
    const limitMs = Math.max(attemptMs, (this.#missingSince ?? startedAt) + noLeaderMs - startedAt);
    const answer = await retried(
      clock,
      { limitMs, pauseMs, signal: closed },
      () =>
        attempt().catch((error: unknown) => {
          this.#missingSince ??= startedAt;
          throw error;
        }),
      (last) => this.#unanswered(last),
    );
    this.answered();
    return answer;
  }

  /** A call that was made without `led` was answered by a leader. */
  answered(): void {
    this.#missingSince = undefined;
  }

  /** Or was not, in the time of one attempt. */
  unanswered(): void {
    this.#missingSince ??= this.#options.clock.now() - attemptMs;
  }

  #unanswered(cause: unknown): unknown {
    const { closed, trouble } = this.#options;
    if (closed.aborted) return closed.reason;
    const why = trouble?.();
    if (why === undefined) return noLeader(cause);
    return new ShoalError("Unavailable", `this manager's store cannot run: ${why}`, { cause });
  }
}
