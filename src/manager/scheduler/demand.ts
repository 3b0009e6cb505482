/**
 * What a spec revision asks of a node, read once from the spec. All tasks of a revision ask for the same, so they are
 * placed as one group; groups whose demands have the same signature look for the same nodes.
 */
import { isShoalError } from "../../lib/errors.ts";
import { attachmentsOf, isEncrypted, needsIngress } from "../../model/networks.ts";
import { type Platform, type SpecRevision, specKey, type TaskSpec } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import { type Constraint, parseConstraints } from "./constraint.ts";
import { type GenericRequest, genericRequests } from "./generic.ts";

/** A label whose values part the nodes into branches. */
export interface SpreadLabel {
  readonly of: "node" | "engine";
  readonly label: string;
}

export interface Demand {
  /** `specKey` of the revision. */
  readonly key: string;
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  readonly generic: readonly GenericRequest[];
  readonly volumePlugins: readonly string[];
  readonly networkPlugins: readonly string[];
  /** An address on an overlay network: only nodes with our data plane have any. */
  readonly overlay: boolean;
  /** On one whose packets are encrypted. */
  readonly encrypted: boolean;
  /** Published through the routing mesh. */
  readonly ingress: boolean;
  /** "" for none. */
  readonly logPlugin: string;
  readonly constraints: readonly Constraint[];
  readonly platforms: readonly Platform[];
  /** `protocol/port`, each. */
  readonly hostPorts: readonly string[];
  /** Most active tasks of the service on one node; 0 is no limit. */
  readonly maxReplicas: number;
  /** From the outermost to the innermost. */
  readonly spread: readonly SpreadLabel[];
  /**
   * Equal for demands with the same constraints, platforms, plugins, preferences and reservations: those for which
   * the same nodes are feasible, up to the service's own tasks and host ports.
   */
  readonly signature: string;
}

export function demandOf({ ServiceID, Revision, Spec }: SpecRevision, view: View): Demand {
  const template = Spec.TaskTemplate ?? {};
  const { Reservations } = template.Resources ?? {};
  const { Constraints, Platforms, Preferences, MaxReplicas } = template.Placement ?? {};
  const networks = attachmentsOf(Spec).flatMap(({ Target }) => view.network(Target ?? "") ?? []);
  const ingress = needsIngress(Spec.EndpointSpec);
  const ingressNetwork = ingress ? view.ingressNetwork() : undefined;
  const shared = {
    nanoCpus: Reservations?.NanoCPUs ?? 0,
    memoryBytes: Reservations?.MemoryBytes ?? 0,
    generic: genericRequests(Reservations?.GenericResources),
    volumePlugins: volumePlugins(template),
    // An overlay network is no affair of the Engine's.
    networkPlugins: networks.flatMap(({ Driver, Allocated }) => (Allocated ? [] : [Driver])),
    overlay: ingress || networks.some(({ Allocated }) => Allocated !== undefined),
    encrypted: [...networks, ...(ingressNetwork ? [ingressNetwork] : [])].some(isEncrypted),
    ingress,
    logPlugin: logPlugin(template),
    platforms: Platforms ?? [],
    spread: (Preferences ?? []).flatMap(({ Spread }) => spreadLabel(Spread?.SpreadDescriptor ?? "")),
  };
  return {
    ...shared,
    key: specKey(ServiceID, Revision),
    constraints: constraintsOf(Constraints ?? []),
    hostPorts: (Spec.EndpointSpec?.Ports ?? []).flatMap(({ Protocol, PublishMode, PublishedPort }) =>
      PublishMode === "host" && PublishedPort ? [`${Protocol ?? "tcp"}/${PublishedPort}`] : [],
    ),
    maxReplicas: MaxReplicas ?? 0,
    signature: JSON.stringify([shared, Constraints ?? []]),
  };
}

/** The API refuses malformed constraints; one that got past it holds on no node, and stops nothing else. */
function constraintsOf(texts: readonly string[]): Constraint[] {
  try {
    return parseConstraints(texts);
  } catch (error) {
    if (!isShoalError(error)) throw error;
    return [{ text: texts.join(), equal: true, value: "", subject: { kind: "nothing" } }];
  }
}

/** Drivers of named volumes, other than the one that every Engine has. */
function volumePlugins(template: TaskSpec): string[] {
  return (template.ContainerSpec?.Mounts ?? []).flatMap(({ Type, VolumeOptions }) => {
    const name = VolumeOptions?.DriverConfig?.Name;
    return Type === "volume" && name && name !== "local" ? [name] : [];
  });
}

function logPlugin(template: TaskSpec): string {
  const name = template.LogDriver?.Name ?? "";
  return name === "none" ? "" : name;
}

/** Anything but a node's or an engine's label is ignored, as Swarm does. */
function spreadLabel(descriptor: string): SpreadLabel[] {
  const match = /^(node|engine)\.labels\.(.+)$/i.exec(descriptor);
  if (!match?.[1] || !match[2]) return [];
  return [{ of: match[1].toLowerCase() === "node" ? "node" : "engine", label: match[2] }];
}
