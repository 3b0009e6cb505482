/**
 * What is checked. A checker is one invariant, and its file says when it must hold:
 * - always: after every commit, at every plan, at every event of a container;
 * - eventually: within a bound after the last fault, and then for good;
 * - finally: once everything has come to rest.
 */
import type { ServiceSpec, Task } from "../../src/model/types.ts";
import type { Commit, View } from "../../src/store/store.ts";
import type { Container, ContainerEvent } from "./engine.ts";
import type { SimulatedNode } from "./node.ts";
import type { Attempt } from "./shared-store.ts";

/** What checkers see of the cluster: more than anybody in it does. */
export interface Overview {
  now(): number;
  /** The shared store as it is at this moment. */
  readonly view: View;
  readonly nodes: readonly SimulatedNode[];
  /** All containers, also of nodes that are down. */
  containers(): Iterable<Container>;
  /** The task's node was down at some time since the task was made, or is deleted. */
  wasDown(task: Task): boolean;
  specOf(task: Task): ServiceSpec | undefined;
  /** Since when nothing is broken; now while something is. */
  calmSince(): number;
}

/** Throws by returning a text: what is wrong. */
export type Finding = string | undefined;

export interface Checker {
  readonly name: string;
  readonly when: "always" | "eventually" | "finally";
  /** After each commit; `overview.view` has it. */
  commit?(commit: Commit): Finding;
  /** When a manager sends a batch on its way. */
  attempt?(attempt: Attempt): Finding;
  container?(container: Container, event: ContainerEvent): Finding;
  /** Of those that do not hold always: what is still wrong. */
  state?(): Finding;
}

export type CheckerFactory = (overview: Overview) => Checker;

/** The order in which a service replaces its tasks lets so many of a slot be there at once. */
export function tasksAtOnce(spec: ServiceSpec | undefined): number {
  const isStartFirst = spec?.UpdateConfig?.Order === "start-first" || spec?.RollbackConfig?.Order === "start-first";
  return isStartFirst ? 2 : 1;
}

/** The place that a task has in its service: its slot, or (global) its node. */
export function placeOf({ ServiceID, Slot, NodeID }: Pick<Task, "ServiceID" | "Slot" | "NodeID">): string {
  return `${ServiceID}.${Slot || NodeID}`;
}

export function describeTask(task: Task | undefined): string {
  if (!task) return "(gone)";
  const { ID, NodeID, SpecVersion, Status, DesiredState } = task;
  return `${ID.slice(0, 6)} ${placeOf(task)} r${SpecVersion.Index} on ${NodeID || "-"}: ${Status.State} -> ${DesiredState}`;
}
