/**
 * A replicated job has no more tasks at a time than it may have, neither wanted nor running (those that still stop of
 * an earlier iteration included), and in no other slots than its own; and no place of a job that has completed is run
 * again in the same iteration.
 */
import { isActiveDesire, isTerminal } from "../../../src/model/state.ts";
import type { Service, ServiceSpec, Task } from "../../../src/model/types.ts";
import { isJob } from "../../../src/model/validate-service.ts";
import { type CheckerFactory, describeTask, type Finding } from "../checker.ts";
import { RunningContainers } from "../running-containers.ts";

export const jobsKeepTheirBounds: CheckerFactory = (overview) => {
  const { view, specOf } = overview;
  const running = new RunningContainers(overview);
  /** Iterations of places that were wanted to complete, and did. */
  const completed = new Set<string>();

  const checkNew = (task: Task, spec: ServiceSpec): Finding => {
    const { TotalCompletions: completions = 0 } = spec.Mode?.ReplicatedJob ?? {};
    if (spec.Mode?.ReplicatedJob && task.Slot >= completions) {
      return `one of ${completions} completions is in a slot beyond: ${describeTask(task)}`;
    }
    return completed.has(placeOf(task, spec)) ? `it has completed there: ${describeTask(task)}` : undefined;
  };

  const checkWanted = (service: Service): Finding => {
    const job = view.specOf(service).Spec.Mode?.ReplicatedJob;
    if (!job) return undefined;
    const wanted = [...view.tasksOfService(service.ID)].filter(
      (task) => isPresent(task, service) && isActiveDesire(task.DesiredState) && !isTerminal(task.Status.State),
    );
    if (wanted.length <= (job.MaxConcurrent ?? 1)) return undefined;
    return `${wanted.length} tasks are wanted, not ${job.MaxConcurrent}: ${wanted.map(describeTask).join("; ")}`;
  };

  return {
    name: "jobs keep their bounds",
    when: "always",
    commit(commit) {
      running.commit(commit);
      const services = new Set<Service>();
      const done: string[] = [];
      for (const change of commit.changes) {
        if (change.table !== "tasks" || !change.after) continue;
        const { before, after } = change;
        const spec = specOf(after);
        const service = view.service(after.ServiceID);
        if (!spec || !service || !isJob(spec)) continue;
        services.add(service);
        const finding = before ? undefined : checkNew(after, spec);
        if (finding) return finding;
        // The leader may not know yet how one ended that it had given up.
        const hasEnded = before && before.Status.State !== "complete" && after.Status.State === "complete";
        if (hasEnded && isActiveDesire(after.DesiredState)) done.push(placeOf(after, spec));
      }
      for (const place of done) completed.add(place);
      for (const service of services) {
        const finding = checkWanted(service);
        if (finding) return finding;
      }
      return undefined;
    },
    container(started, event) {
      if (event !== "start" || !running.counts(started)) return undefined;
      const task = view.get("tasks", started.taskId)!;
      const service = view.service(task.ServiceID);
      const job = specOf(task)?.Mode?.ReplicatedJob;
      if (!job || !service || !isPresent(task, service)) return undefined;
      const rivals = [...overview.containers()].filter(
        (other) => other.serviceId === started.serviceId && running.counts(other),
      );
      if (rivals.length <= (job.MaxConcurrent ?? 1)) return undefined;
      const texts = rivals.map(({ id, taskId }) => `${id} of ${describeTask(view.get("tasks", taskId))}`);
      return `${rivals.length} containers run at a time, not ${job.MaxConcurrent}: ${texts.join("; ")}`;
    },
  };
};

function isPresent(task: Task, service: Service): boolean {
  return task.JobIteration?.Index === service.JobStatus?.JobIteration.Index;
}

function placeOf({ ServiceID, JobIteration, Slot, NodeID }: Task, { Mode }: ServiceSpec): string {
  return `${ServiceID} ${JobIteration?.Index} ${Mode?.GlobalJob ? NodeID : Slot}`;
}
