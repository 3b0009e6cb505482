/**
 * Restart policies, as pure functions over what is stored: may a task that ended (or lost its node) be replaced, when
 * may the replacement start, and when does a task that was told to stop no longer stand in its way.
 *
 * Managers' clocks may be hours apart. So what waits goes by when the leader itself heard of a write (`KnownTimes`), and
 * of stored times only what lies between two of the same clock counts. A leader that has not heard of a write, because
 * it was not running, waits as if it had come at the start of its lead: longer than needed, and never less.
 *
 * A replacement made by a restart has `StartAfter`; restarts are counted by that, per slot and spec revision.
 *
 * Where Swarm starts the replacement one minute after it was made, stopped or not, here the old task has its own stop
 * grace period and then some: a task with a long grace period is never overlapped by its successor.
 */
import { parseRfc3339 } from "../../lib/clock.ts";
import { isTerminal } from "../../model/state.ts";
import type { Task, TaskSpec } from "../../model/types.ts";
import { isDisposable } from "./task.ts";

const nanosecondsPerMs = 1e6;
const defaultDelayMs = 5_000;
const defaultStopGraceMs = 10_000;
/** Over the stop grace period, for the agent to act and report; the default grace makes it Swarm's minute. */
const stopMarginMs = 50_000;

export interface RestartRules {
  readonly condition: "none" | "on-failure" | "any";
  readonly delayMs: number;
  /** 0: without limit. */
  readonly maxAttempts: number;
  /** 0: attempts count for ever. */
  readonly windowMs: number;
  /** How long a task may take to stop. */
  readonly stopGraceMs: number;
}

/** The restart policy of a task spec with Swarm's defaults filled in (any, 5 s, without limit). */
export function restartRules(spec: TaskSpec | undefined): RestartRules {
  const policy = spec?.RestartPolicy;
  return {
    condition: policy?.Condition === "none" || policy?.Condition === "on-failure" ? policy.Condition : "any",
    delayMs: toMs(policy?.Delay) ?? defaultDelayMs,
    maxAttempts: policy?.MaxAttempts ?? 0,
    windowMs: toMs(policy?.Window) ?? 0,
    stopGraceMs: toMs(spec?.ContainerSpec?.StopGracePeriod) ?? defaultStopGraceMs,
  };
}

/** Nanoseconds, as the Engine API has durations, to milliseconds. */
export function toMs(nanoseconds: number | undefined): number | undefined {
  return nanoseconds === undefined ? undefined : nanoseconds / nanosecondsPerMs;
}

/** What a leader knows of a task's times (milliseconds since the epoch, by its own clock). */
export interface KnownTimes {
  /** When it heard of the task's last write. Undefined: before it could hear of anything. */
  readonly heardAt: number | undefined;
  /** Since when it leads. */
  readonly leadsSince: number;
}

/** When the task was last written; never before it was. */
export function writtenAt({ heardAt, leadsSince }: KnownTimes): number {
  return heardAt ?? leadsSince;
}

/**
 * Whether `task`, which ended or lost its node, may be replaced.
 * @param history all stored tasks of its slot (for a global service: of its node)
 * @param rules of the task's own spec
 * @param endedAt see `endTime`
 */
export function mayRestart(task: Task, history: readonly Task[], rules: RestartRules, endedAt: number): boolean {
  if (rules.condition === "none") return false;
  if (rules.condition === "on-failure" && task.Status.State === "complete") return false;
  if (rules.maxAttempts === 0) return true;
  let restarts = 0;
  for (const other of history) {
    if (other.StartAfter === undefined || other.SpecVersion.Index !== task.SpecVersion.Index) continue;
    if (rules.windowMs > 0) {
      const at = parseRfc3339(other.CreatedAt);
      if (at <= endedAt - rules.windowMs || at > endedAt) continue;
    }
    restarts++;
  }
  return restarts < rules.maxAttempts;
}

/**
 * When the task ended, to look back from. As it is stored, where that can be: after it was made, and before the leader
 * heard of it. Else the clocks differ, and it ended when the leader heard of it, or (unheard) as soon as it was made.
 */
export function endTime(task: Task, { heardAt }: KnownTimes, now: number): number {
  if (!isTerminal(task.Status.State)) return now;
  const madeAt = parseRfc3339(task.CreatedAt);
  const stored = parseRfc3339(task.Status.AppliedAt ?? task.Status.Timestamp);
  return stored >= madeAt && stored <= (heardAt ?? now) ? stored : (heardAt ?? madeAt);
}

/**
 * When a replacement may start: its delay after it was made. 0 for tasks that are no replacements. Where an earlier
 * leader made it, that was at the latest when it was last written, and at the latest before this lead began.
 */
export function startTime(task: Task, times: KnownTimes): number {
  if (task.StartAfter === undefined) return 0;
  const createdAt = parseRfc3339(task.CreatedAt);
  const madeAt = Math.min(Math.max(createdAt, times.leadsSince), writtenAt(times));
  return madeAt + parseRfc3339(task.StartAfter) - createdAt;
}

/**
 * From when on a task that was told to stop does not hold up its successor: 0 when it has stopped, or nobody can be
 * running it; else a time that it reaches only if its agent says nothing (each report moves it on, since an agent that
 * reports will report the end).
 * @param lost its node is down or deleted
 * @param toldAt when it was told, or last written
 */
export function releaseTime(task: Task, rules: RestartRules, lost: boolean, toldAt: number): number {
  if (lost || isDisposable(task)) return 0;
  return toldAt + rules.stopGraceMs + stopMarginMs;
}
