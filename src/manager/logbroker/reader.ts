/**
 * One client that reads logs: asks each manager for the lines of those nodes that have their session with it, and
 * brings all together.
 *
 * Invariants: a node is asked for as long as the reader wants it, through whichever manager has it: a broken answer, a
 * manager that dies or a node that moves to another one costs the reader no line, and shows it none twice. What is to be
 * asked is worked out anew from the store (`#look`), whatever has happened.
 *
 * Differs from Swarm, where the leader has all sessions, and where nobody is told that a task's log can't be read (its
 * driver keeps none): here a reader is told, after the lines; one that follows when that is so for every task.
 */
import { type Clock, rfc3339, type Timer } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { rank, type TaskState } from "../../model/state.ts";
import type { LogsRequest, LogsResume } from "../../rpc/peers.ts";
import type { LogMessage, LogOptions } from "../../rpc/services.ts";
import type { Commit, Store } from "../../store/store.ts";
import { LogBuffer } from "./buffer.ts";
import { Positions } from "./positions.ts";
import { incomplete, isSelected, matchingTasks, notAvailable, reasonsOf } from "./subscription.ts";

/** Also how soon a broken answer is asked for again. */
const lookEveryMs = 1_000;
/** Broken answers in a row until a reader that does not follow is told that a node can't be had. */
const tries = 3;

export interface LogReaderOptions {
  /** Id of this manager's node. */
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  readonly selector: LogsRequest["selector"];
  readonly options: LogOptions;
  /** Asks a manager (this one, too) for the lines of its nodes; as `LogBroker.logs`. */
  readonly ask: (managerId: string, request: LogsRequest, signal: AbortSignal) => AsyncIterable<LogMessage>;
  /** Whether another manager is there. */
  readonly isReachable: (managerId: string) => boolean;
}

/** One question to one manager. */
interface Leg {
  readonly manager: string;
  readonly nodeIds: readonly string[];
  readonly end: AbortController;
}

/** What a node has been asked. */
interface Part {
  /** It got its first task while the reader was following: whatever that writes is new. */
  readonly late: boolean;
  /** It has said everything, or will not. */
  done: boolean;
  /** When it was asked first; RFC 3339. */
  askedAt: string | undefined;
  /** Broken answers since the last line. */
  failures: number;
  /** Not to be asked again before. */
  notBefore: number;
  /** By manager: one that has been asked goes on by itself when the node comes back to it. */
  readonly legs: Map<string, Leg>;
}

/**
 * Lines of the matching tasks, those of one task in order. Without `follow` it ends by itself, with Unknown and Swarm's
 * warning when something could not be had; with it only when `signal` aborts (a plain end).
 */
export async function* readLogs(
  options: LogReaderOptions,
  signal: AbortSignal,
): AsyncGenerator<LogMessage, void, void> {
  yield* new LogReader(options).lines(signal);
}

class LogReader {
  readonly #options: LogReaderOptions;
  readonly #buffer = new LogBuffer();
  readonly #positions = new Positions();
  readonly #parts = new Map<string, Part>();
  readonly #problems: string[] = [];
  /** Tasks whose log can't be read, and why. */
  readonly #unreadable = new Map<string, string>();
  #timer: Timer | undefined;
  /** Ended well; or with an error. */
  #ended: { readonly error?: unknown } | undefined;

  constructor(options: LogReaderOptions) {
    this.#options = options;
  }

  async *lines(signal: AbortSignal): AsyncGenerator<LogMessage, void, void> {
    const { store, options } = this.#options;
    const onAbort = () => this.#end({});
    signal.addEventListener("abort", onAbort, { once: true });
    const unwatch = store.watch((commit) => this.#committed(commit));
    try {
      if (signal.aborted) return;
      this.#begin();
      yield* this.#buffer.read();
      if (signal.aborted) return;
      if (this.#ended?.error) throw this.#ended.error;
      const unreadable = [...this.#unreadable].map(
        ([taskId, why]) => `the log of task ${taskId} can't be read: ${why}`,
      );
      const warning = incomplete(options.follow ? unreadable : [...this.#problems, ...unreadable]);
      if (warning) throw warning;
    } finally {
      unwatch();
      signal.removeEventListener("abort", onAbort);
      this.#end({});
    }
  }

  #begin(): void {
    const { selector, store } = this.#options;
    for (const { ID, NodeID, Status } of matchingTasks(selector, store.view)) {
      if (NodeID) this.#want(NodeID, false);
      else if (rank(Status.State) < rank("running")) this.#problems.push(`task ${ID} has not been scheduled`);
    }
    this.#look();
  }

  #want(nodeId: string, late: boolean): void {
    if (this.#parts.has(nodeId)) return;
    this.#parts.set(nodeId, { late, done: false, askedAt: undefined, failures: 0, notBefore: 0, legs: new Map() });
  }

  #committed({ changes }: Commit): void {
    if (this.#ended) return;
    let concerned = false;
    for (const { table, id, before, after } of changes) {
      if (table === "nodes") concerned ||= this.#parts.has(id) && before?.SessionManager !== after?.SessionManager;
      if (table !== "tasks" || !after?.NodeID || before?.NodeID === after.NodeID) continue;
      // A node itself sees its later tasks.
      if (!this.#options.options.follow || !isSelected(this.#options.selector, after)) continue;
      this.#want(after.NodeID, true);
      concerned = true;
    }
    if (concerned) this.#look();
  }

  /** Asks whom there is to ask, gives up who can't be reached, ends when there is nothing more to come. */
  #look(): void {
    if (this.#ended) return;
    const { clock, nodeId: self, isReachable, options } = this.#options;
    this.#timer?.cancel();
    const questions = new Map<string, string[]>();
    for (const [nodeId, part] of this.#parts) {
      for (const leg of part.legs.values()) {
        if (leg.manager !== self && !isReachable(leg.manager)) leg.end.abort(gone());
      }
      if (part.done) continue;
      const manager = this.#managerOf(nodeId);
      if (manager === undefined) {
        if (part.legs.size === 0) this.#giveUp(nodeId, part);
      } else if (!part.legs.has(manager) && clock.now() >= part.notBefore) {
        const kind = part.askedAt !== undefined ? "again" : part.late ? "late" : "first";
        const key = `${kind} ${manager}`;
        questions.set(key, [...(questions.get(key) ?? []), nodeId]);
      }
    }
    for (const [key, nodeIds] of questions) {
      const [kind, manager = ""] = key.split(" ");
      this.#ask(manager, nodeIds, kind === "late" ? { ...options, tail: undefined } : options);
    }
    const isOver = options.follow ? this.#nothingToFollow() : [...this.#parts.values()].every(({ done }) => done);
    if (isOver) this.#end({});
    else this.#timer = clock.after(lookEveryMs, () => this.#look());
  }

  /** There are tasks that write logs, and none of them can be read. */
  #nothingToFollow(): boolean {
    if (this.#unreadable.size === 0) return false;
    const { selector, store } = this.#options;
    const writing = [...matchingTasks(selector, store.view)].filter(({ Status }) => isWriting(Status.State));
    return writing.every(({ ID }) => this.#unreadable.has(ID));
  }

  /** The manager that can be asked for the node now. */
  #managerOf(nodeId: string): string | undefined {
    const { store, nodeId: self, isReachable } = this.#options;
    const node = store.view.get("nodes", nodeId);
    const manager = node && node.Status.State !== "down" ? node.SessionManager : undefined;
    return manager === self || (manager !== undefined && isReachable(manager)) ? manager : undefined;
  }

  #giveUp(nodeId: string, part: Part): void {
    if (this.#options.options.follow) return; // it may come back
    part.done = true;
    this.#problems.push(notAvailable(nodeId));
  }

  #ask(manager: string, nodeIds: readonly string[], options: LogOptions): void {
    const { clock, selector } = this.#options;
    const resume = this.#resumeOf(nodeIds);
    const leg: Leg = { manager, nodeIds, end: new AbortController() };
    for (const nodeId of nodeIds) {
      const part = this.#parts.get(nodeId)!;
      part.askedAt ??= rfc3339(clock.now());
      part.legs.set(manager, leg);
    }
    void this.#follow(leg, { selector, nodeIds, options, ...(resume && { resume }) });
  }

  /** All of them have been asked before, or none. */
  #resumeOf(nodeIds: readonly string[]): LogsResume | undefined {
    const { store } = this.#options;
    const [askedAt] = nodeIds.map((nodeId) => this.#parts.get(nodeId)!.askedAt ?? "").sort();
    if (!askedAt) return undefined;
    const asked = new Set(nodeIds);
    const positions = [...this.#positions.times()].filter(([taskId]) =>
      asked.has(store.view.get("tasks", taskId)?.NodeID ?? ""),
    );
    return { askedAt, positions: new Map(positions) };
  }

  /** Never rejects. */
  async #follow(leg: Leg, request: LogsRequest): Promise<void> {
    const { ask, log, nodeId: self, options } = this.#options;
    let failure: unknown;
    try {
      for await (const message of ask(leg.manager, request, leg.end.signal)) {
        if (message.unreadable) {
          this.#unreadable.set(message.context.taskId, Buffer.from(message.data).toString());
          if (options.follow) this.#look();
          continue;
        }
        if (!this.#positions.take(leg, message)) continue;
        const part = this.#parts.get(message.context.nodeId);
        if (part) part.failures = 0;
        if (!(await this.#buffer.put([message]))) return;
      }
    } catch (error) {
      failure = error;
    }
    if (this.#ended) return;
    const reasons = reasonsOf(failure);
    if (reasons !== undefined) this.#problems.push(reasons);
    const isComplete = !options.follow && (failure === undefined || reasons !== undefined);
    if (!isComplete && leg.manager === self) {
      this.#end({ error: failure ?? new ShoalError("Unavailable", "the logs have ended") });
      return;
    }
    if (!isComplete) log.debug("the logs of another manager's nodes broke off", { error: messageOf(failure) });
    for (const nodeId of leg.nodeIds) this.#answered(leg, nodeId, isComplete);
    this.#look();
  }

  #answered(leg: Leg, nodeId: string, isComplete: boolean): void {
    const part = this.#parts.get(nodeId)!;
    part.legs.delete(leg.manager);
    if (isComplete) part.done = true;
    if (part.done) return;
    part.notBefore = this.#options.clock.now() + lookEveryMs;
    if (++part.failures >= tries) this.#giveUp(nodeId, part);
  }

  #end(how: { readonly error?: unknown }): void {
    if (this.#ended) return;
    this.#ended = how;
    this.#timer?.cancel();
    this.#buffer.close();
    for (const { legs } of this.#parts.values()) for (const { end } of legs.values()) end.abort(gone());
  }
}

function isWriting(state: TaskState): boolean {
  return rank(state) >= rank("starting") && rank(state) <= rank("running");
}

function gone(): ShoalError {
  return new ShoalError("Canceled", "these logs are not read any more");
}
