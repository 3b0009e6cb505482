/**
 * Replicated services: `Replicas` slots, numbered from 1, each with one task that runs. Slots that are missing are
 * filled with the lowest free numbers, surplus ones are removed, and what happens inside of a slot is `slot.ts` (see
 * there for restarts) with `updater.ts` (rolling updates). Tasks of a service that is gone, of whatever mode, are
 * discarded here.
 *
 * A slot whose newest task ended and may not be restarted counts as filled until the spec changes. A new task waits
 * for whatever is still stopping in its slot (in Swarm, a scale down and up again lets both run for a while).
 */
import type { Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";
import { ServicePlan } from "./service-plan.ts";
import { fillSlot, finishedTask, newestTask, Slot } from "./slot.ts";
import { discard } from "./task.ts";
import { planUpdate } from "./updater.ts";
import { changesAvailability, concernsOrchestrator, serviceKeys } from "./wakes.ts";

/** Keys are ids of services, also of removed ones. */
export const replicatedPlanner: Planner = {
  name: "replicated",
  keys: serviceKeys,
  wakes,
  plan,
};

function* wakes(change: Change, view: View): Iterable<string> {
  switch (change.table) {
    case "services":
      yield change.id;
      return;
    case "tasks":
      if (concernsOrchestrator(change, view)) yield (change.after ?? change.before)!.ServiceID;
      return;
    case "nodes":
      if (!changesAvailability(change)) return;
      for (const task of view.tasksOfNode(change.id)) yield task.ServiceID;
      return;
    default:
      return;
  }
}

function plan(view: View, key: string, context: PlanContext): Plan {
  const service = view.service(key);
  if (key === "") return { changes: [] }; // users' containers on networks: they never had a service
  if (!service) return discardAll(view.tasksOfService(key), context.room);
  const mode = view.specOf(service).Spec.Mode;
  if (mode?.Global || mode?.ReplicatedJob || mode?.GlobalJob) return { changes: [] };
  return planReplicas(new ServicePlan(view, service, context), mode?.Replicated?.Replicas ?? 1);
}

/** The service is gone: so go its tasks, each when its agent has stopped it. */
function discardAll(tasks: Iterable<Task>, room: number): Plan {
  const changes: PlannedChange[] = [];
  for (const task of tasks) {
    const change = discard(task);
    if (!change) continue;
    if (changes.length >= room) return { changes, more: true };
    changes.push(change);
  }
  return { changes };
}

function planReplicas(plan: ServicePlan, replicas: number): Plan {
  const slots = slotsOf(plan);
  const filled: Slot[] = [];
  const vacant: Slot[] = [];
  for (const slot of slots.values()) {
    if (slot.live.length > 0 || finishedTask(plan, slot)) filled.push(slot);
    else vacant.push(slot);
  }
  const { kept, surplus } = splitForScaleDown(filled, replicas);

  const update = planUpdate(plan, kept);
  if (update.rolledBack) return plan.result(false);
  for (const slot of kept) {
    if (plan.isFull) return plan.result(true);
    update.apply(slot);
  }
  const taken = new Set(kept.map((slot) => slot.place.slot));
  for (let number = 1; taken.size < replicas; number++) {
    if (taken.has(number)) continue;
    if (plan.isFull) return plan.result(true);
    taken.add(number);
    fillSlot(plan, slots.get(number) ?? new Slot({ slot: number, nodeId: "" }));
  }
  const dead = vacant.filter((slot) => !taken.has(slot.place.slot));
  for (const slot of [...surplus, ...dead]) {
    for (const task of slot.tasks) {
      const change = discard(task);
      if (!change) continue;
      if (plan.isFull) return plan.result(true);
      plan.changes.push(change);
    }
  }
  return plan.result(false);
}

function slotsOf(plan: ServicePlan): Map<number, Slot> {
  const slots = new Map<number, Slot>();
  for (const task of plan.view.tasksOfService(plan.service.ID)) {
    let slot = slots.get(task.Slot);
    if (!slot) slots.set(task.Slot, (slot = new Slot({ slot: task.Slot, nodeId: "" })));
    slot.add(task);
  }
  return slots;
}

/**
 * Which slots stay when there are too many. Nodes with several copies lose first: the n-th copy on a node goes before
 * any (n-1)-th, slots in change or without a node before those; then those that do not run; then high numbers.
 */
function splitForScaleDown(
  filled: readonly Slot[],
  replicas: number,
): { kept: readonly Slot[]; surplus: readonly Slot[] } {
  if (filled.length <= replicas) return { kept: filled, surplus: [] };
  const ordered = filled
    .map((slot) => ({ slot, runs: slot.live.some((task) => task.Status.State === "running"), copy: Infinity }))
    .toSorted((left, right) => Number(right.runs) - Number(left.runs) || left.slot.place.slot - right.slot.place.slot);
  const copies = new Map<string, number>();
  for (const entry of ordered) {
    const nodeId = nodeOf(entry.slot);
    if (!nodeId) continue;
    entry.copy = (copies.get(nodeId) ?? 0) + 1;
    copies.set(nodeId, entry.copy);
  }
  // The sort is stable: equal copies stay in the order of the first sort. (Infinity - Infinity is NaN.)
  ordered.sort((left, right) => (left.copy === right.copy ? 0 : left.copy - right.copy));
  const slots = ordered.map((entry) => entry.slot);
  return { kept: slots.slice(0, replicas), surplus: slots.slice(replicas) };
}

/** The node of the slot's only task. */
function nodeOf({ live, tasks }: Slot): string | undefined {
  const only = live.length > 0 ? live : [newestTask(tasks)];
  return only.length === 1 ? only[0]?.NodeID : undefined;
}
