/**
 * Global services: one task on each node that is up, not drained and satisfies the constraints. The task is born with
 * its node; the scheduler only confirms it. What happens on a node is `slot.ts` and `updater.ts`, with the node as the
 * slot.
 *
 * A node that goes down, is drained or stops matching loses its task at once, without a replacement; when it is fit
 * again it gets a new one (unless the old had finished for good). A paused node gets no new task and no update; a task
 * that fails there is not replaced until the node is active again.
 */
import { isTerminal } from "../../model/state.ts";
import type { Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, Planner } from "../planner.ts";
import { ServicePlan } from "./service-plan.ts";
import { fillSlot, finishedTask, Slot, settleSlot } from "./slot.ts";
import { shutDown } from "./task.ts";
import { planUpdate } from "./updater.ts";
import { changesPlacement, concernsOrchestrator } from "./wakes.ts";

/** Keys are ids of services. */
export const globalPlanner: Planner = {
  name: "global",
  *keys(view) {
    for (const service of view.all("services")) if (isGlobal(view, service.ID)) yield service.ID;
  },
  wakes,
  plan,
};

function* wakes(change: Change, view: View): Iterable<string> {
  switch (change.table) {
    case "services":
      if (isGlobal(view, change.id)) yield change.id;
      return;
    case "tasks": {
      const { ServiceID, Slot: slot } = (change.after ?? change.before)!;
      if (slot === 0 && isGlobal(view, ServiceID) && concernsOrchestrator(change, view)) yield ServiceID;
      return;
    }
    case "nodes":
      if (changesPlacement(change)) yield* globalPlanner.keys(view);
      return;
    default:
      return;
  }
}

function isGlobal(view: View, serviceId: string): boolean {
  const service = view.service(serviceId);
  return !!service && !!view.specOf(service).Spec.Mode?.Global;
}

function plan(view: View, key: string, context: PlanContext): Plan {
  if (!isGlobal(view, key)) return { changes: [] };
  const plan = new ServicePlan(view, view.service(key)!, context);
  const slots = slotsOf(plan);

  const active: Slot[] = [];
  const paused: Slot[] = [];
  for (const node of view.all("nodes")) {
    if (node.Spec.Availability === "drain" || node.Status.State === "down" || !plan.allows(node)) continue;
    const slot = slots.get(node.ID);
    slots.delete(node.ID);
    if (node.Spec.Availability === "pause") {
      if (slot) paused.push(slot);
    } else active.push(slot ?? new Slot({ slot: 0, nodeId: node.ID }));
  }
  // What is left is on nodes that are not fit for it.
  for (const slot of slots.values()) stop(plan, slot.live);

  const filled = active.filter((slot) => slot.live.length > 0 || finishedTask(plan, slot));
  const update = planUpdate(plan, filled, paused);
  if (update.rolledBack) return plan.result(false);
  for (const slot of paused) settlePaused(plan, slot);
  const settled = new Set(filled);
  for (const slot of active) {
    if (plan.isFull) return plan.result(true);
    if (settled.has(slot)) update.apply(slot);
    else fillSlot(plan, slot);
  }
  return plan.result(false);
}

/** By node. */
function slotsOf(plan: ServicePlan): Map<string, Slot> {
  const slots = new Map<string, Slot>();
  for (const task of plan.view.tasksOfService(plan.service.ID)) {
    let slot = slots.get(task.NodeID);
    if (!slot) slots.set(task.NodeID, (slot = new Slot({ slot: 0, nodeId: task.NodeID })));
    slot.add(task);
  }
  return slots;
}

/** What has begun comes to its end, the old task's if the new one does not run yet. */
function settlePaused(plan: ServicePlan, slot: Slot): void {
  const ended = slot.live.filter((task) => isTerminal(task.Status.State));
  if (ended.length > 0) stop(plan, ended);
  else settleSlot(plan, slot, { begin: undefined, paused: true, order: "stop-first" });
}

function stop(plan: ServicePlan, tasks: readonly Task[]): void {
  for (const task of tasks) plan.changes.push(shutDown(task, plan.context));
}
