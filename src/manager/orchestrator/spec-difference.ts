/**
 * What a change of a service's spec means for tasks made from the old one. Replicas, labels of the service, update
 * settings and registry credentials are no reason to restart a task; what its container and its endpoint are made
 * from is.
 */

import { sameJson } from "../../lib/same.ts";
import type { EndpointSpec, ServiceSpec, TaskSpec } from "../../model/types.ts";

/** `constraints`: only those differ, so a task on a node that satisfies the new ones may stay. */
export type SpecDifference = "none" | "constraints" | "other";

export function compareSpecs(old: ServiceSpec, current: ServiceSpec): SpecDifference {
  const before = relevant(old);
  const after = relevant(current);
  if (sameJson(before, after)) return "none";
  return sameJson(withoutConstraints(before), withoutConstraints(after)) ? "constraints" : "other";
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

function withoutConstraints({ task, endpoint }: Relevant): Relevant {
  return { task: { ...task, Placement: { ...task.Placement, Constraints: undefined } }, endpoint };
}
