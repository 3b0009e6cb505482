/** `swarm join`: a node's first certificate, from the first of the named managers that gives one. */
import { joinWithToken } from "../ca/join.ts";
import { digestOfToken } from "../ca/tokens.ts";
import { Backoff } from "../lib/backoff.ts";
import { type Clock, sleep } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { SwarmJoinRequest } from "../model/types.ts";
import { bootstrapClient } from "../rpc/client.ts";
import type { NodeIdentity } from "../rpc/services.ts";

export interface EnterOptions {
  readonly request: SwarmJoinRequest;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Whether to go on after a round in which no manager could be reached. */
  readonly keepTrying: () => boolean;
}

const retry = { baseMs: 1_000, maxMs: 30_000 };

/**
 * The node's identity, and the manager that gave it (host:port).
 * Throws as `joinWithToken`; what only says that a manager can't be reached, not while `keepTrying`.
 */
export async function enterSwarm(options: EnterOptions): Promise<{ identity: NodeIdentity; address: string }> {
  const { request, clock, random, log, signal, keepTrying } = options;
  const { RemoteAddrs = [], JoinToken: token = "", Availability } = request;
  const availability = Availability || "active"; // docker sends "" where the user says nothing
  digestOfToken(token);
  const backoff = new Backoff(retry, random);
  for (;;) {
    let failure: unknown = new ShoalError("InvalidArgument", "at least 1 RemoteAddr is required to join");
    for (const address of RemoteAddrs) {
      try {
        const join = { client: bootstrapClient, address, token, availability, clock, random, signal };
        return { identity: await joinWithToken(join), address };
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
        log.warn("joining the swarm failed", { manager: address, error: messageOf(error) });
        if (!isUnreachable(error)) throw error;
      }
    }
    if (!keepTrying()) throw failure;
    await sleep(clock, backoff.nextMs(), signal);
  }
}

function isUnreachable(error: unknown): boolean {
  return isShoalError(error, "Unavailable") || isShoalError(error, "DeadlineExceeded");
}
