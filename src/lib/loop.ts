/**
 * The driver of every control loop. A loop is woken with a key (what to look at, never what happened to it), and runs
 * over the keys that have been woken since; never two runs at once; no retries inside a run: a failure wakes the same
 * keys again after a growing delay. Each loop shows its last run.
 */
import { Backoff } from "./backoff.ts";
import type { Clock, Timer } from "./clock.ts";
import { messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";
import type { Random } from "./random.ts";

export interface LoopReport {
  readonly name: string;
  readonly state: "stopped" | "idle" | "running";
  readonly runs: number;
  readonly failures: number;
  /** Milliseconds since the epoch; 0 before the first run. */
  readonly lastStartedAt: number;
  readonly lastDurationMs: number;
  readonly lastChanges: number;
  readonly lastError: string | undefined;
  readonly waitingKeys: number;
}

export interface RunResult {
  readonly changes: number;
  /** Keys to look at again at once (work that did not fit into this run). */
  readonly again?: Iterable<string>;
  /** Keys to look at again at a time (milliseconds since the epoch). */
  readonly later?: ReadonlyMap<string, number>;
  /** A failure that the run has dealt with itself (it is among `later`), for the report. */
  readonly error?: string | undefined;
}

export interface LoopOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** One run over `keys`. What it throws is logged, and the keys are woken again later. */
  readonly run: (keys: ReadonlySet<string>) => Promise<RunResult>;
  /** All keys there are, woken every `resyncMs`: what a lost wake-up would have left. */
  readonly allKeys: () => Iterable<string>;
  readonly resyncMs: number;
}

const failureBackoff = { baseMs: 100, maxMs: 10_000 };

export class Loop {
  readonly #options: LoopOptions;
  readonly #backoff: Backoff;
  #woken = new Set<string>();
  readonly #timers = new Map<string, { at: number; timer: Timer }>();
  #resync: Timer | undefined;
  #state: "stopped" | "idle" | "running" = "stopped";
  #running: Promise<void> = Promise.resolve();
  #runs = 0;
  #failures = 0;
  #lastStartedAt = 0;
  #lastDurationMs = 0;
  #lastChanges = 0;
  #lastError: string | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#backoff = new Backoff(failureBackoff, options.random);
  }

  /** Starts with all keys woken. */
  start(): void {
    if (this.#state !== "stopped") return;
    this.#state = "idle";
    this.#wakeAll();
  }

  /** Ends the loop; resolves when the run under way has finished. */
  async stop(): Promise<void> {
    this.#state = "stopped";
    this.#resync?.cancel();
    for (const { timer } of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    this.#woken.clear();
    await this.#running;
  }

  wake(key: string): void {
    if (this.#state === "stopped") return;
    this.#woken.add(key);
    if (this.#state === "idle") {
      this.#state = "running";
      // After the end of a run that `stop` has cut off, if the loop was started again before that.
      this.#running = this.#running.then(() => this.#runUntilIdle());
    }
  }

  /** Wakes `key` at a time (milliseconds since the epoch); an earlier wake that was set stays. */
  wakeAt(key: string, at: number): void {
    if (this.#state === "stopped") return;
    const set = this.#timers.get(key);
    if (set && set.at <= at) return;
    set?.timer.cancel();
    const timer = this.#options.clock.after(at - this.#options.clock.now(), () => {
      this.#timers.delete(key);
      this.wake(key);
    });
    this.#timers.set(key, { at, timer });
  }

  report(): LoopReport {
    return {
      name: this.#options.name,
      state: this.#state,
      runs: this.#runs,
      failures: this.#failures,
      lastStartedAt: this.#lastStartedAt,
      lastDurationMs: this.#lastDurationMs,
      lastChanges: this.#lastChanges,
      lastError: this.#lastError,
      waitingKeys: this.#woken.size,
    };
  }

  #wakeAll(): void {
    this.#resync = this.#options.clock.after(this.#options.resyncMs, () => this.#wakeAll());
    for (const key of this.#options.allKeys()) this.wake(key);
  }

  async #runUntilIdle(): Promise<void> {
    // `wake` has come here by a resolved promise: what is woken in the same turn is looked at in one run.
    while (this.#woken.size > 0 && this.#state !== "stopped") {
      const keys = this.#woken;
      this.#woken = new Set();
      await this.#runOnce(keys);
    }
    if (this.#state === "running") this.#state = "idle";
  }

  async #runOnce(keys: ReadonlySet<string>): Promise<void> {
    const { clock, log, name, run } = this.#options;
    this.#runs++;
    this.#lastStartedAt = clock.now();
    try {
      const result = await run(keys);
      this.#lastChanges = result.changes;
      this.#lastError = result.error;
      if (result.error !== undefined) this.#failures++;
      this.#backoff.reset();
      if (this.#stopped()) return;
      for (const key of result.again ?? []) this.#woken.add(key);
      for (const [key, at] of result.later ?? []) this.wakeAt(key, at);
    } catch (error) {
      this.#failures++;
      this.#lastError = messageOf(error);
      if (!this.#stopped()) {
        log.error(`${name} loop failed`, { error: messageOf(error) });
        const at = clock.now() + this.#backoff.nextMs();
        for (const key of keys) this.wakeAt(key, at);
      }
    }
    this.#lastDurationMs = clock.now() - this.#lastStartedAt;
  }

  #stopped(): boolean {
    return this.#state === "stopped";
  }
}
