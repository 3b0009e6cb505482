/** A network of the swarm as the API shows it, members in the Engine's order. */
import { type AddressUse, addressUse, isOverlay, type OverlayNetwork } from "../manager/allocator/addresses.ts";
import { addressOf, networkOptions } from "../model/networks.ts";
import type { Network, Task } from "../model/types.ts";
import type { View } from "../store/store.ts";
import { nodeName, taskName } from "./lookup.ts";

/** What the Engine shows of a container on one of its networks. */
export type EngineContainers = Readonly<Record<string, object>>;

export function networkJson(network: Network, containers: EngineContainers | null = null) {
  const { Spec: spec } = network;
  return {
    Name: network.Name,
    Id: network.ID,
    Created: network.CreatedAt,
    Scope: "swarm",
    Driver: network.Driver,
    EnableIPv4: true,
    EnableIPv6: spec?.EnableIPv6 ?? false,
    IPAM: ipamJson(network),
    Internal: spec?.Internal ?? false,
    Attachable: spec?.Attachable ?? false,
    Ingress: spec?.Ingress ?? false,
    ConfigFrom: { Network: spec?.ConfigFrom ?? "" },
    ConfigOnly: false,
    Containers: containers,
    Options: optionsJson(network),
    Labels: network.Labels,
  };
}

/** With what of it is in use, and where it is. */
export function inspectedNetworkJson(
  view: View,
  network: Network,
  containers: EngineContainers | null,
  verbose: boolean,
) {
  const shown = networkJson(network, containers);
  if (!isOverlay(network)) return shown;
  return {
    ...shown,
    Peers: peersOf(view, network),
    ...(verbose && { Services: servicesOf(view, network) }),
    Status: { IPAM: { Subnets: { [network.Allocated.Subnet]: useJson(addressUse(view, network)) } } },
  };
}

function ipamJson({ Spec: spec, Allocated: allocated }: Network) {
  const { Driver = "default", Options = {}, Config = [] } = spec?.IPAM ?? {};
  const options = Object.keys(Options).length > 0 ? Options : null;
  if (!allocated) return { Driver, Options: options, Config: Config.length > 0 ? Config : null };
  const { Subnet, IPRange, Gateway } = allocated;
  return { Driver, Options: options, Config: [{ Subnet, ...(IPRange && { IPRange }), Gateway }] };
}

function optionsJson({ Spec: spec, Allocated: allocated }: Network): Record<string, string> | null {
  const options = {
    ...(allocated && { [networkOptions.vxlanIds]: String(allocated.VxlanID) }),
    ...spec?.Options,
  };
  return Object.keys(options).length > 0 ? options : null;
}

function useJson({ total, used, inUse }: AddressUse) {
  return { IPsInUse: inUse, DynamicIPsAvailable: total - used };
}

/** The nodes that take part in the network. */
function peersOf(view: View, network: OverlayNetwork) {
  const nodes = new Set<string>();
  if (network.Spec?.Ingress) {
    for (const { ID, Attachments } of view.all("nodes")) {
      if (Attachments?.some(({ NetworkID }) => NetworkID === network.ID)) nodes.add(ID);
    }
  } else for (const { NodeID } of view.tasksOfNetwork(network.ID)) nodes.add(NodeID);
  return [...nodes].flatMap((id) => {
    const node = view.get("nodes", id);
    return node?.DataPath ? [{ Name: nodeName(node) || id, IP: node.DataPath.address }] : [];
  });
}

interface ShownService {
  readonly VIP: string;
  readonly Ports: readonly string[];
  readonly LocalLBIndex: number;
  readonly Tasks: object[];
}

/** By name: the services on the network with their tasks; users' containers are under the empty name, as with Swarm. */
function servicesOf(view: View, network: OverlayNetwork): Record<string, ShownService> {
  const services: Record<string, ShownService> = Object.create(null);
  const byId = new Map<string, ShownService>();
  const show = (id: string): ShownService => {
    let shown = byId.get(id);
    if (!shown) {
      const service = view.service(id);
      const vip = service?.Endpoint?.VirtualIPs?.find(({ NetworkID }) => NetworkID === network.ID)?.Addr;
      const ports = network.Spec?.Ingress ? (service?.Endpoint?.Ports ?? []) : [];
      shown = {
        VIP: vip ? addressOf(vip) : "",
        Ports: ports.map(({ TargetPort, PublishedPort }) => `Target: ${TargetPort}, Publish: ${PublishedPort}`),
        LocalLBIndex: 0,
        Tasks: [],
      };
      byId.set(id, shown);
      services[service?.Name ?? id] = shown;
    }
    return shown;
  };
  for (const { ID } of view.servicesOfNetwork(network.ID)) show(ID);
  for (const task of view.tasksOfNetwork(network.ID)) show(task.ServiceID).Tasks.push(taskJson(view, network, task));
  return services;
}

function taskJson(view: View, network: OverlayNetwork, task: Task) {
  const address = task.Addresses?.find(({ NetworkID }) => NetworkID === network.ID)?.Address ?? "";
  return {
    Name: task.Attachment ? task.Attachment.ContainerID : taskName(view, task),
    EndpointID: task.ID,
    EndpointIP: addressOf(address),
    Info: { "Host IP": view.get("nodes", task.NodeID)?.DataPath?.address ?? "" },
  };
}
