/** Which changes the orchestrators have to look at, and which keys there are: the same for services and jobs of all kinds. */
import { sameJson } from "../../lib/same.ts";
import { isTerminal, rank } from "../../model/state.ts";
import type { Node } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import { saysWhatItWaitsFor } from "./update-waits.ts";

/**
 * Whether an orchestrator has to look at a task's change. It knows of the tasks that it made itself, and most states
 * on the way to running say nothing to it: only while an update is under way it waits for them.
 */
export function concernsOrchestrator(change: Change & { readonly table: "tasks" }, view: View): boolean {
  const { before, after } = change;
  if (!before) return false;
  if (!after) return true;
  if (before.DesiredState !== after.DesiredState && rank(after.DesiredState) > rank("running")) return true;
  const hasNewReason = before.Status.Err !== after.Status.Err;
  const isChanged = before.Status.State !== after.Status.State || hasNewReason;
  if (isChanged && isTerminal(after.Status.State)) return true;
  const update = view.service(after.ServiceID)?.UpdateStatus;
  if (!update || update.State === "completed" || update.State === "rollback_completed") return false;
  if (saysWhatItWaitsFor(update)) return isChanged || before.Status.Message !== after.Status.Message;
  return isChanged && (hasNewReason || rank(after.Status.State) >= rank("ready"));
}

/** Whether a node's change can make it able or unable to run tasks. */
export function changesAvailability(change: Change & { readonly table: "nodes" }): boolean {
  const { before, after } = change;
  if (!before || !after) return true;
  return (
    (before.Status.State === "down") !== (after.Status.State === "down") ||
    before.Spec.Availability !== after.Spec.Availability
  );
}

/** Whether the node's change can let tasks in or out: also what constraints look at. */
export function changesPlacement(change: Change & { readonly table: "nodes" }): boolean {
  const { before, after } = change;
  if (!before || !after || changesAvailability(change)) return true;
  return !sameJson(placementFacts(before), placementFacts(after));
}

function placementFacts(node: Node): unknown {
  const { Hostname, Platform, Engine } = node.Description ?? {};
  return [node.Role, node.Spec.Labels, node.Status.Addr, Hostname, Platform, Engine?.Labels];
}

/** Ids of all services, and of those that are gone but still have tasks. */
export function* serviceKeys(view: View): Iterable<string> {
  for (const service of view.all("services")) yield service.ID;
  const gone = new Set<string>();
  for (const task of view.all("tasks")) if (!view.service(task.ServiceID)) gone.add(task.ServiceID);
  yield* gone;
}
