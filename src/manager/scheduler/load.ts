/**
 * What the nodes bear, and which tasks wait for one: an index that equals the committed view, built from it once and
 * fed by its commits. Work per commit is that of what changed.
 *
 * A task bears on its node from the state assigned to running: it holds its reservations and host ports, and counts
 * as active while it is not desired to stop. Decisions that are not yet committed are in the index as assumptions:
 * the commit confirms them, and the next plan takes back what was not confirmed.
 *
 * Loads that grow need not be told: whoever keeps nodes in order of load finds out when it looks. Loads that shrink
 * and nodes that change go into the journal.
 *
 * Other than Swarm, recent failures are still known after a restart, as far as the failed tasks are still stored.
 */

import { parseRfc3339 } from "../../lib/clock.ts";
import { assert } from "../../lib/errors.ts";
import { isActiveDesire, rank, taskStates } from "../../model/state.ts";
import type { GenericResource, Node, Task } from "../../model/types.ts";
import type { Commit, View } from "../../store/store.ts";
import { type Demand, demandOf } from "./demand.ts";
import { claimGeneric, GenericUse } from "./generic.ts";
import { Journal } from "./journal.ts";

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

  /** Failures and rejections on the node in the last five minutes. */
  failuresOn(slot: number, now: number): number {
    const times = this.failures?.get(slot);
    if (!times) return 0;
    let count = 0;
    for (let at = times.length - 1; at >= 0 && times[at]! > now - failureWindowMs; at--) count++;
    return count;
  }
}

/** A waiting task whose node is given (a global service's). */
export interface Preassigned {
  readonly task: Task;
  settledAt: number;
}

interface Assumption {
  readonly load: NodeLoad;
  readonly group: Group;
  readonly generic: readonly GenericResource[] | undefined;
}

export class LoadIndex {
  /** Revision of the view that the index equals. */
  revision: number;
  /** By slot. */
  readonly slots: (NodeLoad | undefined)[] = [];
  readonly journal = new Journal();
  /** Grows when something may have become possible that was not. */
  improvements = 0;
  /** Groups with tasks that wait. */
  readonly waiting = new Set<Group>();
  readonly preassigned = new Map<string, Preassigned>();
  /** Waiting tasks that are desired to stop. */
  readonly unwanted = new Map<string, Task>();
  readonly #freeSlots: number[] = [];
  readonly #loads = new Map<string, NodeLoad>();
  readonly #services = new Map<string, ServiceLoad>();
  readonly #assumptions = new Map<string, Assumption>();

  constructor(view: View) {
    this.revision = view.revision;
    for (const node of view.all("nodes")) this.#setNode(node.ID, node);
    for (const task of view.all("tasks")) this.#add(task, undefined, view);
  }

  /** @param view the committed view, with this commit */
  apply(commit: Commit, view: View): void {
    this.revision = commit.revision;
    for (const change of commit.changes) {
      if (change.table === "tasks") this.#applyTask(change.before, change.after, view);
      else if (change.table === "nodes") this.#setNode(change.id, change.after);
      else if (change.table === "specs") {
        const { ServiceID, Revision } = (change.after ?? change.before)!;
        this.#applySpec(ServiceID, Revision, change.after !== undefined, view);
      }
    }
  }

  nodeLoad(nodeId: string): NodeLoad | undefined {
    return this.#loads.get(nodeId);
  }

  /** The group that a task that waits belongs to. */
  groupOf(task: Task): Group | undefined {
    return this.#services.get(task.ServiceID)?.groups.get(task.SpecVersion.Index);
  }

  *loads(): Iterable<NodeLoad> {
    for (const load of this.slots) if (load) yield load;
  }

  /**
   * Counts a decision that is about to be committed.
   * @returns the generic resources that the task gets
   */
  assume(task: Task, group: Group, load: NodeLoad): readonly GenericResource[] | undefined {
    assert(!this.#assumptions.has(task.ID), `task ${task.ID} is placed twice`);
    const requests = group.demand?.generic ?? [];
    const offered = load.node?.Description?.Resources?.GenericResources;
    const generic = requests.length > 0 ? claimGeneric(requests, offered, load.generic) : undefined;
    this.#hold(load, group, true, generic);
    this.#assumptions.set(task.ID, { load, group, generic });
    return generic;
  }

  /** Takes back every decision that no commit has confirmed. */
  forgetAssumptions(): void {
    for (const { load, group, generic } of this.#assumptions.values()) this.#release(load, group, true, generic);
    this.#assumptions.clear();
  }

  #applyTask(before: Task | undefined, after: Task | undefined, view: View): void {
    if (before && after && before.NodeID === after.NodeID && before.SpecVersion.Index === after.SpecVersion.Index) {
      const kind = bearing(after);
      if (kind !== "none" && kind === bearing(before)) return; // the common case: a status on the way to running
      if (isWaiting(before) && isWaiting(after) && this.#replaceWaiting(after)) return;
    }
    if (before) this.#remove(before);
    if (after) this.#add(after, before, view);
    else if (before) {
      const group = this.groupOf(before);
      if (group) this.#dropIfEmpty(group, view);
    }
  }

  /** Another text on a task that waits: it keeps its place, and nobody has to look at it again. */
  #replaceWaiting(task: Task): boolean {
    const preassigned = this.preassigned.get(task.ID);
    const waiting = this.groupOf(task)?.waiting;
    if (preassigned) this.preassigned.set(task.ID, { task, settledAt: preassigned.settledAt });
    else if (waiting?.has(task.ID)) waiting.set(task.ID, task);
    else return false;
    return true;
  }

  #add(task: Task, before: Task | undefined, view: View): void {
    const kind = bearing(task);
    const { State } = task.Status;
    if (kind === "none" && State !== "pending" && State !== "failed" && State !== "rejected") return;
    if (State === "pending" && !isActiveDesire(task.DesiredState)) {
      this.unwanted.set(task.ID, task);
      return;
    }
    const group = this.#groupFor(task, view);
    if (kind !== "none") {
      const assumption = this.#assumptions.get(task.ID);
      if (assumption) {
        this.#assumptions.delete(task.ID);
        if (assumption.load.id === task.NodeID && kind === "active") return; // counted already
        this.#release(assumption.load, assumption.group, true, assumption.generic);
      }
      this.#hold(this.#loadFor(task.NodeID), group, kind === "active", task.AssignedGenericResources);
    } else if (State === "pending") {
      if (task.NodeID) this.preassigned.set(task.ID, { task, settledAt: -1 });
      else {
        group.waiting.set(task.ID, task);
        group.settledAt = -1;
        this.waiting.add(group);
      }
    } else if (task.NodeID && before?.Status.State !== State) this.#failed(task, group);
    this.#dropIfEmpty(group, view);
  }

  #remove(task: Task): void {
    const kind = bearing(task);
    if (kind === "none" && task.Status.State !== "pending") return;
    this.unwanted.delete(task.ID);
    this.preassigned.delete(task.ID);
    const group = this.groupOf(task);
    if (!group) return;
    if (kind !== "none") {
      const load = this.#loads.get(task.NodeID);
      if (load) this.#release(load, group, kind === "active", task.AssignedGenericResources);
    } else if (group.waiting.delete(task.ID) && group.waiting.size === 0) this.waiting.delete(group);
  }

  #hold(load: NodeLoad, group: Group, active: boolean, generic: readonly GenericResource[] | undefined): void {
    load.held++;
    group.held++;
    if (active) {
      load.active++;
      const counts = group.service.active;
      counts.set(load.slot, (counts.get(load.slot) ?? 0) + 1);
    }
    if (generic && generic.length > 0) (load.generic ??= new GenericUse()).take(generic);
    const { demand } = group;
    if (!demand) return;
    load.nanoCpus += demand.nanoCpus;
    load.memoryBytes += demand.memoryBytes;
    for (const port of demand.hostPorts) {
      load.hostPorts ??= new Map();
      load.hostPorts.set(port, (load.hostPorts.get(port) ?? 0) + 1);
    }
  }

  #release(load: NodeLoad, group: Group, active: boolean, generic: readonly GenericResource[] | undefined): void {
    load.held--;
    group.held--;
    if (active) {
      load.active--;
      const counts = group.service.active;
      const count = (counts.get(load.slot) ?? 0) - 1;
      if (count > 0) counts.set(load.slot, count);
      else counts.delete(load.slot);
    }
    if (generic) load.generic?.giveBack(generic);
    const { demand } = group;
    if (demand) {
      load.nanoCpus -= demand.nanoCpus;
      load.memoryBytes -= demand.memoryBytes;
      for (const port of demand.hostPorts) {
        const count = (load.hostPorts?.get(port) ?? 0) - 1;
        if (count > 0) load.hostPorts?.set(port, count);
        else load.hostPorts?.delete(port);
      }
    }
    this.#improved(load);
    this.#freeIfGone(load);
  }

  #failed(task: Task, group: Group): void {
    const slot = this.#loads.get(task.NodeID)?.slot;
    if (slot === undefined) return;
    group.failures ??= new Map();
    const at = parseRfc3339(task.Status.AppliedAt ?? task.Status.Timestamp);
    const times = (group.failures.get(slot) ?? []).filter((time) => time > at - failureWindowMs);
    times.push(at);
    times.sort((a, b) => a - b);
    group.failures.set(slot, times.slice(-failuresKept));
  }

  #setNode(id: string, node: Node | undefined): void {
    if (!node && !this.#loads.has(id)) return;
    const load = this.#loadFor(id);
    load.node = node;
    load.totalNanoCpus = node?.Description?.Resources?.NanoCPUs ?? 0;
    load.totalMemoryBytes = node?.Description?.Resources?.MemoryBytes ?? 0;
    this.#improved(load);
    this.#freeIfGone(load);
  }

  #applySpec(serviceId: string, revision: number, exists: boolean, view: View): void {
    const group = this.#services.get(serviceId)?.groups.get(revision);
    if (!group) return;
    const spec = exists && !group.demand && group.held === 0 ? view.spec(serviceId, revision) : undefined;
    if (spec) {
      group.demand = demandOf(spec, view);
      group.settledAt = -1;
    }
    this.#dropIfEmpty(group, view);
  }

  #loadFor(nodeId: string): NodeLoad {
    let load = this.#loads.get(nodeId);
    if (!load) {
      load = new NodeLoad(nodeId, this.#freeSlots.pop() ?? this.slots.length);
      this.#loads.set(nodeId, load);
      this.slots[load.slot] = load;
    }
    return load;
  }

  #freeIfGone(load: NodeLoad): void {
    if (load.node || load.held > 0) return;
    for (const { groups } of this.#services.values()) {
      for (const group of groups.values()) group.failures?.delete(load.slot);
    }
    this.#loads.delete(load.id);
    this.slots[load.slot] = undefined;
    this.#freeSlots.push(load.slot);
  }

  #improved(load: NodeLoad): void {
    this.improvements++;
    load.improvedAt = this.improvements;
    this.journal.push(load.slot);
  }

  #groupFor(task: Task, view: View): Group {
    let service = this.#services.get(task.ServiceID);
    if (!service) this.#services.set(task.ServiceID, (service = new ServiceLoad(task.ServiceID)));
    const revision = task.SpecVersion.Index;
    let group = service.groups.get(revision);
    if (!group) {
      group = new Group(service, revision);
      const spec = view.spec(task.ServiceID, revision);
      group.demand = spec && demandOf(spec, view);
      service.groups.set(revision, group);
    }
    return group;
  }

  /** A group lives as long as its spec or a task that it counts. */
  #dropIfEmpty(group: Group, view: View): void {
    const { service, revision } = group;
    if (group.held > 0 || group.waiting.size > 0 || view.spec(service.id, revision)) return;
    service.groups.delete(revision);
    if (service.groups.size === 0) this.#services.delete(service.id);
  }
}

function isWaiting(task: Task): boolean {
  return task.Status.State === "pending" && isActiveDesire(task.DesiredState);
}

/** How a task bears on its node. */
export function bearing(task: Task): "none" | "stopping" | "active" {
  if (task.NodeID === "") return "none";
  const state = rank(task.Status.State);
  if (state < taskStates.assigned || state > taskStates.running) return "none";
  return isActiveDesire(task.DesiredState) ? "active" : "stopping";
}
