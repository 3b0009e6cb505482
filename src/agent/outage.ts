/**
 * For how long nothing on this node has been able to run. What runs tasks may be restarted without anybody's noticing;
 * but a node that can't run anything for long must not keep its tasks from other nodes, and takes no part meanwhile.
 *
 * Differs from Swarm, whose agent is a part of the Engine and dies with it.
 */
import type { Clock, Timer } from "../lib/clock.ts";
import { ShoalError } from "../lib/errors.ts";

/** Since the executor has told of the outage, which is two seconds after its begin: ten in all. */
const longAfterMs = 8_000;

export class Outage {
  readonly #clock: Clock;
  readonly #watchers = new Set<() => void>();
  #problem: string | undefined;
  #timer: Timer | undefined;
  #long = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Why nothing can run, once that has been so for long. */
  get reason(): string | undefined {
    return this.#long ? this.#problem : undefined;
  }

  /** What the executor tells: why nothing can run, or undefined when it can (again). */
  set(problem: string | undefined): void {
    this.#problem = problem;
    if (problem === undefined) this.#end();
    else
      this.#timer ??= this.#clock.after(longAfterMs, () => {
        this.#long = true;
        this.#tell();
      });
  }

  /** Tells nobody anything any more. */
  stop(): void {
    this.#timer?.cancel();
  }

  /** Fails with Unavailable as soon as an outage is long; with the signal's reason when it aborts before. */
  async whileShort(signal: AbortSignal): Promise<never> {
    while (!this.#long) await this.#change(signal);
    throw new ShoalError("Unavailable", this.#problem ?? "");
  }

  /** Resolves when there is no long outage (any more); at the latest when the signal aborts. */
  async end(signal: AbortSignal): Promise<void> {
    while (this.#long && !signal.aborted) {
      await this.#change(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    }
  }

  #end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#long = false;
    this.#tell();
  }

  #tell(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAbort = () => {
        this.#watchers.delete(onChange);
        reject(signal.reason);
      };
      const onChange = () => {
        this.#watchers.delete(onChange);
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      this.#watchers.add(onChange);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
