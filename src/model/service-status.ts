/**
 * How far a service is, counted from its tasks: the `ServiceStatus` of lists, as Swarm's managers count it.
 *
 * Better than Swarm: of a job, places are counted and not tasks. So a slot that completed on a node that was lost, and
 * once more elsewhere, counts once; more tasks at a time than completions are never wanted; and a node whose task
 * failed for good still counts as one that is to complete.
 */

import type { Service, ServiceServiceStatus, ServiceSpec, Task } from "./types.ts";
import { isJob } from "./validate-service.ts";

export function serviceStatus(
  service: Service,
  spec: ServiceSpec,
  tasks: Iterable<Task>,
  isDown: (nodeId: string) => boolean,
): Required<ServiceServiceStatus> {
  // What a node that is down last said of its tasks is not counted: they run elsewhere by now.
  const isRunning = ({ NodeID, Status }: Task) => Status.State === "running" && !isDown(NodeID);
  if (isJob(spec)) return jobStatus(service, spec, tasks, isRunning);
  let running = 0;
  let desired = 0;
  for (const task of tasks) {
    if (task.DesiredState === "running") desired++;
    if (isRunning(task)) running++;
  }
  const replicas = spec.Mode?.Replicated && (spec.Mode.Replicated.Replicas ?? 1);
  return { RunningTasks: running, DesiredTasks: replicas ?? desired, CompletedTasks: 0 };
}

function jobStatus(
  service: Service,
  { Mode: mode }: ServiceSpec,
  tasks: Iterable<Task>,
  isRunning: (task: Task) => boolean,
): Required<ServiceServiceStatus> {
  const job = mode?.ReplicatedJob;
  let running = 0;
  const places = new Set<string | number>();
  const completed = new Set<string | number>();
  for (const task of tasks) {
    if (task.JobIteration?.Index !== service.JobStatus?.JobIteration.Index) continue;
    const place = job ? task.Slot : task.NodeID;
    places.add(place);
    if (task.Status.State === "complete") completed.add(place);
    if (isRunning(task)) running++;
  }
  const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = job ?? {};
  const desired = job ? Math.min(MaxConcurrent, TotalCompletions) : places.size - completed.size;
  return { RunningTasks: running, DesiredTasks: desired, CompletedTasks: completed.size };
}
