/**
 * How far a reader has come in each task's log, and what of a line that is told again is new. A log comes from one
 * source at a time (a node's stream, a manager's answer); another one begins a little earlier than the one before ended.
 *
 * Invariant: no line is taken twice and none is left out, as long as each source tells a task's lines in order, without
 * gaps, and begins no later than the last line that was taken.
 */
import type { LogMessage } from "../../rpc/services.ts";

interface Position {
  source: unknown;
  /** Newest time that was taken (RFC 3339 with nanoseconds). */
  newest: string;
  /** What was newest when the present source began: up to here it repeats. */
  from: string | undefined;
}

export class Positions {
  readonly #tasks = new Map<string, Position>();

  /** @param times task id to the time of the last line that was taken */
  constructor(times: Iterable<readonly [string, string]> = []) {
    for (const [taskId, newest] of times) this.#tasks.set(taskId, { source: undefined, newest, from: undefined });
  }

  /** Whether the line is new; then it counts as taken. */
  take(source: object, { context: { taskId }, timestamp }: LogMessage): boolean {
    const position = this.#tasks.get(taskId);
    if (!position) {
      this.#tasks.set(taskId, { source, newest: timestamp, from: undefined });
      return true;
    }
    if (position.source !== source) {
      position.source = source;
      position.from = position.newest;
    }
    if (position.from !== undefined && compareTimes(timestamp, position.from) <= 0) return false;
    if (compareTimes(timestamp, position.newest) > 0) position.newest = timestamp;
    return true;
  }

  has(taskId: string): boolean {
    return this.#tasks.has(taskId);
  }

  /** Task id to the time of the last line that was taken. */
  *times(): Generator<readonly [string, string]> {
    for (const [taskId, { newest }] of this.#tasks) yield [taskId, newest];
  }
}

/** Negative when `left` is earlier. Both RFC 3339 in UTC; "" is before all. */
export function compareTimes(left: string, right: string): number {
  const [one, other] = [sortable(left), sortable(right)];
  return one < other ? -1 : one > other ? 1 : 0;
}

/** So that text compares as time: Go leaves out trailing zeros of the fraction. */
function sortable(timestamp: string): string {
  const [seconds = "", fraction = ""] = timestamp.replace(/Z$/, "").split(".");
  return `${seconds}.${fraction.padEnd(9, "0")}`;
}
