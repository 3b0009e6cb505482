/**
 * Many log readers, one stream: readers push batches and wait when the stream is slow; the stream takes what has come
 * together. It holds a limited number of bytes, so that a fast log and a slow reader don't fill the memory.
 */
import { ShoalError } from "../lib/errors.ts";
import type { LogMessage } from "../rpc/services.ts";

/** Bytes that wait for the stream before readers pause; a manager takes 4 MiB in one message. */
const waitingBytes = 512 * 1024;

export class LogChannel implements AsyncIterable<readonly LogMessage[]> {
  #waiting: LogMessage[] = [];
  #bytes = 0;
  #closed = false;
  #filled: (() => void) | undefined;
  readonly #emptied = new Set<() => void>();

  /** @param signal ends the channel */
  constructor(signal: AbortSignal) {
    if (signal.aborted) this.close();
    else signal.addEventListener("abort", () => this.close(), { once: true });
  }

  /** Resolves when there is room for more; rejects when the stream has ended. */
  async push(batch: readonly LogMessage[]): Promise<void> {
    if (this.#closed) throw new ShoalError("Canceled", "nobody reads these logs any more");
    this.#waiting.push(...batch);
    for (const { data } of batch) this.#bytes += data.length;
    this.#filled?.();
    while (this.#bytes > waitingBytes && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#emptied.add(resolve);
      });
    }
  }

  /** What waits is still delivered, then the stream ends. */
  close(): void {
    this.#closed = true;
    this.#filled?.();
    this.#release();
  }

  #release(): void {
    for (const resolve of this.#emptied) resolve();
    this.#emptied.clear();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<readonly LogMessage[], void, void> {
    try {
      for (;;) {
        if (this.#waiting.length > 0) {
          const batch = this.#waiting;
          this.#waiting = [];
          this.#bytes = 0;
          this.#release();
          yield batch;
        } else if (this.#closed) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#filled = resolve;
          });
          this.#filled = undefined;
        }
      }
    } finally {
      this.close();
    }
  }
}
