/**
 * How a node gets its certificate: the first one with a join token, the later ones with the one it has. The private
 * key is made here and never leaves; the manager's root is believed only when the token's digest is of it.
 * Faster than Swarm where it refuses: a wrong token or digest fails at once, and only a manager that can't be reached
 * is tried again.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, sleep, within } from "../lib/clock.ts";
import { isShoalError, ShoalError } from "../lib/errors.ts";
import type { Random } from "../lib/random.ts";
import type { NodeAvailability } from "../model/types.ts";
import type { BootstrapClient, CertificateClient, IssueRequest, NodeIdentity } from "../rpc/services.ts";
import { checkRootCertificate, verifyNodeCertificate, vouchedFor } from "./chain.ts";
import { newCertificateRequest } from "./request.ts";
import { checkRootAgainstToken, digestOfToken } from "./tokens.ts";

/** One call: a manager answers, or waits for the signer, well within it. */
const callLimitMs = 5_000;
/** Tries to reach a manager, and the pause between them: about what `docker swarm join` waits for. */
const tries = 5;
const pauseMs = 2_000;
/** Between looks at a certificate that is not issued yet. */
const pollBackoff = { baseMs: 1_000, maxMs: 30_000 };

interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

export interface JoinOptions extends Surroundings {
  readonly client: BootstrapClient;
  /** host:port of a manager. */
  readonly address: string;
  readonly token: string;
  readonly availability: NodeAvailability;
}

/**
 * Joins with a token and gives the node's new identity.
 * Throws InvalidArgument ("invalid join token", "A valid join token is necessary to join this cluster"),
 * FailedPrecondition ("remote CA does not match fingerprint"), Unavailable when no manager answers.
 */
export async function joinWithToken(options: JoinOptions): Promise<NodeIdentity> {
  const { client, address, token, availability } = options;
  digestOfToken(token);
  const { rootCertificate: rootCA, chain } = await retried(options, (signal) => client.proof(address, signal));
  checkRootAgainstToken(rootCA, token);
  checkRootCertificate(rootCA, options.clock.now());
  const connection = client.connect(address, rootCA + vouchedFor(chain, rootCA, options.clock.now()));
  try {
    return await obtain({ ...options, connection, rootCA, request: { token, availability } });
  } finally {
    connection.close();
  }
}

export interface RenewOptions extends Surroundings {
  /** To a manager, with the certificate that is to be renewed. */
  readonly connection: CertificateClient;
  readonly identity: NodeIdentity;
}

/** A new key and certificate for the same node; its role is what the managers say by now. */
export async function renewIdentity(options: RenewOptions): Promise<NodeIdentity> {
  // The node's availability is the managers' affair by now; what a renewal says of it is not looked at.
  const request = { token: "", availability: "active" as const };
  return await obtain({ ...options, rootCA: options.identity.rootCA, request });
}

interface ObtainOptions extends Surroundings {
  readonly connection: CertificateClient;
  readonly rootCA: string;
  readonly request: Omit<IssueRequest, "csr">;
}

async function obtain(options: ObtainOptions): Promise<NodeIdentity> {
  const { connection, rootCA, clock } = options;
  const { csr, key } = await newCertificateRequest();
  const { nodeId } = await retried(options, (signal) => connection.issue({ ...options.request, csr }, signal));
  const chain = await issuedCertificate(options, nodeId, csr);
  const info = verifyNodeCertificate(chain, rootCA, key, clock.now());
  if (info.nodeId !== nodeId) throw new ShoalError("FailedPrecondition", "the certificate is for another node");
  return { nodeId, clusterId: info.clusterId, role: info.role, chain, key, rootCA };
}

/** Asks until the certificate of exactly this request is there. */
async function issuedCertificate(options: ObtainOptions, nodeId: string, csr: string): Promise<string> {
  const { connection, clock, signal } = options;
  const backoff = new Backoff(pollBackoff, options.random);
  for (;;) {
    const status = await limited(options, (callSignal) => connection.certificateStatus(nodeId, callSignal)).catch(
      (error: unknown) => {
        if (signal.aborted || !isPassing(error)) throw error;
        return undefined;
      },
    );
    if (status?.csr === csr) {
      if (status.state === "issued" || status.state === "rotate") return status.certificate;
      if (status.state === "failed") {
        throw new ShoalError("FailedPrecondition", `the certificate was refused: ${status.error ?? "no reason given"}`);
      }
    }
    await sleep(clock, backoff.nextMs(), signal);
  }
}

async function retried<T>(options: Surroundings, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  for (let left = tries; ; left--) {
    try {
      return await limited(options, call);
    } catch (error) {
      if (left === 1 || options.signal.aborted || !isPassing(error)) throw error;
    }
    await sleep(options.clock, pauseMs, options.signal);
  }
}

/** The call, ended after its time, or with the signal. */
async function limited<T>(options: Surroundings, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const ended = new AbortController();
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const tooLate = new ShoalError("DeadlineExceeded", "the manager did not answer in time");
  try {
    return await within(options.clock, callLimitMs, call(signal), () => {
      throw tooLate;
    });
  } finally {
    ended.abort(tooLate);
  }
}

/** Whether trying again may help. */
function isPassing(error: unknown): boolean {
  return isShoalError(error, "Unavailable") || isShoalError(error, "DeadlineExceeded");
}
