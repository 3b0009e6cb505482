/**
 * Making and unmaking tasks: the one place where orchestrators give birth to a task, and where they take back what they
 * want of one. A desired state only ever grows; an observed state is written here only for tasks that no agent has.
 *
 * Better than Swarm: a task that is given up before it has a node ends at once (Swarm's scheduler does that later, and
 * not always).
 */
import { rfc3339 } from "../../lib/clock.ts";
import { assert } from "../../lib/errors.ts";
import { isTerminal, rank } from "../../model/state.ts";
import type { Cluster, Node, Service, ServiceSpec, Task, TaskState } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { Draft } from "../../store/view.ts";
import type { PlanContext, PlannedChange } from "../planner.ts";

/** Where a new task belongs: a slot (replicated), or slot 0 of a node (global). */
export interface Place {
  readonly slot: number;
  /** "" where the scheduler chooses. */
  readonly nodeId: string;
}

export interface Birth {
  readonly place: Place;
  readonly desired: TaskState;
  /** Milliseconds since the epoch. Given for a replacement, and marks it as one (restarts are counted by it). */
  readonly startAfter?: number;
  /** The update that it is made by, named by its start. */
  readonly madeByUpdate?: string | undefined;
  /** See `Task.Generation`. */
  readonly generation: number;
}

/** What a new task is made from. */
export interface Origin {
  readonly service: Service;
  readonly spec: ServiceSpec;
  readonly cluster: Cluster | undefined;
}

/** A task in state `new`, of the service's current spec revision. */
export function newTask(origin: Origin, birth: Birth, context: PlanContext): PlannedChange {
  const { service, spec, cluster } = origin;
  const logDriver = spec.TaskTemplate?.LogDriver ?? cluster?.Spec.TaskDefaults?.LogDriver;
  const object: Draft<Task> = {
    ID: context.newId(),
    ServiceID: service.ID,
    Slot: birth.place.slot,
    NodeID: birth.place.nodeId,
    SpecVersion: { Index: service.SpecVersion.Index },
    Status: { Timestamp: context.nowText, State: "new", Message: "created" },
    DesiredState: birth.desired,
    ...(birth.startAfter !== undefined && { StartAfter: rfc3339(birth.startAfter) }),
    Generation: birth.generation,
    ...(service.JobStatus && { JobIteration: service.JobStatus.JobIteration }),
    ...(birth.madeByUpdate !== undefined && { MadeByUpdate: birth.madeByUpdate }),
    ...(logDriver && { LogDriver: logDriver }),
  };
  return { kind: "create", table: "tasks", object };
}

/** Wants more of a task than that it is ready: that it runs, or (a job's) comes to its end. */
export function promote(task: Task, desired: "running" | "complete" = "running"): PlannedChange {
  return update(task, desired);
}

/** The task has to end, and stays in the slot's history. */
export function shutDown(task: Task, context: PlanContext): PlannedChange {
  if (!isUnassigned(task)) return update(task, "shutdown");
  const Status = {
    ...task.Status,
    Timestamp: context.nowText,
    State: "shutdown" as const,
    Message: "shut down before it was assigned",
  };
  return { kind: "update", table: "tasks", object: { ...task, DesiredState: "shutdown", Status } };
}

/** The task has to go: at once where no agent runs it, else when its agent has stopped it (the reaper does that). */
export function discard(task: Task): PlannedChange | undefined {
  if (isDisposable(task)) return { kind: "delete", table: "tasks", id: task.ID };
  return task.DesiredState === "remove" ? undefined : update(task, "remove");
}

/** No agent runs it, nor will once it is no longer wanted. */
export function isDisposable(task: Task): boolean {
  return isTerminal(task.Status.State) || isUnassigned(task);
}

/** No node has been told of it. (A global task has a NodeID from its birth, but is confirmed by the scheduler.) */
export function isUnassigned(task: Task): boolean {
  return rank(task.Status.State) < rank("assigned");
}

/** The node cannot run anything, so what it was running no longer counts. */
export function isLost(view: View, nodeId: string): boolean {
  if (nodeId === "") return false;
  const node = view.get("nodes", nodeId);
  return !node || node.Status.State === "down";
}

export function isDrained(node: Node | undefined): boolean {
  return node?.Spec.Availability === "drain";
}

function update(task: Task, desired: TaskState): PlannedChange {
  assert(rank(desired) > rank(task.DesiredState), `task ${task.ID} cannot go from ${task.DesiredState} to ${desired}`);
  return { kind: "update", table: "tasks", object: { ...task, DesiredState: desired } };
}
