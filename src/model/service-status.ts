/** How far a service is, counted from its tasks: the `ServiceStatus` of lists, as Swarm's managers count it. */

import type { Service, ServiceServiceStatus, ServiceSpec, Task } from "./types.ts";
import { isJob } from "./validate-service.ts";

export function serviceStatus(
  service: Service,
  spec: ServiceSpec,
  tasks: Iterable<Task>,
  isDown: (nodeId: string) => boolean,
): Required<ServiceServiceStatus> {
  const { Replicated: replicated, ReplicatedJob: job } = spec.Mode ?? {};
  const fixed = replicated ? (replicated.Replicas ?? 1) : job ? (job.MaxConcurrent ?? 1) : undefined;
  let running = 0;
  let completed = 0;
  let desired = 0;
  for (const task of tasks) {
    if (isJob(spec)) {
      if (task.JobIteration?.Index !== service.JobStatus?.JobIteration.Index) continue;
      if (task.Status.State === "complete") completed++;
      else if (task.DesiredState === "complete") desired++;
    } else if (task.DesiredState === "running") desired++;
    // What a node that is down last said of its tasks is not counted: they run elsewhere by now.
    if (task.Status.State === "running" && !isDown(task.NodeID)) running++;
  }
  return { RunningTasks: running, DesiredTasks: fixed ?? desired, CompletedTasks: completed };
}
