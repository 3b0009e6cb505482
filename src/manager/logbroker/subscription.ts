/**
 * One reader's subscription: which nodes it concerns, what each of them has said so far, and when it is complete.
 *
 * Invariants: a node publishes on one stream at a time (a newer one takes over), and a line that was read once is
 * never read again: a node that comes back and publishes anew is cut to what is newer than its last line of the task.
 */
import { ShoalError } from "../../lib/errors.ts";
import { rank } from "../../model/state.ts";
import type { Task } from "../../model/types.ts";
import type { LogMessage, LogOptions, LogSubscription } from "../../rpc/services.ts";
import type { View } from "../../store/store.ts";
import { LogBuffer } from "./buffer.ts";

/** As the API's selector; the wire's node ids are not asked for by any client. */
export interface LogSelector {
  readonly serviceIds: readonly string[];
  readonly taskIds: readonly string[];
}

/** A node's stream, which ends at its next step (or at once, when it waits) after `stop`. */
interface Publisher {
  stopped: boolean;
  stop: () => void;
}

interface NodePart {
  state: "open" | "done";
  /** The stream that may publish for it now. */
  publisher: Publisher | undefined;
  /** Newest timestamp read of each task (RFC 3339 with nanoseconds). */
  readonly newest: Map<string, string>;
}

export class Subscription {
  readonly id: string;
  readonly selector: LogSelector;
  readonly options: LogOptions;
  readonly isElsewhere: (nodeId: string) => boolean;
  readonly #view: View;
  readonly #nodes = new Map<string, NodePart>();
  readonly #problems: string[] = [];
  readonly #buffer = new LogBuffer();
  #ended = false;

  constructor(
    id: string,
    selector: LogSelector,
    options: LogOptions,
    view: View,
    isElsewhere: (nodeId: string) => boolean = () => false,
  ) {
    this.id = id;
    this.isElsewhere = isElsewhere;
    this.selector = selector;
    this.options = options;
    this.#view = view;
    for (const task of this.#tasks()) {
      if (task.NodeID) this.addNode(task.NodeID);
      else if (rank(task.Status.State) < rank("running")) this.#problems.push(`task ${task.ID} has not been scheduled`);
    }
  }

  get nodeIds(): Iterable<string> {
    return this.#nodes.keys();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Whether the node still has something to say. */
  awaits(nodeId: string): boolean {
    return !this.#ended && this.#nodes.get(nodeId)?.state === "open";
  }

  matches(task: Task): boolean {
    return this.selector.serviceIds.includes(task.ServiceID) || this.selector.taskIds.includes(task.ID);
  }

  /** True when the node was not concerned before. */
  addNode(nodeId: string): boolean {
    if (this.#nodes.has(nodeId)) return false;
    this.#nodes.set(nodeId, { state: "open", publisher: undefined, newest: new Map() });
    return true;
  }

  /** The node has said everything, or (with `problem`) will not. Following waits for its next time. */
  nodeDone(nodeId: string, problem?: string): void {
    const part = this.#nodes.get(nodeId);
    if (!part || part.state === "done" || this.options.follow) return;
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
    if (this.options.follow) return;
    for (const part of this.#nodes.values()) if (part.state === "open") return;
    this.end();
  }

  end(): void {
    this.#ended = true;
    this.#buffer.close();
    for (const part of this.#nodes.values()) part.publisher?.stop();
  }

  /** What the node is told; when it is not the first time, only what came after the lines that it has published. */
  toNode(nodeId: string): LogSubscription {
    const since = oldest(this.#nodes.get(nodeId)?.newest.values() ?? []);
    const options = since === undefined ? this.options : { ...this.options, tail: undefined, since };
    return { id: this.id, close: false, selector: this.#wireSelector(), options };
  }

  closing(): LogSubscription {
    return { id: this.id, close: true, selector: this.#wireSelector(), options: this.options };
  }

  /** Takes a node's lines until it ends its stream, a newer stream of it takes over, or nobody reads. */
  async publish(nodeId: string, batches: AsyncIterable<readonly LogMessage[]>): Promise<void> {
    const part = this.#nodes.get(nodeId);
    if (!part || part.state === "done") throw unknownSubscription();
    const publisher: Publisher = { stopped: false, stop: () => (publisher.stopped = true) };
    part.publisher?.stop();
    part.publisher = publisher;
    const alreadyRead = new Map(part.newest);
    const iterator = batches[Symbol.asyncIterator]();
    try {
      for (;;) {
        const batch = await nextUnlessStopped(iterator, publisher);
        if (publisher.stopped) return;
        if (!batch) break;
        for (const message of batch) this.#check(nodeId, message);
        const fresh = batch.filter((message) => isNewer(message, alreadyRead));
        for (const message of fresh) {
          if (isNewer(message, part.newest)) part.newest.set(message.context.taskId, message.timestamp);
        }
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
    if (this.options.follow || this.#problems.length === 0) return undefined;
    const reasons = this.#problems.join(", ");
    return new ShoalError(
      "Unknown",
      `warning: incomplete log stream. some logs could not be retrieved for the following reasons: ${reasons}`,
    );
  }

  *#tasks(): Iterable<Task> {
    for (const id of this.selector.serviceIds) yield* this.#view.tasksOfService(id);
    for (const id of this.selector.taskIds) {
      const task = this.#view.get("tasks", id);
      if (task) yield task;
    }
  }

  /** A node speaks only for itself, and only of what it was asked. A task that is gone by now is believed. */
  #check(nodeId: string, { context }: LogMessage): void {
    const task = this.#view.get("tasks", context.taskId);
    if (context.nodeId !== nodeId || (task && task.NodeID !== nodeId)) {
      throw new ShoalError("PermissionDenied", "a node can only publish logs of its own tasks");
    }
    if (task && !this.matches(task)) {
      throw new ShoalError("PermissionDenied", "the task is not part of the log subscription");
    }
  }

  #wireSelector(): LogSubscription["selector"] {
    return { ...this.selector, nodeIds: [] };
  }
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

function isNewer({ context, timestamp }: LogMessage, than: ReadonlyMap<string, string>): boolean {
  const other = than.get(context.taskId);
  return other === undefined || sortable(timestamp) > sortable(other);
}

function oldest(timestamps: Iterable<string>): string | undefined {
  let first: string | undefined;
  for (const timestamp of timestamps) {
    if (first === undefined || sortable(timestamp) < sortable(first)) first = timestamp;
  }
  return first;
}

/** An RFC 3339 time in UTC so that text compares as time: Go leaves out trailing zeros of the fraction. */
function sortable(timestamp: string): string {
  const [seconds = "", fraction = ""] = timestamp.replace(/Z$/, "").split(".");
  return `${seconds}.${fraction.padEnd(9, "0")}`;
}
