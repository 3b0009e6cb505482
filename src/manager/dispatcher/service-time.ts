/**
 * For how long the managers have been in service without a break: whenever in that time, an agent that lived could be
 * with one of them. One that has just started knows it from the others, which tell each other with every ping. Only
 * when all were away at once does it begin anew, as far as each of them can know.
 *
 * Every manager's clock is its own, so what travels is a duration, which the one that hears it counts on.
 */
import type { Clock } from "../../lib/clock.ts";

export class ServiceTime {
  readonly #clock: Clock;
  /** Undefined while this manager itself is not in service: what it hears then, nobody might have gone on with. */
  #since: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Milliseconds. */
  get ms(): number {
    return this.#since === undefined ? 0 : Math.max(0, this.#clock.now() - this.#since);
  }

  /** This manager serves agents from now on. @param beforeMs for how long before that nobody can have missed it */
  begin(beforeMs = 0): void {
    this.#since = this.#clock.now() - beforeMs;
  }

  end(): void {
    this.#since = undefined;
  }

  /** Another manager has said so. Whether this one did not know of so long a time. */
  heard(ms: number): boolean {
    if (this.#since === undefined || ms <= this.ms) return false;
    this.#since = this.#clock.now() - ms;
    return true;
  }
}
