/**
 * What a spec means where it is silent. The stored spec is never filled in (clients compare it with what they sent):
 * `withDefaults` is for those who ask for it (`insertDefaults`), and the numbers are for everybody who has to act on
 * a member that is not there.
 */
import type { ServiceSpec, TaskSpec } from "./types.ts";

const nanosecondsPerSecond = 1e9;

export const serviceDefaults = {
  stopGracePeriodNs: 10 * nanosecondsPerSecond,
  restart: { Condition: "any", Delay: 5 * nanosecondsPerSecond, MaxAttempts: 0 },
  /** Of updates and rollbacks alike. */
  update: {
    Parallelism: 1,
    FailureAction: "pause",
    Monitor: 5 * nanosecondsPerSecond,
    MaxFailureRatio: 0,
    Order: "stop-first",
  },
} as const;

/** The spec with Swarm's defaults in the places that Swarm fills; the argument is left as it is. */
export function withDefaults(spec: ServiceSpec): ServiceSpec {
  return {
    ...spec,
    TaskTemplate: taskWithDefaults(spec.TaskTemplate ?? {}),
    UpdateConfig: updateWithDefaults(spec.UpdateConfig),
    RollbackConfig: updateWithDefaults(spec.RollbackConfig),
    ...(spec.EndpointSpec && { EndpointSpec: { ...spec.EndpointSpec, Mode: spec.EndpointSpec.Mode || "vip" } }),
  };
}

function taskWithDefaults(task: TaskSpec): TaskSpec {
  const { ContainerSpec: container, RestartPolicy: restart } = task;
  return {
    ...task,
    ...(container && {
      ContainerSpec: {
        ...container,
        StopGracePeriod: container.StopGracePeriod ?? serviceDefaults.stopGracePeriodNs,
        DNSConfig: container.DNSConfig ?? {},
      },
    }),
    Resources: task.Resources ?? {},
    RestartPolicy: {
      ...restart,
      Condition: restart?.Condition || serviceDefaults.restart.Condition,
      Delay: restart?.Delay ?? serviceDefaults.restart.Delay,
      MaxAttempts: restart?.MaxAttempts ?? serviceDefaults.restart.MaxAttempts,
    },
    Placement: task.Placement ?? {},
  };
}

/** Updates and rollbacks have the same members; the generated types only differ in their names. */
type ChangeConfig = NonNullable<ServiceSpec["UpdateConfig"]> & NonNullable<ServiceSpec["RollbackConfig"]>;

function updateWithDefaults(given: ServiceSpec["UpdateConfig"] | ServiceSpec["RollbackConfig"]): ChangeConfig {
  const config = given as ChangeConfig | undefined;
  const { update } = serviceDefaults;
  if (!config) return { ...update };
  return {
    ...config,
    // Swarm has no way to tell a parallelism of 0 (all at once) from one that is not given: both are 0.
    Parallelism: config.Parallelism ?? 0,
    FailureAction: config.FailureAction || update.FailureAction,
    Monitor: config.Monitor || update.Monitor,
    MaxFailureRatio: config.MaxFailureRatio ?? update.MaxFailureRatio,
    Order: config.Order || update.Order,
  };
}
