/**
 * Time, handed in. Nothing below `daemon/` reads the wall clock or starts a timer by itself: it is given a Clock,
 * so that the simulation can run the same code under a virtual one.
 */

/** A pending timer. `cancel` is idempotent and never throws. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Calls `run` once, `delayMs` from now (not before the current turn ends, even for 0). */
  after(delayMs: number, run: () => void): Timer;
}

/** The real clock. Timers are real; whoever starts one owns its end. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, run) {
    // setTimeout overflows above 2^31-1 ms and would fire at once: long waits are cut into legs.
    const longestMs = 2 ** 31 - 1;
    let handle: NodeJS.Timeout;
    const arm = (leftMs: number) => {
      const legMs = Math.min(leftMs, longestMs);
      handle = setTimeout(() => (leftMs > legMs ? arm(leftMs - legMs) : run()), legMs);
    };
    arm(Math.max(0, delayMs));
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Resolves after `delayMs`; rejects with the signal's reason as soon as `signal` aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** As `sleep`, but an abort only ends it early: for loops whose own condition ends them. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  await sleep(clock, delayMs, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/** The result of `work`, or `onTimeout()` when it has not settled within `limitMs`; a late result is dropped. */
export function within<T>(clock: Clock, limitMs: number, work: Promise<T>, onTimeout: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(limitMs, () => {
      try {
        resolve(onTimeout());
      } catch (error) {
        reject(error);
      }
    });
    work.then(resolve, reject).finally(() => timer.cancel());
  });
}

/** A time in milliseconds as the Engine API writes it: RFC 3339 in UTC. */
export function rfc3339(ms: number): string {
  return new Date(ms).toISOString();
}

/** Milliseconds of an RFC 3339 time (nanoseconds are cut off); undefined or unreadable text gives 0. */
export function parseRfc3339(text: string | undefined): number {
  if (!text) return 0;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? 0 : ms;
}
