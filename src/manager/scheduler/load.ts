/**
 * What nodes bear, services have and spec revisions wait for: the entries of the index (`load-index.ts`), and how a
 * task counts in them.
 *
 * A task bears on its node from the state assigned to running: it holds its reservations and host ports, and counts
 * as active while it is not desired to stop.
 */
import { isActiveDesire, rank, taskStates } from "../../model/state.ts";
import type { GenericResource, Node, Task } from "../../model/types.ts";
import type { Demand } from "./demand.ts";
import { GenericUse } from "./generic.ts";

/** From this many failures within the window on, a node comes after those with fewer. */
export const manyFailures = 5;
const failureWindowMs = 5 * 60_000;
/** Failures of one revision on one node that are remembered: more would not rank it any lower in practice. */
const failuresKept = 100;

/** One node. */
export class NodeLoad {
  readonly id: string;
  /** A small number, the node's in every array and heap as long as it is known. */
  readonly slot: number;
  /** undefined: it is gone, but tasks still name it. */
  node: Node | undefined;
  totalNanoCpus = 0;
  totalMemoryBytes = 0;
  /** Tasks that hold something here. */
  held = 0;
  /** Those of them that are not desired to stop. */
  active = 0;
  nanoCpus = 0;
  memoryBytes = 0;
  /** `protocol/port` -> how many tasks have it (more than one only where nodes were not asked). */
  hostPorts: Map<string, number> | undefined;
  generic: GenericUse | undefined;
  /** Journal position of the last time that it could have become fitter. */
  improvedAt = 0;

  constructor(id: string, slot: number) {
    this.id = id;
    this.slot = slot;
  }
}

/** A service's active tasks by node slot, and its revisions. */
export class ServiceLoad {
  readonly id: string;
  readonly active = new Map<number, number>();
  readonly groups = new Map<number, Group>();

  constructor(id: string) {
    this.id = id;
  }

  activeOn(slot: number): number {
    return this.active.get(slot) ?? 0;
  }
}

/** The tasks of one spec revision. */
export class Group {
  readonly service: ServiceLoad;
  readonly revision: number;
  /** undefined: its spec is gone, so it asks for nothing and can't be placed. */
  demand: Demand | undefined;
  /** Tasks that wait for a node, oldest first. */
  readonly waiting = new Map<string, Task>();
  held = 0;
  /** Times of failures by node slot, oldest first. */
  failures: Map<number, number[]> | undefined;
  /** `improvements` when it was last found that nothing can be done for those that wait; -1: not looked at. */
  settledAt = -1;

  constructor(service: ServiceLoad, revision: number) {
    this.service = service;
    this.revision = revision;
  }

  /** @param at milliseconds since the epoch */
  failed(slot: number, at: number): void {
    this.failures ??= new Map();
    const times = (this.failures.get(slot) ?? []).filter((time) => time > at - failureWindowMs);
    times.push(at);
    times.sort((a, b) => a - b);
    this.failures.set(slot, times.slice(-failuresKept));
  }

  /** Failures and rejections on the node in the last five minutes. */
  failuresOn(slot: number, now: number): number {
    const times = this.failures?.get(slot);
    if (!times) return 0;
    let count = 0;
    for (let at = times.length - 1; at >= 0 && times[at]! > now - failureWindowMs; at--) count++;
    return count;
  }
}

/** Counts a task of the group on the node. */
export function hold(
  load: NodeLoad,
  group: Group,
  active: boolean,
  generic: readonly GenericResource[] | undefined,
): void {
  count(load, group, active, 1);
  if (generic && generic.length > 0) (load.generic ??= new GenericUse()).take(generic);
}

/** Takes back a `hold`. */
export function release(
  load: NodeLoad,
  group: Group,
  active: boolean,
  generic: readonly GenericResource[] | undefined,
): void {
  count(load, group, active, -1);
  if (generic) load.generic?.giveBack(generic);
}

function count(load: NodeLoad, group: Group, active: boolean, by: 1 | -1): void {
  load.held += by;
  group.held += by;
  if (active) {
    load.active += by;
    add(group.service.active, load.slot, by);
  }
  const { demand } = group;
  if (!demand) return;
  load.nanoCpus += by * demand.nanoCpus;
  load.memoryBytes += by * demand.memoryBytes;
  if (demand.hostPorts.length === 0) return;
  load.hostPorts ??= new Map();
  for (const port of demand.hostPorts) add(load.hostPorts, port, by);
}

/** Counts of 0 are not kept. */
function add<K>(counts: Map<K, number>, key: K, by: number): void {
  const sum = (counts.get(key) ?? 0) + by;
  if (sum > 0) counts.set(key, sum);
  else counts.delete(key);
}

/** It is for the scheduler to find (or confirm) its node. */
export function isWaiting(task: Task): boolean {
  return task.Status.State === "pending" && isActiveDesire(task.DesiredState);
}

/** How a task bears on its node. */
export function bearing(task: Task): "none" | "stopping" | "active" {
  if (task.NodeID === "") return "none";
  const state = rank(task.Status.State);
  if (state < taskStates.assigned || state > taskStates.running) return "none";
  return isActiveDesire(task.DesiredState) ? "active" : "stopping";
}
