/**
 * Log lines between the nodes that publish them and the one client that reads them. Bounded: a publisher waits until
 * the client has taken what is there, so a client that does not read stops the nodes, not the manager.
 */
import type { LogMessage } from "../../rpc/services.ts";

/** What may wait for the client: enough to keep several publishers busy. A batch that is larger passes by itself. */
const bufferedBytes = 1024 * 1024;
/** Counted for each line on top of its text, so that empty lines are bounded, too. */
const overheadBytes = 100;

export class LogBuffer {
  #batches: (readonly LogMessage[])[] = [];
  #bytes = 0;
  #closed = false;
  #readable: (() => void) | undefined;
  #writable: (() => void)[] = [];

  /** Waits for room. False: nobody reads any more. */
  async put(batch: readonly LogMessage[]): Promise<boolean> {
    while (!this.#closed && this.#bytes >= bufferedBytes) {
      await new Promise<void>((resolve) => this.#writable.push(resolve));
    }
    if (this.#closed) return false;
    this.#batches.push(batch);
    for (const message of batch) this.#bytes += message.data.length + overheadBytes;
    this.#readable?.();
    return true;
  }

  /** What is there is still read; nothing more is taken. */
  close(): void {
    this.#closed = true;
    this.#wakeAll();
  }

  async *read(): AsyncGenerator<LogMessage, void, void> {
    for (;;) {
      while (this.#batches.length > 0) {
        const batches = this.#batches;
        this.#batches = [];
        this.#bytes = 0;
        this.#wakeWriters();
        for (const batch of batches) yield* batch;
      }
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        this.#readable = resolve;
      });
      this.#readable = undefined;
    }
  }

  #wakeAll(): void {
    this.#readable?.();
    this.#wakeWriters();
  }

  #wakeWriters(): void {
    const writable = this.#writable;
    this.#writable = [];
    for (const wake of writable) wake();
  }
}
