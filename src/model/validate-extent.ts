/**
 * How much one service may ask for: bounds far beyond what anybody needs, so that a slip or an ill will (a replica count
 * of 10^15, ten thousand constraints) is refused at once, and does not fill the managers' memory or stop the scheduler.
 * The size of the whole is bounded by that of the request's body.
 *
 * Swarm has none of these bounds.
 */
import { ShoalError } from "../lib/errors.ts";
import type { ServiceSpec } from "./types.ts";

/** Tasks that a service may want at once: each is about 1 KiB in the memory of every manager. */
const mostTasks = 100_000;

/** Looked at for each node. */
const mostConstraints = 1_000;

/** Each is a level in the tree of nodes that the scheduler goes down. */
const mostPreferences = 32;

/** Each is a rule in the kernel of every node, and is written down with each task. */
const mostPorts = 4_096;

/** Each is a network interface in each container. */
const mostNetworks = 256;

/** Each is a name that every node with a task of the network answers. */
const mostAliases = 1_000;

/** Of mounts, secrets and configs each: every one is mounted in each container. */
const mostFiles = 1_000;

/** @throws ShoalError InvalidArgument for the first bound that is exceeded */
export function validateExtent(spec: ServiceSpec): void {
  const { Replicated: replicated, ReplicatedJob: job } = spec.Mode ?? {};
  bound("Mode", "replicas", replicated?.Replicas, mostTasks);
  bound("Mode", "concurrent tasks", job?.MaxConcurrent, mostTasks);
  bound("Mode", "completions", job?.TotalCompletions, mostTasks);
  const { Placement: placement, ContainerSpec: container, Networks: networks } = spec.TaskTemplate ?? {};
  bound("Placement", "constraints", placement?.Constraints?.length, mostConstraints);
  bound("Placement", "preferences", placement?.Preferences?.length, mostPreferences);
  bound("EndpointSpec", "ports", spec.EndpointSpec?.Ports?.length, mostPorts);
  bound("TaskSpec", "networks", networks?.length, mostNetworks);
  for (const { Aliases: aliases } of networks ?? []) bound("TaskSpec", "aliases", aliases?.length, mostAliases);
  bound("ContainerSpec", "mounts", container?.Mounts?.length, mostFiles);
  bound("ContainerSpec", "secrets", container?.Secrets?.length, mostFiles);
  bound("ContainerSpec", "configs", container?.Configs?.length, mostFiles);
}

function bound(where: string, what: string, count: number | undefined, most: number): void {
  if (count === undefined || count <= most) return;
  throw new ShoalError(
    "InvalidArgument",
    `${where}: ${count} ${what} are more than the ${most} that a service may have`,
  );
}
