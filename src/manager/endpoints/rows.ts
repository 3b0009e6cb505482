/**
 * What the store's rows mean for the nodes of overlay networks: pure functions from a row (and the few others that it
 * is read with) to what nodes are told.
 */

import type {
  NetworkEndpoint,
  NetworkKey,
  NetworkNode,
  NetworkPort,
  NetworkService,
  NetworkState,
} from "../../model/network-state.ts";
import { addressOf, attachmentsOf, isEncrypted, mtuOf } from "../../model/networks.ts";
import { isActiveDesire, isTerminal, rank } from "../../model/state.ts";
import type { Cluster, Network, NetworkAddress, Node, Service, ServiceSpec, Task } from "../../model/types.ts";

/** Undefined for networks that are none of ours: the Engine's own, and those that each node makes by itself. */
export function networkState(network: Network | undefined, cluster: Cluster | undefined): NetworkState | undefined {
  const { Allocated, Spec } = network ?? {};
  if (!network || !Spec || !Allocated) return undefined;
  const mtu = mtuOf(network);
  return {
    id: network.ID,
    name: network.Name,
    vxlanId: Allocated.VxlanID,
    ...(cluster?.DataPathPort && { dataPathPort: cluster.DataPathPort }),
    subnet: Allocated.Subnet,
    gateway: addressOf(Allocated.Gateway),
    ...(mtu && { mtu }),
    internal: Spec.Internal,
    ingress: Spec.Ingress,
    encrypted: isEncrypted(network),
  };
}

/** The node on one of its networks; undefined for a node without a data plane of ours. */
export function networkNode(node: Node | undefined, networkId: string): NetworkNode | undefined {
  if (!node?.DataPath) return undefined;
  const { address, publicKey } = node.DataPath;
  const own = addressOn(node.Attachments, networkId);
  return {
    nodeId: node.ID,
    address,
    ...(own !== undefined && { ownAddress: own }),
    ...(publicKey !== undefined && { publicKey }),
  };
}

/** Whether the task uses the addresses that it has: it was given to a node that can reach them, and has not ended. */
export function isPlaced(task: Task, node: Node | undefined): boolean {
  const { State } = task.Status;
  return rank(State) >= rank("assigned") && !isTerminal(State) && node?.DataPath !== undefined;
}

/** Whether the task is one to lead to: it runs (its node says so once it is healthy), and is to go on. */
export function isServing(task: Task, node: Node | undefined): boolean {
  return task.Status.State === "running" && isActiveDesire(task.DesiredState) && node?.Status.State !== "down";
}

/**
 * The task on one of its networks.
 * @param serviceName of its service; undefined where that is gone
 */
export function networkEndpoint(
  task: Task,
  address: NetworkAddress,
  serviceName: string | undefined,
  active: boolean,
): NetworkEndpoint {
  return {
    taskId: task.ID,
    serviceId: task.ServiceID,
    nodeId: task.NodeID,
    address: addressOf(address.Address),
    names: namesOf(task, serviceName),
    active,
  };
}

/** A container's own names: the one that its Engine has, or what a user has called his own on the network. */
function namesOf(task: Task, serviceName: string | undefined): readonly string[] {
  if (task.Attachment) return task.Attachment.Aliases;
  return serviceName === undefined ? [] : [`${serviceName}.${task.Slot || task.NodeID}.${task.ID}`];
}

/** Ids of the networks on which the service is known, whatever their driver is. */
export function networksOfService(service: Service, spec: ServiceSpec): Set<string> {
  const ids = new Set<string>();
  for (const { Target } of attachmentsOf(spec)) if (Target) ids.add(Target);
  for (const { NetworkID } of service.Endpoint?.VirtualIPs ?? []) if (NetworkID) ids.add(NetworkID);
  return ids;
}

/** The service on one of its networks. @param ingress whether that is the ingress network */
export function networkService(
  service: Service,
  spec: ServiceSpec,
  networkId: string,
  ingress: boolean,
): NetworkService {
  const aliases = attachmentsOf(spec).find(({ Target }) => Target === networkId)?.Aliases ?? [];
  const virtual = service.Endpoint?.VirtualIPs?.find(({ NetworkID }) => NetworkID === networkId)?.Addr;
  return {
    serviceId: service.ID,
    name: service.Name,
    aliases,
    ...(virtual !== undefined && { virtualAddress: addressOf(virtual) }),
    ports: ingress ? meshPorts(service) : [],
  };
}

function meshPorts(service: Service): NetworkPort[] {
  return (service.Endpoint?.Ports ?? []).flatMap(({ Protocol, PublishMode, PublishedPort, TargetPort }) =>
    PublishMode === "host" || !PublishedPort || !TargetPort
      ? []
      : [{ protocol: Protocol ?? "tcp", published: PublishedPort, target: TargetPort }],
  );
}

export function networkKey(cluster: Cluster | undefined): NetworkKey | undefined {
  const key = cluster?.NetworkKey;
  return key && { key: key.Key, revision: key.Revision };
}

function addressOn(addresses: readonly NetworkAddress[] | undefined, networkId: string): string | undefined {
  const found = addresses?.find(({ NetworkID }) => NetworkID === networkId);
  return found && addressOf(found.Address);
}
