/**
 * A clock that only moves when it is told to, for tests. Timers run in the order of their times (those of one time in
 * the order in which they were set), each at exactly its own time.
 */
import type { Clock, Timer } from "./clock.ts";

interface Waiting {
  readonly at: number;
  readonly run: () => void;
}

export class FakeClock implements Clock {
  #now: number;
  readonly #waiting = new Set<Waiting>();

  /** @param startAt milliseconds since the epoch that the clock shows at first */
  constructor(startAt = Date.UTC(2026, 0, 1)) {
    this.#now = startAt;
  }

  now(): number {
    return this.#now;
  }

  after(delayMs: number, run: () => void): Timer {
    const waiting = { at: this.#now + Math.max(0, delayMs), run };
    this.#waiting.add(waiting);
    return { cancel: () => void this.#waiting.delete(waiting) };
  }

  /** How many timers are set. */
  get timers(): number {
    return this.#waiting.size;
  }

  /**
   * Moves on by `byMs`, running what falls due on the way, also what those runs set. Promises settle before each
   * timer, and before it resolves.
   */
  async advance(byMs: number): Promise<void> {
    const end = this.#now + byMs;
    await settled();
    for (let next = this.#next(end); next; next = this.#next(end)) {
      this.#waiting.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
      await settled();
    }
    this.#now = end;
  }

  /** Time passes in which nothing runs, as for a process that is held up: what fell due then runs late. */
  stall(byMs: number): void {
    this.#now += byMs;
  }

  #next(end: number): Waiting | undefined {
    let next: Waiting | undefined;
    for (const waiting of this.#waiting) if (waiting.at <= end && (!next || waiting.at < next.at)) next = waiting;
    return next;
  }
}

/** Resolves when every promise that can settle without a timer or I/O has. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
