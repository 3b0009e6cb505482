/**
 * One read for all who ask for it at the same time. Who asks while one is under way may have to see what that one no
 * longer does, and waits for the one after it.
 */
export class SharedRead<T> {
  readonly #read: () => Promise<T>;
  #reading: { readonly running: Promise<T>; next: Promise<T> | undefined } | undefined;

  constructor(read: () => Promise<T>) {
    this.#read = read;
  }

  /** The result of a read that begins after this call. */
  read(): Promise<T> {
    if (!this.#reading) {
      const running = this.#read();
      const reading = { running, next: undefined };
      this.#reading = reading;
      const done = () => {
        if (this.#reading === reading) this.#reading = undefined;
      };
      running.then(done, done);
      return running;
    }
    const { running } = this.#reading;
    const again = () => {
      this.#reading = undefined;
      return this.read();
    };
    this.#reading.next ??= running.then(again, again);
    return this.#reading.next;
  }
}
