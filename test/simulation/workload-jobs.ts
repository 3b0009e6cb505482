/** Jobs of both kinds, as the users of the simulation make and change them. */
import type { ServiceSpec } from "../../src/model/types.ts";
import type { Dice } from "./dice.ts";

const second = 1e9;

/** Most come to their end, some by failing, and one never. */
const jobImages = ["finishing", "finishing", "finishing", "crashing", "missing", "good"];

export function newJob(Name: string, dice: Dice): ServiceSpec {
  return {
    Name,
    Mode: dice.chance(0.4) ? { GlobalJob: {} } : replicated(dice),
    TaskTemplate: {
      ContainerSpec: { Image: dice.pick(jobImages) },
      RestartPolicy: {
        Condition: dice.pick(["any", "on-failure", "none"] as const),
        Delay: dice.pick([0, second, 5 * second]),
        ...(dice.chance(0.3) && { MaxAttempts: 2, Window: dice.pick([0, 60 * second]) }),
      },
    },
  };
}

export function changedJob(spec: ServiceSpec, dice: Dice): ServiceSpec {
  const TaskTemplate = { ...spec.TaskTemplate };
  if (dice.chance(0.5)) {
    TaskTemplate.ContainerSpec = {
      Image: dice.pick(jobImages),
      ...(dice.chance(0.3) && { StopGracePeriod: dice.pick([second, 90 * second]) }),
    };
  }
  if (dice.chance(0.2)) {
    TaskTemplate.Placement = dice.pick([{}, { Constraints: ["node.labels.zone==a"] }, { MaxReplicas: 1 }]);
  }
  return { ...spec, TaskTemplate, ...(spec.Mode?.ReplicatedJob && { Mode: replicated(dice) }) };
}

function replicated(dice: Dice): ServiceSpec["Mode"] {
  return { ReplicatedJob: { TotalCompletions: dice.integer(0, 6), MaxConcurrent: dice.integer(0, 4) } };
}

/** Whether it completes by itself on any nodes. */
export function isHealthyJob({ Mode, TaskTemplate: task }: ServiceSpec): boolean {
  return (
    task?.ContainerSpec?.Image === "finishing" &&
    task.RestartPolicy?.Condition !== "none" &&
    !task.RestartPolicy?.MaxAttempts &&
    !task.Placement?.Constraints?.length &&
    !task.Placement?.MaxReplicas &&
    Mode?.ReplicatedJob?.MaxConcurrent !== 0
  );
}

export function healthyJob(spec: ServiceSpec): ServiceSpec {
  const job = spec.Mode?.ReplicatedJob;
  return {
    ...spec,
    Mode: job ? { ReplicatedJob: { ...job, MaxConcurrent: job.MaxConcurrent || 1 } } : spec.Mode,
    TaskTemplate: {
      ...spec.TaskTemplate,
      ContainerSpec: { ...spec.TaskTemplate?.ContainerSpec, Image: "finishing" },
      RestartPolicy: { Condition: "any", Delay: second },
      Placement: {},
    },
  };
}
