/**
 * What to do next for a task. Pure: from what is wanted, what has been reported, and what there is, one step; taking
 * it changes what there is, or what has been reported, and the question is asked again. Nothing here knows what
 * happened before, so a lost event, a restarted agent or an adopted container need no code of their own.
 *
 * Invariant: a step never reports a lower state than the one that was reported.
 */
import { isTerminal, rank, type TaskState } from "../model/state.ts";
import type { Exit, Observation } from "./executor/executor.ts";

export interface Situation {
  /** The manager's wish. */
  readonly desired: TaskState;
  /** The task is no longer assigned to this node: clear everything away, report nothing. */
  readonly retired: boolean;
  /** The last reported state. */
  readonly state: TaskState;
  /** Undefined as long as it is not known what there is. */
  readonly observed: Observation | undefined;
  /** Why we ourselves stopped it, where that makes its end a failure; it is stopped, however it is by now. */
  readonly cause: string | undefined;
  /** Names and addresses of networks may lead to it: it is to be withdrawn from them before it is stopped. */
  readonly led: boolean;
}

export type Step =
  /** Nothing to do until something changes. */
  | { readonly kind: "rest" }
  | { readonly kind: "report"; readonly state: TaskState; readonly message?: string; readonly err?: string }
  | { readonly kind: "prepare" }
  | { readonly kind: "run" }
  | { readonly kind: "inspect" }
  /** Lets no new connection come to it, and those that are there come to their end; bounded. @see Situation.cause */
  | { readonly kind: "withdraw"; readonly cause?: string }
  /** @see Situation.cause */
  | { readonly kind: "halt"; readonly cause?: string }
  | { readonly kind: "remove" }
  /** Nothing is left of a retired task. */
  | { readonly kind: "forget" };

/** Stock Swarm's words for a failed health check. */
const unhealthy = "dockerexec: unhealthy container";

const rest: Step = { kind: "rest" };

export function nextStep(situation: Situation): Step {
  const { desired, retired, state, observed } = situation;
  if (!observed) return rest;
  if (retired) return observed.kind === "absent" ? { kind: "forget" } : clearAway(situation, observed);
  if (isTerminal(state)) return afterTheEnd(situation, observed);
  if (rank(desired) >= rank("shutdown")) {
    return observed.kind === "running" ? stop(situation) : { kind: "report", state: "shutdown", message: "shutdown" };
  }
  if (rank(state) < rank("accepted")) return { kind: "report", state: "accepted", message: "accepted" };
  if (rank(state) < rank("preparing")) return { kind: "report", state: "preparing", message: "preparing" };
  if (rank(state) < rank("starting")) {
    // Also once it was ready: a container that somebody removed before its start is simply made again.
    if (observed.kind === "absent") return { kind: "prepare" };
    if (rank(state) < rank("ready")) return { kind: "report", state: "ready", message: "prepared" };
    if (rank(desired) < rank("running")) return rest;
    return { kind: "report", state: "starting", message: "starting" };
  }
  return whileUp(situation, observed);
}

/** Finished, whatever the managers wish: nothing of it may run, and with `remove` nothing may be left. */
function afterTheEnd(situation: Situation, observed: Observation): Step {
  if (observed.kind === "running") return stop(situation);
  return rank(situation.desired) >= rank("remove") && observed.kind !== "absent" ? { kind: "remove" } : rest;
}

function clearAway(situation: Situation, observed: Observation): Step {
  return observed.kind === "running" ? stop(situation) : { kind: "remove" };
}

function stop({ led }: Situation, cause?: string): Step {
  return { kind: led ? "withdraw" : "halt", ...(cause === undefined ? {} : { cause }) };
}

/** Starting or running. */
function whileUp(situation: Situation, observed: Observation): Step {
  const { state, cause } = situation;
  switch (observed.kind) {
    case "created":
      return state === "starting" ? { kind: "run" } : failed("the container has never been started");
    case "running":
      if (cause !== undefined) return stop(situation, cause);
      if (!observed.detail) return { kind: "inspect" };
      switch (observed.detail.health) {
        case "unhealthy":
          return stop(situation, unhealthy);
        case "starting":
          return rest;
        default:
          return state === "running" ? rest : { kind: "report", state: "running", message: "started" };
      }
    case "exited":
      return observed.exit ? ended(observed.exit, cause) : { kind: "inspect" };
    case "absent":
      return observed.exit ? ended(observed.exit, cause) : failed("the container has been removed");
  }
}

/** 0 is a success, unless it is the answer to our own TERM, or to the Engine's. */
function ended(exit: Exit, cause: string | undefined): Step {
  const reason = cause ?? exit.reason;
  if (exit.code === 0 && !reason) return { kind: "report", state: "complete", message: "finished" };
  return failed(
    exit.code === 0 ? `task: ${reason}` : `task: non-zero exit (${exit.code})${reason ? `: ${reason}` : ""}`,
  );
}

function failed(err: string): Step {
  return { kind: "report", state: "failed", err };
}
