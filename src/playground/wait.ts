/** Waiting for a condition, always with a bound. */

import { sleep, systemClock } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";

export interface WaitOptions {
  /** What is waited for, for the error: "the Engine answers". */
  readonly what: string;
  readonly limitMs: number;
  /** Between two looks (default 50). */
  readonly intervalMs?: number;
  /** Added to the error: the tail of a log, say. */
  readonly details?: () => string | Promise<string>;
  /** When it throws, waiting is pointless and ends with that error (the process that should answer has died). */
  readonly giveUp?: () => void;
}

/**
 * Looks until `probe` gives something other than undefined or false, and returns it. A probe that throws counts as
 * "not yet"; its last error is in the message of the DeadlineExceeded that ends the wait.
 */
export async function eventually<T>(
  options: WaitOptions,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const deadline = systemClock.now() + options.limitMs;
  let lastError: unknown;
  for (;;) {
    try {
      const result = await probe();
      if (result !== undefined && result !== false) return result;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    options.giveUp?.();
    if (systemClock.now() >= deadline) break;
    await sleep(systemClock, options.intervalMs ?? 50);
  }
  const cause = lastError === undefined ? "" : `: ${messageOf(lastError)}`;
  const details = await options.details?.();
  throw new ShoalError(
    "DeadlineExceeded",
    `waited ${options.limitMs / 1000} s in vain: ${options.what}${cause}${details ? `\n${details}` : ""}`,
    { cause: lastError },
  );
}
