/**
 * Replicated jobs: `TotalCompletions` slots, numbered from 0, each of which has to complete once; at most
 * `MaxConcurrent` are at it at the same time, the lowest first. A slot whose task failed for good stays as it is until
 * the job is run again, and the others go on.
 *
 * Better than Swarm: what is still stopping of an earlier iteration counts too, so a job of which only one task may run
 * at a time never has two.
 */
import type { ServiceSpec } from "../../../model/types.ts";
import type { Plan } from "../../planner.ts";
import type { ServicePlan } from "../service-plan.ts";
import { discard } from "../task.ts";
import { countStopping, endFormer, fillPlace, isVacant, JobPlace, jobPlaces, settlePlace } from "./job-place.ts";

type ReplicatedJob = NonNullable<NonNullable<ServiceSpec["Mode"]>["ReplicatedJob"]>;

export function planReplicatedJob(plan: ServicePlan, job: ReplicatedJob): Plan {
  const { MaxConcurrent: concurrent = 1, TotalCompletions: completions = concurrent } = job;
  const placeOf = (slot: number) => ({ slot, nodeId: "" });
  const slots = jobPlaces(plan, (task) => task.Slot, placeOf);

  let busy = 0;
  for (const slot of slots.values()) {
    if (plan.isFull) return plan.result(true);
    endFormer(plan, slot);
    if (settlePlace(plan, slot)) busy++;
    busy += countStopping(plan, slot);
  }
  for (let number = 0; number < completions && busy < concurrent; number++) {
    const slot = slots.get(number) ?? new JobPlace(placeOf(number));
    if (!isVacant(plan, slot)) continue;
    if (plan.isFull) return plan.result(true);
    fillPlace(plan, slot);
    busy++;
  }
  return forgetSlots(plan, slots.values(), completions);
}

/** Of slots that the job has no more, nothing is kept. */
function forgetSlots(plan: ServicePlan, slots: Iterable<JobPlace>, completions: number): Plan {
  for (const { place, former } of slots) {
    if (place.slot < completions) continue;
    for (const task of former) {
      const change = discard(task);
      if (!change) continue;
      if (plan.isFull) return plan.result(true);
      plan.changes.push(change);
    }
  }
  return plan.result(false);
}
