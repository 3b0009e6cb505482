/**
 * Jobs: services whose tasks run to their end. A job runs once for each iteration, which is a number of the service
 * that every accepted update raises; what an earlier iteration has not finished is taken back, and what it has finished
 * stays as history (which the reaper trims). There is no updater: see `replicated-job.ts` and `global-job.ts` for what
 * is to run, and `job-place.ts` for restarts.
 *
 * Better than Swarm, whose jobs do not look at nodes: a node that joins gets its task of a global job, and the tasks of
 * one that is lost run elsewhere at once.
 */
import type { ServiceSpec } from "../../../model/types.ts";
import { isJob } from "../../../model/validate-service.ts";
import type { Change, View } from "../../../store/store.ts";
import type { Plan, PlanContext, Planner } from "../../planner.ts";
import { ServicePlan } from "../service-plan.ts";
import { changesAvailability, changesPlacement, concernsOrchestrator } from "../wakes.ts";
import { planGlobalJob } from "./global-job.ts";
import { planReplicatedJob } from "./replicated-job.ts";

/** Keys are ids of services. */
export const jobsPlanner: Planner = {
  name: "jobs",
  *keys(view) {
    for (const { ID } of view.all("services")) if (isJobService(view, ID)) yield ID;
  },
  wakes,
  plan,
};

function* wakes(change: Change, view: View): Iterable<string> {
  switch (change.table) {
    case "services":
      if (isJobService(view, change.id)) yield change.id;
      return;
    case "tasks": {
      const { ServiceID } = (change.after ?? change.before)!;
      if (isJobService(view, ServiceID) && concernsOrchestrator(change, view)) yield ServiceID;
      return;
    }
    case "nodes": {
      if (!changesPlacement(change)) return;
      const isForAll = changesAvailability(change);
      for (const id of jobsPlanner.keys(view)) if (isForAll || modeOf(view, id)?.GlobalJob) yield id;
      return;
    }
    default:
      return;
  }
}

function plan(view: View, key: string, context: PlanContext): Plan {
  const mode = modeOf(view, key);
  if (!mode?.ReplicatedJob && !mode?.GlobalJob) return { changes: [] };
  const plan = new ServicePlan(view, view.service(key)!, context);
  return mode.ReplicatedJob ? planReplicatedJob(plan, mode.ReplicatedJob) : planGlobalJob(plan);
}

function isJobService(view: View, serviceId: string): boolean {
  const service = view.service(serviceId);
  return service !== undefined && isJob(view.specOf(service).Spec);
}

function modeOf(view: View, serviceId: string): ServiceSpec["Mode"] {
  const service = view.service(serviceId);
  return service && view.specOf(service).Spec.Mode;
}
