/**
 * What a server stream waits on. The side that changes things rings, the side that writes asks `take` for the next
 * message: what happens while the reader is busy is coalesced by the source, and nothing queues up for a slow reader.
 */
import type { ShoalError } from "../../lib/errors.ts";

/** Rung once or many times before it is heard: heard once. One waiter. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  async heard(): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#rung = false;
    this.#wake = undefined;
  }
}

/** Where a stream's messages come from. */
export interface Source<T> {
  /** The next message, made of what has happened until now; undefined: nothing to say, the bell will ring. */
  take(): T | undefined;
}

/** The streams of one owner (a session), which end together. */
export class Streams {
  readonly #bells = new Set<Bell>();
  #endedBy: ShoalError | undefined;

  /** Why the streams have ended; undefined while they are open. */
  get endedBy(): ShoalError | undefined {
    return this.#endedBy;
  }

  /** Lets every stream ask its source again. */
  ring(): void {
    for (const bell of this.#bells) bell.ring();
  }

  /** Every stream throws `error` at its next step; the first reason stays. */
  end(error: ShoalError): void {
    this.#endedBy ??= error;
    this.ring();
  }

  /** Messages of `source` until the signal aborts (a plain end) or the owner ends (its error). */
  async *run<T>(source: Source<T>, signal: AbortSignal): AsyncGenerator<T, void, void> {
    const bell = new Bell();
    const onAbort = () => bell.ring();
    this.#bells.add(bell);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        if (this.#endedBy) throw this.#endedBy;
        const message = source.take();
        if (message === undefined) await bell.heard();
        else yield message;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#bells.delete(bell);
    }
  }
}
