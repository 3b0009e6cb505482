/**
 * The manager that the session is with, for calls that belong to no session: they may come between two, or may be cut off
 * by the end of one. Such a call waits for the next session and is made again, so whoever makes it must be able to bear
 * that it has been heard twice.
 */
import { isShoalError, ShoalError } from "../lib/errors.ts";
import type { ManagerConnection } from "../rpc/services.ts";

export class PresentManager {
  #connection: ManagerConnection | undefined;
  readonly #waiting = new Set<() => void>();

  /** Undefined while there is no session. */
  get connection(): ManagerConnection | undefined {
    return this.#connection;
  }

  /** A session is open (or none any more). */
  set(connection: ManagerConnection | undefined): void {
    this.#connection = connection;
    if (connection) for (const tell of [...this.#waiting]) tell();
  }

  /**
   * Calls the manager of this session, else those of the next ones, until one has answered.
   * @throws what a manager answers, if it is not that it can't be reached; Unavailable when the signal aborts before
   */
  async call<T>(make: (connection: ManagerConnection) => Promise<T>, signal: AbortSignal): Promise<T> {
    let asked: ManagerConnection | undefined;
    for (;;) {
      const connection = await this.#other(asked, signal);
      try {
        return await make(connection);
      } catch (error) {
        const cutOff = isShoalError(error, "Unavailable") || isShoalError(error, "Canceled");
        if (!cutOff || signal.aborted) throw error;
        asked = connection;
      }
    }
  }

  /** A connection that is not `asked`, as soon as there is one. */
  #other(asked: ManagerConnection | undefined, signal: AbortSignal): Promise<ManagerConnection> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!this.#connection || this.#connection === asked) return;
        signal.removeEventListener("abort", onAbort);
        this.#waiting.delete(look);
        resolve(this.#connection);
      };
      const onAbort = () => {
        this.#waiting.delete(look);
        reject(new ShoalError("Unavailable", "this node has no connection to a manager", { cause: signal.reason }));
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(look);
      look();
    });
  }
}
