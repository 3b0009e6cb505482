/**
 * Keeps the node's certificate fresh: at its time (50-80 % of its life), and soon after a manager asks for it. One
 * renewal at a time; a failed one is tried again with delays up to an hour.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, sleep } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { TLSInfo } from "../model/types.ts";
import type { ManagerConnection, NodeIdentity } from "../rpc/services.ts";

/** What the agent needs of the certificates' side (src/ca), handed in by the daemon. */
export interface Certificates {
  /** Root and issuer, as managers want them in the node's description. */
  tlsInfo(identity: NodeIdentity): TLSInfo;
  /** When the certificate is to be renewed: milliseconds since the epoch. */
  renewAt(identity: NodeIdentity): number;
  /** A new certificate over the present connection; the caller keeps it. */
  renew(connection: ManagerConnection, identity: NodeIdentity, signal: AbortSignal): Promise<NodeIdentity>;
}

const retry = { baseMs: 5000, maxMs: 3_600_000 };

/** A change that asks for a renewal is often followed by another at once (role and certificate). */
const urgentAfterMs = 500;

/** A manager that keeps asking gets a renewal this often at most. */
const urgentEveryMs = 5000;

export interface RenewalOptions {
  readonly certificates: Certificates;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class Renewal {
  readonly #options: RenewalOptions;
  readonly #backoff: Backoff;
  #urgent = false;
  #hurry: (() => void) | undefined;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#backoff = new Backoff(retry, options.random);
  }

  /** A manager wants the certificate renewed now. */
  hurry(): void {
    this.#urgent = true;
    this.#hurry?.();
  }

  /** Waits until a renewal is due, then makes it; tries until it works or the signal aborts. */
  async next(connection: ManagerConnection, identity: NodeIdentity, signal: AbortSignal): Promise<NodeIdentity> {
    const { certificates, clock, log } = this.#options;
    await this.#due(certificates.renewAt(identity), signal);
    for (;;) {
      try {
        const renewed = await certificates.renew(connection, identity, signal);
        this.#urgent = false;
        this.#backoff.reset();
        return renewed;
      } catch (error) {
        signal.throwIfAborted();
        log.warn("renewing the node's certificate failed", { error: messageOf(error) });
        await sleep(clock, urgentEveryMs + this.#backoff.nextMs(), signal);
      }
    }
  }

  async #due(at: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    if (!this.#urgent) {
      const waiting = new AbortController();
      const hurried = new Promise<void>((resolve) => {
        this.#hurry = resolve;
      });
      try {
        await Promise.race([sleep(clock, at - clock.now(), AbortSignal.any([signal, waiting.signal])), hurried]);
      } finally {
        this.#hurry = undefined;
        waiting.abort(new ShoalError("Canceled", "no longer waiting"));
      }
    }
    if (this.#urgent) await sleep(clock, urgentAfterMs, signal);
  }
}
