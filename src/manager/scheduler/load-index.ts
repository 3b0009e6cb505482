/**
 * What the nodes bear, and which tasks wait for one: an index that equals the committed view, built from it once and
 * fed by its commits. Work per commit is that of what changed.
 *
 * Decisions that are not yet committed are in the index as assumptions: the commit confirms them, and the next plan
 * takes back what was not confirmed.
 *
 * Loads that grow need not be told: whoever keeps nodes in order of load finds out when it looks. Loads that shrink
 * and nodes that change go into the journal.
 *
 * Other than Swarm, recent failures are still known after a restart, as far as the failed tasks are still stored.
 */
import { parseRfc3339 } from "../../lib/clock.ts";
import { assert } from "../../lib/errors.ts";
import { isActiveDesire } from "../../model/state.ts";
import type { GenericResource, Node, Task } from "../../model/types.ts";
import type { Commit, View } from "../../store/store.ts";
import { demandOf } from "./demand.ts";
import { claimGeneric } from "./generic.ts";
import { Journal } from "./journal.ts";
import { bearing, Group, hold, isWaiting, NodeLoad, release, ServiceLoad } from "./load.ts";

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
    hold(load, group, true, generic);
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
      hold(this.#loadFor(task.NodeID), group, kind === "active", task.AssignedGenericResources);
    } else if (State === "pending") {
      if (task.NodeID) this.preassigned.set(task.ID, { task, settledAt: -1 });
      else {
        group.waiting.set(task.ID, task);
        group.settledAt = -1;
        this.waiting.add(group);
      }
    } else if (task.NodeID && before?.Status.State !== State) this.#failed(task, group, view);
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

  #release(load: NodeLoad, group: Group, active: boolean, generic: readonly GenericResource[] | undefined): void {
    release(load, group, active, generic);
    this.#improved(load);
    this.#freeIfGone(load);
  }

  #failed(task: Task, group: Group, view: View): void {
    const load = this.#loads.get(task.NodeID);
    const storedAt = parseRfc3339(task.Status.AppliedAt ?? task.Status.Timestamp);
    if (load) group.failed(load.slot, view.heardAt(task) ?? storedAt);
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
