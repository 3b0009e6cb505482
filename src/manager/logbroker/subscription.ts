/**
 * One question to some of this manager's nodes: what each of them has said so far, and when all have said everything.
 *
 * Invariants: a node publishes on one stream at a time (a newer one takes over), and a line that was read once is
 * never read again. A node that is asked anew, after a broken stream, is asked under another id and from the last line
 * that has come: lines that the agent had sent and that never came are not lost, whatever it believes to have said.
 */
import { parseRfc3339, rfc3339 } from "../../lib/clock.ts";
import { isShoalError, ShoalError } from "../../lib/errors.ts";
import { rank } from "../../model/state.ts";
import type { Task } from "../../model/types.ts";
import type { LogsRequest } from "../../rpc/peers.ts";
import type { LogMessage, LogOptions, LogSubscription } from "../../rpc/services.ts";
import type { View } from "../../store/store.ts";
import { LogBuffer } from "./buffer.ts";
import { compareTimes, Positions } from "./positions.ts";

/** How much a node's clock may be behind ours. */
const clocksDifferMs = 2_000;

/** A node's stream, which ends at its next step (or at once, when it waits) after `stop`. */
interface Publisher {
  stopped: boolean;
  stop: () => void;
}

interface NodePart {
  state: "open" | "done";
  /** The stream that may publish for it now. */
  publisher: Publisher | undefined;
  readonly positions: Positions;
  /** When the node was asked first, by whichever manager; undefined: not yet. RFC 3339. */
  askedAt: string | undefined;
  /** How often this manager has asked it. */
  asked: number;
}

export class Subscription {
  /** Without a dot; what a node is told is this one and how often it has been asked. */
  readonly id: string;
  readonly #request: LogsRequest;
  readonly #view: View;
  readonly #nodes = new Map<string, NodePart>();
  readonly #problems: string[] = [];
  readonly #buffer = new LogBuffer();
  #ended = false;

  constructor(id: string, request: LogsRequest, view: View) {
    this.id = id;
    this.#request = request;
    this.#view = view;
    const { nodeIds, resume } = request;
    for (const nodeId of nodeIds) {
      const times = [...(resume?.positions ?? [])].filter(([taskId]) => view.get("tasks", taskId)?.NodeID === nodeId);
      const positions = new Positions(times);
      this.#nodes.set(nodeId, {
        state: "open",
        publisher: undefined,
        positions,
        askedAt: resume?.askedAt,
        asked: 0,
      });
    }
  }

  get nodeIds(): Iterable<string> {
    return this.#nodes.keys();
  }

  get follows(): boolean {
    return this.#request.options.follow;
  }

  /** Whether the node still has something to say. */
  awaits(nodeId: string): boolean {
    return !this.#ended && this.#nodes.get(nodeId)?.state === "open";
  }

  /** The node has said everything, or (with `problem`) will not. Following waits for its next time. */
  nodeDone(nodeId: string, problem?: string): void {
    const part = this.#nodes.get(nodeId);
    if (!part || part.state === "done" || this.follows) return;
    part.state = "done";
    if (problem) this.#problems.push(problem);
    this.endIfComplete();
  }

  /** Nodes that have not begun to publish are not waited for any longer. */
  giveUpSilent(): void {
    for (const [nodeId, part] of this.#nodes) if (!part.publisher) this.nodeDone(nodeId, notAvailable(nodeId));
  }

  /** A subscription that does not follow ends when no node is awaited. */
  endIfComplete(): void {
    if (this.follows) return;
    for (const part of this.#nodes.values()) if (part.state === "open") return;
    this.end();
  }

  end(): void {
    this.#ended = true;
    this.#buffer.close();
    for (const part of this.#nodes.values()) part.publisher?.stop();
  }

  /** Asks one of its nodes; when that is not the first time, for what it lacks. @param now milliseconds since the epoch */
  toNode(nodeId: string, now: number): LogSubscription {
    const part = this.#nodes.get(nodeId)!;
    const options = part.askedAt === undefined ? this.#request.options : this.#lacking(nodeId, part, part.askedAt);
    part.askedAt ??= rfc3339(now);
    part.asked++;
    return { id: this.#wireId(part), close: false, selector: this.#wireSelector(), options };
  }

  closing(nodeId: string): LogSubscription {
    const { options } = this.#request;
    return { id: this.#wireId(this.#nodes.get(nodeId)!), close: true, selector: this.#wireSelector(), options };
  }

  /**
   * Takes a node's lines until it ends its stream, a newer stream of it takes over, or nobody reads.
   * @param wireId what it was told last: what it publishes under an earlier one may lack what this one begins with
   */
  async publish(nodeId: string, wireId: string, batches: AsyncIterable<readonly LogMessage[]>): Promise<void> {
    const part = this.#nodes.get(nodeId);
    if (!part || part.state === "done" || wireId !== this.#wireId(part)) throw unknownSubscription();
    const publisher: Publisher = { stopped: false, stop: () => (publisher.stopped = true) };
    part.publisher?.stop();
    part.publisher = publisher;
    const iterator = batches[Symbol.asyncIterator]();
    try {
      for (;;) {
        const batch = await nextUnlessStopped(iterator, publisher);
        if (publisher.stopped) return;
        if (!batch) break;
        for (const message of batch) this.#check(nodeId, message);
        const fresh = batch.filter((message) => message.unreadable || part.positions.take(publisher, message));
        if (fresh.length > 0 && !(await this.#buffer.put(fresh))) return;
      }
      this.nodeDone(nodeId);
    } catch (error) {
      if (!publisher.stopped) this.nodeDone(nodeId, disconnected(nodeId));
      throw error;
    } finally {
      // Not waited for: a stream that is stuck would hold it up. How it ends is of no interest any more.
      iterator.return?.().catch(() => undefined);
    }
  }

  lines(): AsyncIterable<LogMessage> {
    return this.#buffer.read();
  }

  /** Swarm's warning when some lines could not be had; undefined when all could. */
  warning(): ShoalError | undefined {
    return this.follows ? undefined : incomplete(this.#problems);
  }

  /**
   * From the oldest of the last lines that have come: what is told twice is left out. A task of which nothing has come
   * may have written since it was asked for.
   */
  #lacking(nodeId: string, { positions }: NodePart, askedAt: string): LogOptions {
    const { options } = this.#request;
    const since = [...positions.times()].map(([, newest]) => newest);
    if (since.length === 0 && !options.follow) return options;
    if (this.#hasUnread(nodeId, positions)) {
      since.push(options.tail === undefined ? options.since : rfc3339(parseRfc3339(askedAt) - clocksDifferMs));
    }
    if (since.length === 0) return options; // nothing has run yet
    const oldest = since.reduce((first, time) => (compareTimes(time, first) < 0 ? time : first));
    return { ...options, tail: undefined, since: oldest };
  }

  #hasUnread(nodeId: string, positions: Positions): boolean {
    for (const { ID, NodeID, Status } of matchingTasks(this.#request.selector, this.#view)) {
      if (NodeID === nodeId && !positions.has(ID) && rank(Status.State) >= rank("starting")) return true;
    }
    return false;
  }

  #wireId({ asked }: NodePart): string {
    return `${this.id}.${asked}`;
  }

  /** A node speaks only for itself, and only of what it was asked. A task that is gone by now is believed. */
  #check(nodeId: string, { context }: LogMessage): void {
    const task = this.#view.get("tasks", context.taskId);
    if (context.nodeId !== nodeId || (task && task.NodeID !== nodeId)) {
      throw new ShoalError("PermissionDenied", "a node can only publish logs of its own tasks");
    }
    if (task && !isSelected(this.#request.selector, task)) {
      throw new ShoalError("PermissionDenied", "the task is not part of the log subscription");
    }
  }

  #wireSelector(): LogSubscription["selector"] {
    const { serviceIds, taskIds } = this.#request.selector;
    return { serviceIds, taskIds, nodeIds: [] };
  }
}

type Selector = LogsRequest["selector"];

export function* matchingTasks({ serviceIds, taskIds }: Selector, view: View): Generator<Task> {
  for (const id of serviceIds) yield* view.tasksOfService(id);
  for (const id of taskIds) {
    const task = view.get("tasks", id);
    if (task) yield task;
  }
}

export function isSelected({ serviceIds, taskIds }: Selector, task: Task): boolean {
  return serviceIds.includes(task.ServiceID) || taskIds.includes(task.ID);
}

const incompleteText = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: ";

/** Swarm's warning, for after the lines; undefined without a reason. */
export function incomplete(reasons: readonly string[]): ShoalError | undefined {
  return reasons.length === 0 ? undefined : new ShoalError("Unknown", incompleteText + reasons.join(", "));
}

/** The reasons of that warning; undefined for any other error. */
export function reasonsOf(error: unknown): string | undefined {
  if (!isShoalError(error, "Unknown") || !error.message.startsWith(incompleteText)) return undefined;
  return error.message.slice(incompleteText.length);
}

export function unknownSubscription(): ShoalError {
  return new ShoalError("NotFound", "unknown subscription ID");
}

export function notAvailable(nodeId: string): string {
  return `node ${nodeId} is not available`;
}

export function disconnected(nodeId: string): string {
  return `node ${nodeId} disconnected unexpectedly`;
}

/** The stream's next batch; undefined at its end, or as soon as the publisher is stopped (the stream is given up). */
function nextUnlessStopped(
  iterator: AsyncIterator<readonly LogMessage[]>,
  publisher: Publisher,
): Promise<readonly LogMessage[] | undefined> {
  return new Promise((resolve, reject) => {
    publisher.stop = () => {
      publisher.stopped = true;
      resolve(undefined);
    };
    if (publisher.stopped) publisher.stop();
    else iterator.next().then((result) => resolve(result.done ? undefined : result.value), reject);
  });
}
