/**
 * Follows what the managers tell of this node's networks: hands each message to the data plane, and tells the manager
 * how far the kernel has got.
 *
 * Invariant: what is acknowledged has been applied. After a failure the whole state is asked for anew. None of this ends
 * a session: tasks run on with the networks as they are, and a manager without networks (Swarm's) is as good as before.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, sleep } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { NetworkPlane } from "../network/plane.ts";
import type { ManagerConnection } from "../rpc/services.ts";

/** From a stream that was cut to a program that is missing for the day. */
const retry = { baseMs: 100, maxMs: 10_000 };

export interface NetworkFollowerOptions {
  readonly plane: NetworkPlane;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class NetworkFollower {
  readonly #options: NetworkFollowerOptions;
  /** The last trouble that was told: the same again is no news. */
  #trouble = "";

  constructor(options: NetworkFollowerOptions) {
    this.#options = options;
  }

  /** In a session, until the signal aborts; then it rejects with its reason. */
  async run(connection: ManagerConnection, sessionId: string, signal: AbortSignal): Promise<never> {
    const { clock, random, log } = this.#options;
    const backoff = new Backoff(retry, random);
    for (;;) {
      try {
        await this.#follow(connection, sessionId, signal, () => this.#mended(backoff));
        throw new ShoalError("Unavailable", "the manager ended the stream");
      } catch (error) {
        signal.throwIfAborted();
        if (isShoalError(error, "Unimplemented")) {
          log.debug("the manager has no networks of ours", { error: messageOf(error) });
          return await forever(signal);
        }
        this.#tell(messageOf(error));
      }
      await sleep(clock, backoff.nextMs(), signal);
    }
  }

  /** One stream, from its complete message on. @param applied called after each message */
  async #follow(
    connection: ManagerConnection,
    sessionId: string,
    signal: AbortSignal,
    applied: () => void,
  ): Promise<void> {
    const { plane } = this.#options;
    const dataPath = await plane.describe();
    const end = new AbortController();
    const lifetime = AbortSignal.any([signal, end.signal]);
    const acknowledgements = new Acknowledgements(
      (revision) => connection.applied(sessionId, revision, lifetime),
      (error) => end.abort(error),
    );
    try {
      for await (const message of connection.networks(sessionId, dataPath, lifetime)) {
        await plane.apply(message);
        acknowledgements.add(message.revision);
        applied();
      }
    } catch (error) {
      throw isShoalError(error, "Canceled") && end.signal.aborted ? end.signal.reason : error;
    } finally {
      end.abort(new ShoalError("Canceled", "the stream has ended"));
    }
  }

  #mended(backoff: Backoff): void {
    backoff.reset();
    if (this.#trouble !== "") this.#options.log.info("the node's networks are as the managers want them again");
    this.#trouble = "";
  }

  #tell(trouble: string): void {
    if (trouble === this.#trouble) return;
    this.#trouble = trouble;
    this.#options.log.warn("the node's networks are not as the managers want them", { error: trouble });
  }
}

/** One call at a time, each with the newest revision: the next message is not held up by the answer to the last one. */
class Acknowledgements {
  readonly #send: (revision: number) => Promise<void>;
  readonly #onFailure: (error: unknown) => void;
  #newest = 0;
  #sent = 0;
  #sending = false;

  constructor(send: (revision: number) => Promise<void>, onFailure: (error: unknown) => void) {
    this.#send = send;
    this.#onFailure = onFailure;
  }

  add(revision: number): void {
    this.#newest = revision;
    if (!this.#sending) void this.#run();
  }

  async #run(): Promise<void> {
    this.#sending = true;
    try {
      while (this.#sent < this.#newest) {
        const revision = this.#newest;
        await this.#send(revision);
        this.#sent = revision;
      }
    } catch (error) {
      this.#onFailure(error);
    }
    this.#sending = false;
  }
}

function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
