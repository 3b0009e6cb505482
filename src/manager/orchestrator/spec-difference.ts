/**
 * What a change of a service's spec means for tasks made from the old one. Replicas, labels of the service and update
 * settings are no reason to restart a task; what its container and its endpoint are made from is.
 */

import { unreachable } from "../../lib/errors.ts";
import { sameJson } from "../../lib/same.ts";
import { rank } from "../../model/state.ts";
import type { EndpointSpec, ServiceSpec, SpecRevision, Task, TaskSpec } from "../../model/types.ts";

/**
 * - `placement`: only that differs, so a task may stay on a node that satisfies the new constraints (preferences and
 *   the number of replicas per node are for tasks that are still to be placed);
 * - `credentials`: only those of the registry differ, so a task that has its image may stay.
 */
export type SpecDifference = "none" | "credentials" | "placement" | "other";

export function compareRevisions(old: SpecRevision, current: SpecRevision): SpecDifference {
  const before = relevant(old.Spec);
  const after = relevant(current.Spec);
  if (!sameJson(before, after)) {
    return sameJson(withoutPlacement(before), withoutPlacement(after)) ? "placement" : "other";
  }
  return old.PullOptions?.RegistryAuth === current.PullOptions?.RegistryAuth ? "none" : "credentials";
}

/**
 * Whether the difference makes a task of the old revision outdated.
 * @param mayStay whether its node satisfies the current placement constraints
 */
export function outdates(difference: SpecDifference, task: Task, mayStay: () => boolean): boolean {
  switch (difference) {
    case "none":
      return false;
    case "credentials":
      return rank(task.Status.State) < rank("ready"); // it may be at its pull
    case "placement":
      return !mayStay();
    case "other":
      return true;
    default:
      return unreachable(difference);
  }
}

interface Relevant {
  readonly task: TaskSpec;
  readonly endpoint: EndpointSpec;
}

function relevant(spec: ServiceSpec): Relevant {
  const task = spec.TaskTemplate ?? {};
  // `Networks` beside the task template is the old place of the same thing.
  return {
    task: { ...task, Networks: task.Networks ?? spec.Networks },
    endpoint: { Mode: spec.EndpointSpec?.Mode ?? "vip", Ports: spec.EndpointSpec?.Ports ?? [] },
  };
}

function withoutPlacement({ task, endpoint }: Relevant): Relevant {
  return { task: { ...task, Placement: undefined }, endpoint };
}
