/**
 * Gets images onto the node. A reference that may have moved (no digest) is pulled for each task, as Swarm does, but:
 *
 * - tasks that want the same reference with the same credentials share one pull;
 * - an image that is on the node is used when the registry refuses or fails, and the failure is remembered for some
 *   minutes; a registry that doesn't answer at all is given a few seconds. Stock Swarm asks for each task anew, and
 *   waits as long as the Engine does.
 */

import type { Engine } from "../../engine/engine.ts";
import { isImageId, parseReference } from "../../engine/reference.ts";
import { type Clock, sleep } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";

/** How long a registry may take to begin to answer, when the image is on the node anyway. */
const answerMs = 3000;

/** How long a failed pull of an image that is on the node is not tried again. */
const failureMs = 5 * 60_000;

/** References whose failure is remembered; each is an image that some service of this node uses. */
const rememberedFailures = 1000;

interface Pull {
  readonly done: Promise<void>;
  /** Resolves when the registry has answered, or the pull has ended. */
  readonly answered: Promise<void>;
  readonly abort: AbortController;
  waiting: number;
}

export class DockerImages {
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #preferOffline: boolean;
  readonly #pulls = new Map<string, Pull>();
  /** Key of a pull to the time until which it is not tried again. */
  readonly #failed = new Map<string, number>();

  /** @param preferOffline an image that is on the node is never pulled (DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1) */
  constructor(engine: Engine, clock: Clock, log: Logger, preferOffline: boolean) {
    this.#engine = engine;
    this.#clock = clock;
    this.#log = log;
    this.#preferOffline = preferOffline;
  }

  /**
   * Resolves when the image is on the node.
   * @throws NotFound "No such image: x" with the pull's error, `Unavailable`, `Canceled`
   */
  async ensure(reference: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    const missing = await this.#missing(reference);
    if (!missing && (this.#preferOffline || isImageId(reference) || parseReference(reference).digest)) return;
    if (missing && isImageId(reference)) throw missing;
    const key = `${reference} ${registryAuth ?? ""}`;
    if (!missing && (this.#failed.get(key) ?? 0) > this.#clock.now()) return;
    try {
      await this.#pull(key, reference, registryAuth, signal, missing ? undefined : answerMs);
      this.#failed.delete(key);
    } catch (error) {
      if (signal.aborted) throw new ShoalError("Canceled", "the pull is no longer wanted", { cause: error });
      if (isShoalError(error, "Unavailable")) throw error;
      if (missing) throw new ShoalError("NotFound", `${missing.message}: ${messageOf(error)}`, { cause: error });
      this.#remember(key, reference, error);
    }
  }

  async #missing(reference: string): Promise<ShoalError | undefined> {
    try {
      await this.#engine.inspectImage(reference);
      return undefined;
    } catch (error) {
      if (!isShoalError(error, "NotFound")) throw error;
      return new ShoalError("NotFound", `No such image: ${fullName(reference)}`, { cause: error });
    }
  }

  #remember(key: string, image: string, error: unknown): void {
    if ((this.#failed.get(key) ?? 0) <= this.#clock.now()) {
      this.#log.warn("pulling image failed, the one on this node is used", { image, error: messageOf(error) });
    }
    this.#failed.delete(key); // so that the newest is last
    this.#failed.set(key, this.#clock.now() + failureMs);
    const oldest = this.#failed.keys().next().value;
    if (this.#failed.size > rememberedFailures && oldest !== undefined) this.#failed.delete(oldest);
  }

  /** Joins the pull under way, or begins one; the last to leave it ends it. */
  async #pull(
    key: string,
    reference: string,
    registryAuth: string | undefined,
    signal: AbortSignal,
    limitMs: number | undefined,
  ): Promise<void> {
    signal.throwIfAborted();
    const pull = this.#pulls.get(key) ?? this.#begin(key, reference, registryAuth);
    pull.waiting++;
    const leave = new AbortController();
    try {
      const left = AbortSignal.any([signal, leave.signal]);
      const gone = new Promise<never>((_, reject) => left.addEventListener("abort", () => reject(left.reason)));
      gone.catch(() => undefined); // nobody may be waiting any more when it comes
      if (limitMs !== undefined) {
        const silent = sleep(this.#clock, limitMs, left).then(() => {
          throw new ShoalError("DeadlineExceeded", `the registry has not answered for ${limitMs / 1000} s`);
        });
        await Promise.race([pull.answered, silent, gone]);
      }
      await Promise.race([pull.done, gone]);
    } finally {
      leave.abort(new ShoalError("Canceled", "done"));
      if (--pull.waiting === 0) this.#end(key, pull);
    }
  }

  #begin(key: string, reference: string, registryAuth: string | undefined): Pull {
    const abort = new AbortController();
    let answer: () => void = () => undefined;
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const run = async () => {
      for await (const _ of this.#engine.pullImage(reference, registryAuth, abort.signal)) answer();
    };
    const pull: Pull = { done: run(), answered, abort, waiting: 0 };
    pull.done.catch(() => undefined).finally(answer); // each waiting task has the failure from `done`
    this.#pulls.set(key, pull);
    return pull;
  }

  #end(key: string, pull: Pull): void {
    if (this.#pulls.get(key) === pull) this.#pulls.delete(key);
    pull.abort.abort(new ShoalError("Canceled", "nobody waits for this image any more"));
  }
}

/** As the Engine names it when a container is made from it: with the tag that it would take. */
function fullName(reference: string): string {
  const { tag, digest } = parseReference(reference);
  return tag || digest || isImageId(reference) ? reference : `${reference}:latest`;
}
