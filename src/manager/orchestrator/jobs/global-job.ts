/**
 * Global jobs: one task on each node that is active and satisfies the constraints, once per iteration; a node that
 * comes later gets its own. Tasks are born with their node, as those of global services are.
 *
 * A task on a node that goes down is left as it is: nobody else can do its work, and whether it goes on, has completed
 * or was lost is known when the node is back. A drained or no longer matching node has to stop its task, and gets
 * another when it is fit again. On a paused node the task comes to its end, and a failed one waits for the node.
 */
import { isTerminal } from "../../../model/state.ts";
import type { Plan } from "../../planner.ts";
import type { ServicePlan } from "../service-plan.ts";
import { endFormer, endLive, fillPlace, isVacant, JobPlace, jobPlaces, settlePlace } from "./job-place.ts";

export function planGlobalJob(plan: ServicePlan): Plan {
  const placeOf = (nodeId: string) => ({ slot: 0, nodeId });
  const places = jobPlaces(plan, (task) => task.NodeID, placeOf);
  for (const place of places.values()) {
    if (plan.isFull) return plan.result(true);
    endFormer(plan, place);
  }
  for (const node of plan.view.all("nodes")) {
    if (plan.isFull) return plan.result(true);
    const place = places.get(node.ID) ?? new JobPlace(placeOf(node.ID));
    places.delete(node.ID);
    if (node.Spec.Availability === "drain" || !plan.allows(node)) endLive(plan, place);
    else if (node.Status.State === "down") continue;
    else if (node.Spec.Availability === "pause") settlePaused(plan, place);
    else if (isVacant(plan, place)) fillPlace(plan, place);
    else settlePlace(plan, place);
  }
  // What is left is of nodes that are gone.
  for (const place of places.values()) endLive(plan, place);
  return plan.result(false);
}

function settlePaused(plan: ServicePlan, place: JobPlace): void {
  if (!place.live.some((task) => isTerminal(task.Status.State))) settlePlace(plan, place);
}
