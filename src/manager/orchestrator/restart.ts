/**
 * Restart policies, as pure functions over what is stored: may a task that ended (or lost its node) be replaced, when
 * may the replacement start, and when does a task that was told to stop no longer stand in its way. Nothing is
 * remembered outside the store, so a new leader decides as the old one would have.
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
/** Managers' clocks may differ by this much (and should not). */
const clockToleranceMs = 10_000;

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

/**
 * Whether `task`, which ended or lost its node, may be replaced.
 * @param history all stored tasks of its slot (for a global service: of its node)
 * @param rules of the task's own spec
 */
export function mayRestart(task: Task, history: readonly Task[], rules: RestartRules, now: number): boolean {
  if (rules.condition === "none") return false;
  if (rules.condition === "on-failure" && task.Status.State === "complete") return false;
  if (rules.maxAttempts === 0) return true;
  const endedAt = isTerminal(task.Status.State) ? statusTime(task) : now;
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

/** When a task's status was observed: by the manager's clock where it is known, since agents' clocks differ. */
export function statusTime(task: Task): number {
  return parseRfc3339(task.Status.AppliedAt ?? task.Status.Timestamp);
}

/**
 * When a replacement may start: never before its delay is over. 0 for tasks that are no replacements, and for those
 * that were made by a manager whose clock was far ahead: a new leader does not wait for what that one meant.
 */
export function startTime(task: Task, now: number): number {
  return pastTime(parseRfc3339(task.CreatedAt), now) === 0 ? 0 : parseRfc3339(task.StartAfter);
}

/**
 * A stored time of something that has happened. Managers write times by their own clocks: one that is further ahead
 * than clocks may differ says nothing by this manager's clock, and is 0, so that nothing waits for it.
 */
export function pastTime(time: number, now: number): number {
  return time > now + clockToleranceMs ? 0 : time;
}

/**
 * From when on a task that was told to stop does not hold up its successor: 0 when it has stopped, or nobody can be
 * running it; else a time that it reaches only if its agent says nothing (each report moves it on, since an agent that
 * reports will report the end).
 * @param lost its node is down or deleted
 * @param toldAt when it was told, if that is not yet stored
 */
export function releaseTime(task: Task, rules: RestartRules, lost: boolean, toldAt?: number): number {
  if (lost || isDisposable(task)) return 0;
  return (toldAt ?? parseRfc3339(task.UpdatedAt)) + rules.stopGraceMs + stopMarginMs;
}
