/**
 * One session with one manager, in swarmkit's order: Session, its first message within five seconds, then heartbeats,
 * assignments and log subscriptions side by side. The first of them to fail ends the session; the agent starts anew.
 */
import { type Clock, sleep, within } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { NodeDescription } from "../model/types.ts";
import type { ManagerConnection, SessionMessage } from "../rpc/services.ts";
import type { LogSubscriptions } from "./logs.ts";
import type { StatusReporter } from "./reporter.ts";
import type { Worker } from "./worker.ts";

/** Swarmkit's limits for the first message and for a heartbeat. */
const answerWithinMs = 5000;

/**
 * How often the connection is looked at for signs of life. Silence is counted in looks, not in time: an agent that was
 * itself held up finds what has come meanwhile before it judges.
 */
const lookEveryMs = 500;
/** A machine takes a connection in its kernel, however busy its manager is; one packet may get lost. */
const looksUntilUnreachable = 4;
/** Three of a manager's pings are missing; a session that is being opened has had time for much less. */
const looksUntilSilent = 6;

/** How often the node looks whether it still is what it said it is (Swarm's period). */
const describeEveryMs = 20_000;

/** A manager that asks for less would only be a busy loop. */
const shortestHeartbeatMs = 50;

/** Before assignments are asked for again after a set that doesn't follow the last one. */
const reassignAfterMs = 100;

export interface SessionOptions {
  readonly connection: ManagerConnection;
  /** What the node says of itself now. */
  readonly description: NodeDescription;
  /** The id of the session before, or "". */
  readonly sessionId: string;
  readonly worker: Worker;
  readonly reporter: StatusReporter;
  readonly logs: LogSubscriptions;
  readonly clock: Clock;
  readonly log: Logger;
  readonly describe: () => Promise<NodeDescription>;
  /** Whether there are other managers to turn to. */
  readonly hasChoice: () => boolean;
  /** Each message of the manager, before it is acted on. */
  readonly onMessage: (message: SessionMessage) => void;
  /** Something more to keep going for as long as the session lasts; its end ends the session. */
  readonly alongside: (signal: AbortSignal) => Promise<void>;
}

/**
 * Runs until something fails (and throws that), or until the node's description has changed, or `alongside` ends:
 * then it resolves, and a new session is to be opened at once.
 */
export async function runSession(options: SessionOptions, signal: AbortSignal): Promise<void> {
  const { clock, connection, worker } = options;
  const end = new AbortController();
  const lifetime = AbortSignal.any([signal, end.signal]);
  const request = { description: options.description, sessionId: options.sessionId };
  const messages = connection.session(request, lifetime)[Symbol.asyncIterator]();
  try {
    let isOpen = false;
    const dead = watchSigns(options, () => isOpen, lifetime);
    const opened = within(clock, answerWithinMs, messages.next(), () => {
      throw new ShoalError("DeadlineExceeded", "the manager has not opened a session within 5 s");
    });
    const first = await Promise.race([opened, dead]);
    if (first.done) throw ended("session");
    isOpen = true;
    options.onMessage(first.value);
    worker.reportAll();
    const { sessionId } = first.value;
    await Promise.race([
      dead,
      followMessages(options, messages),
      sendHeartbeats(options, sessionId, lifetime),
      followAssignments(options, sessionId, lifetime),
      serveLogs(options, lifetime),
      options.reporter.run((updates, sent) => connection.updateTaskStatus(sessionId, updates, sent), lifetime),
      descriptionChange(options, lifetime),
      options.alongside(lifetime),
    ]);
  } finally {
    end.abort(new ShoalError("Canceled", "the session has ended"));
    // Not awaited: a stream that hangs must not hold up the next session. Its failure has no reader any more.
    messages.return?.().catch(() => undefined);
  }
}

/**
 * Fails when the manager's machine is not there, or when nothing at all comes from it, long before a heartbeat would
 * tell: while the session is being opened, and later if the manager pings. One that doesn't (Swarm's) may be silent in
 * an open session. The only manager is not judged by its silence: it may be busy with what all its agents want of it,
 * and leaving it would be more of the same.
 */
async function watchSigns(options: SessionOptions, isOpen: () => boolean, signal: AbortSignal): Promise<never> {
  const { clock, connection, hasChoice } = options;
  let bytesRead = 0;
  let silent = 0;
  for (let looks = 1; connection.signs; looks++) {
    await sleep(clock, lookEveryMs, signal);
    const signs = connection.signs();
    if (!signs.accepted && looks >= looksUntilUnreachable) {
      throw new ShoalError("Unavailable", "the manager can't be reached");
    }
    const speaks = signs.pings || !isOpen();
    silent = signs.bytesRead > bytesRead || !speaks ? 0 : silent + 1;
    bytesRead = signs.bytesRead;
    if (silent >= looksUntilSilent && hasChoice()) throw new ShoalError("Unavailable", "the manager has fallen silent");
  }
  return forever(signal);
}

async function followMessages(options: SessionOptions, messages: AsyncIterator<SessionMessage>): Promise<never> {
  for (;;) {
    const next = await messages.next();
    if (next.done) throw ended("session");
    options.onMessage(next.value);
  }
}

async function sendHeartbeats(options: SessionOptions, sessionId: string, signal: AbortSignal): Promise<never> {
  const { clock, connection } = options;
  for (;;) {
    const { periodMs } = await within(clock, answerWithinMs, connection.heartbeat(sessionId, signal), () => {
      throw new ShoalError("DeadlineExceeded", "the manager has not answered a heartbeat within 5 s");
    });
    await sleep(clock, Math.max(periodMs, shortestHeartbeatMs), signal);
  }
}

async function followAssignments(options: SessionOptions, sessionId: string, signal: AbortSignal): Promise<never> {
  const { clock, connection, log, worker } = options;
  for (;;) {
    let followed = true;
    for await (const message of connection.assignments(sessionId, signal)) {
      followed = worker.assign(message);
      if (!followed) break;
    }
    if (followed) throw ended("assignments");
    log.warn("assignments do not follow each other, asking for all of them");
    await sleep(clock, reassignAfterMs, signal);
  }
}

async function serveLogs({ connection, logs, log }: SessionOptions, signal: AbortSignal): Promise<never> {
  try {
    await logs.serve(connection, signal);
  } catch (error) {
    if (!isShoalError(error, "Unimplemented")) throw error;
    log.debug("the manager has no log broker", { error: messageOf(error) });
    return forever(signal);
  }
  throw ended("log subscriptions");
}

async function descriptionChange(options: SessionOptions, signal: AbortSignal): Promise<void> {
  const before = JSON.stringify(options.description);
  for (;;) {
    await sleep(options.clock, describeEveryMs, signal);
    try {
      if (JSON.stringify(await options.describe()) !== before) return;
    } catch (error) {
      options.log.debug("the node can't be described", { error: messageOf(error) });
    }
  }
}

function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function ended(stream: string): ShoalError {
  return new ShoalError("Unavailable", `the manager ended the ${stream} stream`);
}
