/**
 * Gives each task that waits in state "pending" a node: "assigned".
 *
 * Tasks of one spec revision are placed as one group (`placement.ts`), on the nodes that their signature has in order
 * of load (`candidates.ts`); what the nodes bear is in an index that follows the commits (`load-index.ts`). So a batch costs
 * O(tasks x log nodes), and a single task next to nothing however large the cluster is. There is no waiting for more
 * tasks to come: one is placed at once, and what comes while a batch is being written is the next batch.
 *
 * Invariants: a decision is only made on the view that the index equals, and a task is only ever assigned from
 * "pending". A task that cannot be placed says why, and is tried again when a node changed or a load shrank (not when
 * one grew: so its text is of when it was last tried).
 *
 * Where it differs from Swarm: no debounce; preferences put unused branches that are equally good in turns.
 */
import { assert } from "../../lib/errors.ts";
import type { Task, TaskStatus } from "../../model/types.ts";
import type { Change, Commit, Store, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";
import { Candidates } from "./candidates.ts";
import type { Demand } from "./demand.ts";
import { explain, isFeasible } from "./filters.ts";
import { bearing, type Group } from "./load.ts";
import { LoadIndex, type Preassigned } from "./load-index.ts";
import { Placement } from "./placement.ts";

/** The scheduler's only key: tasks are placed together. */
const everything = "tasks";
const wakeUp: readonly string[] = [everything];
const nothing: readonly string[] = [];

/**
 * Nodes in the trees of all signatures together, at some 20 bytes each: 2,000 signatures for 1,000 nodes. The tree of a
 * signature that was not used for the longest time goes first, and is made anew when it is needed.
 */
const candidatesKept = 2_000_000;
const fewestSignatures = 16;

export class Scheduler implements Planner {
  readonly name = "scheduler";
  readonly alone = true;
  #index: LoadIndex;
  /** Why the index no longer follows the store. */
  #failure: { readonly error: unknown } | undefined;
  readonly #unwatch: () => void;
  /** By signature, the one that was used last at the end. */
  readonly #candidates = new Map<string, Candidates>();

  /** Reads the whole view once, then follows the store until `close`. */
  constructor(store: Store) {
    this.#index = new LoadIndex(store.view);
    this.#unwatch = store.watch((commit) => this.#follow(commit, store.view));
  }

  close(): void {
    this.#unwatch();
  }

  wakes(change: Change): Iterable<string> {
    switch (change.table) {
      case "nodes":
        return wakeUp;
      case "tasks":
        return mayNeedPlan(change.before, change.after) ? wakeUp : nothing;
      case "specs":
      case "services":
      case "networks":
      case "secrets":
      case "configs":
      case "cluster":
      case "locks":
        return nothing;
    }
  }

  keys(): Iterable<string> {
    return wakeUp;
  }

  plan(view: View, _key: string, context: PlanContext): Plan {
    this.#mend(view);
    assert(view.revision === this.#index.revision, "the scheduler plans on the view that its index equals");
    this.#index.forgetAssumptions();
    this.#index.journal.trim(this.#index.slots.length);
    const changes = new Changes(context.room);
    this.#planUnwanted(changes, context);
    this.#planPreassigned(changes, context);
    this.#planGroups(changes, context);
    return { changes: changes.list, more: changes.more };
  }

  #follow(commit: Commit, view: View): void {
    try {
      this.#index.apply(commit, view);
    } catch (error) {
      this.#failure = { error }; // it is not the fault of whoever made the commit: the next plan tells
    }
  }

  /** Where the index could not follow the store, makes it anew, and throws why. */
  #mend(view: View): void {
    if (!this.#failure) return;
    const { error } = this.#failure;
    this.#index = new LoadIndex(view);
    this.#candidates.clear();
    this.#failure = undefined;
    throw error;
  }

  /** A task that is to stop before it ever got a node: nobody else would end it. */
  #planUnwanted(changes: Changes, { nowText }: PlanContext): void {
    for (const task of this.#index.unwanted.values()) {
      if (!changes.hasRoom()) return;
      const status = { State: "shutdown", Timestamp: nowText, Message: "shut down before it was assigned" } as const;
      changes.add({ ...task, Status: status });
    }
  }

  #planPreassigned(changes: Changes, context: PlanContext): void {
    for (const preassigned of this.#index.preassigned.values()) {
      if (!changes.hasRoom()) return;
      this.#planOnePreassigned(preassigned, changes, context);
    }
  }

  #planOnePreassigned(preassigned: Preassigned, changes: Changes, { nowText }: PlanContext): void {
    const { task } = preassigned;
    const group = this.#index.groupOf(task);
    const load = this.#index.nodeLoad(task.NodeID);
    if (!group?.demand || !load || preassigned.settledAt >= load.improvedAt) return;
    const ofService = group.service.activeOn(load.slot);
    if (isFeasible(group.demand, load, ofService)) {
      const message = "scheduler confirmed task can run on preassigned node";
      changes.add(assigned(task, load.id, message, nowText, this.#index.assume(task, group, load)));
    } else if (
      !changes.explain(
        task,
        explain(group.demand, [load], () => ofService),
        nowText,
      )
    ) {
      preassigned.settledAt = this.#index.improvements;
    }
  }

  #planGroups(changes: Changes, context: PlanContext): void {
    const explanations = new Map<string, string>();
    for (const group of this.#index.waiting) {
      if (!changes.hasRoom()) return;
      const { demand } = group;
      if (!demand || group.settledAt === this.#index.improvements) continue;
      const before = changes.list.length;
      const rest = this.#placeGroup(group, demand, changes, context);
      if (rest.length === 0) continue;
      const text = this.#explain(group, demand, explanations);
      for (const task of rest) changes.explain(task, text, context.nowText);
      if (changes.list.length === before) group.settledAt = this.#index.improvements;
    }
  }

  /** Places as many as there are nodes and room for; returns those for which there is no node. */
  #placeGroup(group: Group, demand: Demand, changes: Changes, { now, nowText }: PlanContext): readonly Task[] {
    const index = this.#index;
    const placement = new Placement(index, group, demand, this.#candidatesFor(demand), now);
    const rest: Task[] = [];
    for (const task of group.waiting.values()) {
      if (!changes.hasRoom()) break;
      const load = rest.length > 0 ? undefined : placement.next(); // what one did not find, no other of its group will
      if (!load) rest.push(task);
      else {
        const generic = index.assume(task, group, load);
        changes.add(assigned(task, load.id, "scheduler assigned task to node", nowText, generic));
      }
    }
    placement.end();
    return rest;
  }

  #explain(group: Group, demand: Demand, known: Map<string, string>): string {
    const shared = demand.maxReplicas === 0 && demand.hostPorts.length === 0;
    let reasons = shared ? known.get(demand.signature) : undefined;
    if (reasons === undefined) {
      reasons = explain(demand, this.#index.loads(), ({ slot }) => group.service.activeOn(slot));
      if (shared) known.set(demand.signature, reasons);
    }
    return reasons ? `no suitable node (${reasons})` : "no suitable node";
  }

  #candidatesFor(demand: Demand): Candidates {
    let candidates = this.#candidates.get(demand.signature);
    if (candidates) this.#candidates.delete(demand.signature);
    else {
      candidates = new Candidates(demand, this.#index);
      this.#forgetCandidates();
    }
    this.#candidates.set(demand.signature, candidates);
    return candidates;
  }

  #forgetCandidates(): void {
    const most = Math.max(fewestSignatures, candidatesKept / Math.max(1, this.#index.slots.length));
    for (const signature of this.#candidates.keys()) {
      if (this.#candidates.size < most) return;
      this.#candidates.delete(signature);
    }
  }
}

/** Whether a task came to wait, or gives something back. Texts on waiting tasks are the scheduler's own. */
function mayNeedPlan(before: Task | undefined, after: Task | undefined): boolean {
  if (after?.Status.State === "pending") {
    return before?.Status.State !== "pending" || before.DesiredState !== after.DesiredState;
  }
  const kind = before ? bearing(before) : "none";
  return kind !== "none" && (!after || bearing(after) !== kind);
}

/** What a plan writes: as much as fits into the transaction. */
class Changes {
  readonly list: PlannedChange[] = [];
  /** There was more to do than fits. */
  more = false;
  readonly #room: number;

  constructor(room: number) {
    this.#room = room;
  }

  /** To be asked before anything is decided that would have to be written. */
  hasRoom(): boolean {
    if (this.list.length < this.#room) return true;
    this.more = true;
    return false;
  }

  add(task: Task): void {
    this.list.push({ kind: "update", table: "tasks", object: task });
  }

  /** Writes why a task waits, if it does not say so yet; false where nothing had to be written. */
  explain(task: Task, text: string, nowText: string): boolean {
    if (task.Status.Err === text) return false;
    if (!this.hasRoom()) return true;
    this.add({
      ...task,
      Status: { ...task.Status, Timestamp: nowText, Message: "pending task scheduling", Err: text },
    });
    return true;
  }
}

function assigned(
  task: Task,
  nodeId: string,
  message: string,
  nowText: string,
  generic: Task["AssignedGenericResources"],
): Task {
  const status: TaskStatus = { State: "assigned", Timestamp: nowText, Message: message };
  const object = { ...task, NodeID: nodeId, Status: status };
  return generic ? { ...object, AssignedGenericResources: generic } : object;
}
