/**
 * A node that follows its networks, for as long as its session lasts. Its streams come and go meanwhile: after a failure
 * it asks for everything anew.
 */
import { ShoalError } from "../../lib/errors.ts";
import type { NetworksMessage } from "../../model/network-state.ts";
import type { Session } from "../dispatcher/session.ts";
import type { NodeStream } from "./node-stream.ts";

export class Follower {
  readonly session: Session;
  /** The present one; between two, the one that has ended. */
  #stream: NodeStream;
  readonly #onStream = new Set<() => void>();

  constructor(session: Session, stream: NodeStream) {
    this.session = session;
    this.#stream = stream;
    const { ended } = session;
    ended.addEventListener("abort", () => this.#end(ended.reason), { once: true });
  }

  get stream(): NodeStream {
    return this.#stream;
  }

  /** The node asks anew: the stream before ends. */
  replace(stream: NodeStream): void {
    this.#stream.end(new ShoalError("Aborted", "the node has asked for its networks anew"));
    this.#stream = stream;
    for (const look of [...this.#onStream]) look();
  }

  /** The messages of a stream of its own, until the signal aborts, or the stream or the session ends. */
  async *messages(stream: NodeStream, signal: AbortSignal): AsyncGenerator<NetworksMessage, void, void> {
    try {
      yield* stream.messages(signal);
    } finally {
      stream.end(new ShoalError("Canceled", "the stream was closed"));
    }
  }

  /** Resolves when the node has done all that has been noted for it until now; also when its session has ended. */
  async caughtUp(): Promise<void> {
    while (!this.session.ended.aborted) {
      const stream = this.#stream;
      if (await stream.caughtUp()) return;
      while (this.#stream === stream && !this.session.ended.aborted) await this.#change();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        this.#onStream.delete(look);
        resolve();
      };
      this.#onStream.add(look);
    });
  }

  #end(error: ShoalError): void {
    this.#stream.end(error);
    for (const look of [...this.#onStream]) look();
  }
}
