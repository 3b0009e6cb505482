/**
 * Networks of the swarm: the predefined ones that every swarm has from the start (the Engine's own, as services may use
 * them), the ingress network that `swarm init` makes, and what is asked of a network everywhere.
 */
import { isTerminal } from "./state.ts";
import type {
  EndpointSpec,
  Network,
  NetworkAddress,
  NetworkAttachmentConfig,
  NetworkSpec,
  Service,
  ServiceSpec,
  Task,
} from "./types.ts";

/** Marks a predefined network: hidden from lists, usable as a service's target. */
export const predefinedLabel = "com.docker.swarm.predefined";

/** Label of the Engine's networks that are a node's end of one of the swarm's: that one's id. */
export const engineNetworkLabel = "shoal.network";

/** What a network is before the store has it. */
export type NewNetwork = Omit<Network, "Version" | "CreatedAt" | "UpdatedAt">;

const drivers = { bridge: "bridge", host: "host", none: "null" };

export function predefinedNetworks(newId: () => string): NewNetwork[] {
  return Object.entries(drivers).map(([Name, Driver]) => ({
    ID: newId(),
    Name,
    Labels: { [predefinedLabel]: "true" },
    Driver,
    Predefined: true,
  }));
}

/** The ingress network as `swarm init` makes it. */
export const defaultIngressSpec: NetworkSpec = {
  Internal: false,
  Attachable: false,
  Ingress: true,
  ConfigOnly: false,
  EnableIPv6: false,
  Options: {},
  IPAM: { Driver: "default", Options: {}, Config: [] },
};
export const defaultIngressName = "ingress";

/** Options of a network's spec that mean something to us; Swarm's names. */
export const networkOptions = {
  encrypted: "encrypted",
  mtu: "com.docker.network.driver.mtu",
  vxlanIds: "com.docker.network.driver.overlay.vxlanid_list",
} as const;

/** Whether its packets between nodes are encrypted: the option is there, and is no word for no. */
export function isEncrypted(network: Network): boolean {
  const value = network.Spec?.Options[networkOptions.encrypted];
  return value !== undefined && !["0", "f", "F", "false", "False", "FALSE"].includes(value);
}

/** The MTU that was asked for; undefined leaves it to the nodes. */
export function mtuOf(network: Network): number | undefined {
  const value = network.Spec?.Options[networkOptions.mtu];
  return value ? Number(value) : undefined;
}

/** An address without its prefix: `10.0.0.5/24` -> `10.0.0.5`. */
export function addressOf(cidr: string): string {
  const slash = cidr.indexOf("/");
  return slash < 0 ? cidr : cidr.slice(0, slash);
}

/** The addresses that nobody else can have meanwhile: a task's own until it has ended. */
export function addressesHeld(task: Task): readonly NetworkAddress[] | undefined {
  return task.Addresses && !isTerminal(task.Status.State) ? task.Addresses : undefined;
}

/** The virtual addresses that a service has. */
export function virtualAddresses({ Endpoint }: Service): NetworkAddress[] {
  return (Endpoint?.VirtualIPs ?? []).map(({ NetworkID = "", Addr = "" }) => ({ NetworkID, Address: Addr }));
}

/** The networks that a spec attaches its tasks to, as it names them. */
export function attachmentsOf(spec: ServiceSpec): readonly NetworkAttachmentConfig[] {
  return spec.TaskTemplate?.Networks ?? spec.Networks ?? [];
}

/** Whether it publishes a port through the routing mesh. */
export function needsIngress(endpoint: EndpointSpec | undefined): boolean {
  return endpoint?.Ports?.some((port) => (port.PublishMode ?? "ingress") === "ingress") ?? false;
}
