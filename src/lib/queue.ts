/**
 * An async queue between one producer and one consumer: `push` never waits, `for await` takes items in order.
 * It has a limit: a consumer that falls behind by more ends with an error rather than filling the memory.
 */
import { ShoalError } from "./errors.ts";

export class AsyncQueue<T> implements AsyncIterable<T> {
  #items: T[] = [];
  #wake: (() => void) | undefined;
  #state: { kind: "open" } | { kind: "closed" } | { kind: "failed"; error: unknown } = { kind: "open" };
  readonly #limit: number;

  /** @param limit most items that may wait; one more fails the queue with ResourceExhausted */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** False when the queue has ended (the item is dropped). */
  push(item: T): boolean {
    if (this.#state.kind !== "open") return false;
    if (this.#items.length >= this.#limit) {
      this.fail(new ShoalError("ResourceExhausted", `more than ${this.#limit} items wait for a slow reader`));
      return false;
    }
    this.#items.push(item);
    this.#wake?.();
    return true;
  }

  /** What waits is still delivered, then the iteration ends. */
  close(): void {
    if (this.#state.kind === "open") this.#state = { kind: "closed" };
    this.#wake?.();
  }

  /** What waits is dropped; the iteration throws `error`. */
  fail(error: unknown): void {
    if (this.#state.kind === "open") {
      this.#state = { kind: "failed", error };
      this.#items = [];
    }
    this.#wake?.();
  }

  get ended(): boolean {
    return this.#state.kind !== "open";
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        while (this.#items.length > 0) {
          const batch = this.#items;
          this.#items = [];
          yield* batch;
        }
        if (this.#state.kind === "failed") throw this.#state.error;
        if (this.#state.kind === "closed") return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      this.close(); // a consumer that leaves early ends the queue, so that pushes stop piling up
    }
  }
}
