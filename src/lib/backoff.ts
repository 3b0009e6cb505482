/** Growing, jittered delays between tries. */
import type { Random } from "./random.ts";

export interface BackoffOptions {
  readonly baseMs: number;
  readonly maxMs: number;
  /** What the delay is multiplied by at each failure (default 2). */
  readonly factor?: number;
}

/** Each `nextMs` is random in [0, ceiling), and the ceiling grows from base to max; `reset` after a success. */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: Random;
  #ceilingMs: number;

  constructor(options: BackoffOptions, random: Random) {
    this.#options = options;
    this.#random = random;
    this.#ceilingMs = options.baseMs;
  }

  nextMs(): number {
    const delayMs = this.#random.float() * this.#ceilingMs;
    this.#ceilingMs = Math.min(
      this.#options.baseMs + this.#ceilingMs * (this.#options.factor ?? 2),
      this.#options.maxMs,
    );
    return delayMs;
  }

  reset(): void {
    this.#ceilingMs = this.#options.baseMs;
  }
}
