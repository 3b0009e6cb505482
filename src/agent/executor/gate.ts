/** Lets a limited number of operations run at once; the others wait in the order in which they came. */

export class Gate {
  #free: number;
  readonly #waiting = new Set<() => void>();

  /** @param width operations that may run at once */
  constructor(width: number) {
    this.#free = width;
  }

  /**
   * Runs `work` when there is room.
   * @param signal leaves the queue (rejecting with its reason); work that has begun is not disturbed
   */
  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#enter(signal);
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(admit);
        reject(signal.reason);
      };
      const admit = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      this.#waiting.add(admit);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  #leave(): void {
    const next = this.#waiting.values().next().value;
    if (!next) {
      this.#free++;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
