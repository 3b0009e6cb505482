/**
 * Published ports: which a service gets, and which are taken. Per protocol a port belongs to one service in ingress
 * mode, on all nodes; in host mode it may belong to several, and the scheduler keeps their tasks apart.
 */
import type { EndpointPortConfig, EndpointSpec, Service } from "../../model/types.ts";
import type { View } from "../../store/store.ts";

/** Where published ports are taken from that the user leaves open. Users may pick from it too. */
export const dynamicPorts = { first: 30_000, last: 32_767 } as const;

/** The name of the lock under which a port is given to a service, by whichever manager. */
export function portLock(port: number): string {
  return `port ${port}`;
}

/**
 * Why a service can't publish these ports, in Swarm's words (an InvalidArgument); undefined when it can. Compares
 * with what other services ask for and with what they were given.
 * @param serviceId the service that wants them ("" for a new one): its own ports are no conflict
 */
export function portConflict(
  view: View,
  serviceId: string,
  ports: readonly EndpointPortConfig[] | undefined,
): string | undefined {
  const wanted = new Map<string, EndpointPortConfig>();
  for (const port of ports ?? []) {
    // Of two in different modes, the one that more is forbidden to.
    if (port.PublishedPort && !isIngress(wanted.get(portKey(port)))) wanted.set(portKey(port), port);
  }
  if (wanted.size === 0) return undefined;
  for (const service of view.all("services")) {
    if (service.ID === serviceId) continue;
    for (const port of portsOf(service, view)) {
      const conflict = wanted.get(portKey(port));
      if (!port.PublishedPort || !conflict || !(isIngress(port) || isIngress(conflict))) continue;
      const mode = isIngress(port) ? "an ingress port" : "a host-published port";
      return `port '${port.PublishedPort}' is already in use by service '${service.Name}' (${service.ID}) as ${mode}`;
    }
  }
  return undefined;
}

export type PortAllocation =
  /** `picked`: those that the service did not ask for, nor have before. */
  | { readonly kind: "allocated"; readonly ports: EndpointPortConfig[]; readonly picked: readonly number[] }
  /** No port is free for this protocol. */
  | { readonly kind: "exhausted"; readonly protocol: string };

/**
 * The ports that a service publishes by its spec, those that are left open filled in. What it has already been given
 * for the same name, protocol and target it keeps. In host mode an open port stays open: the Engine picks it.
 */
export function allocatePorts(view: View, service: Service, spec: EndpointSpec): PortAllocation {
  const kept = (service.Endpoint?.Ports ?? []).filter((port) => isIngress(port) && port.PublishedPort);
  const ports: EndpointPortConfig[] = [];
  const picked: number[] = [];
  let taken: Set<string> | undefined;
  for (const port of spec.Ports ?? []) {
    if (port.PublishedPort || !isIngress(port)) {
      ports.push(port);
      continue;
    }
    taken ??= portsTaken(view, service, spec);
    const place = kept.findIndex((before) => samePort(before, port) && !taken?.has(portKey(before)));
    const known = place === -1 ? undefined : kept.splice(place, 1)[0]?.PublishedPort;
    const published = known ?? freePort(port, taken);
    if (published === undefined) return { kind: "exhausted", protocol: protocolOf(port) };
    if (known === undefined) picked.push(published);
    const allocated = { ...port, PublishedPort: published };
    taken.add(portKey(allocated));
    ports.push(allocated);
  }
  return { kind: "allocated", ports, picked };
}

/** Whether a change of a service gives back a port that an open one could get. */
export function freesDynamicPorts(before: Service, after: Service | undefined): boolean {
  const left = new Set((after?.Endpoint?.Ports ?? []).map(portKey));
  return (before.Endpoint?.Ports ?? []).some((port) => isDynamic(port.PublishedPort ?? 0) && !left.has(portKey(port)));
}

/** Keys of all ports that other services have or ask for, and of those that the service itself has fixed. */
function portsTaken(view: View, service: Service, spec: EndpointSpec): Set<string> {
  const taken = new Set<string>();
  for (const port of spec.Ports ?? []) if (port.PublishedPort) taken.add(portKey(port));
  for (const other of view.all("services")) {
    if (other.ID === service.ID) continue;
    for (const port of portsOf(other, view)) if (port.PublishedPort) taken.add(portKey(port));
  }
  return taken;
}

function* portsOf(service: Service, view: View): Iterable<EndpointPortConfig> {
  yield* view.specOf(service).Spec.EndpointSpec?.Ports ?? [];
  yield* service.Endpoint?.Ports ?? [];
}

function freePort(port: EndpointPortConfig, taken: ReadonlySet<string>): number | undefined {
  for (let number = dynamicPorts.first; number <= dynamicPorts.last; number++) {
    if (!taken.has(portKey({ ...port, PublishedPort: number }))) return number;
  }
  return undefined;
}

function samePort(a: EndpointPortConfig, b: EndpointPortConfig): boolean {
  return (a.Name ?? "") === (b.Name ?? "") && protocolOf(a) === protocolOf(b) && a.TargetPort === b.TargetPort;
}

function portKey(port: EndpointPortConfig): string {
  return `${protocolOf(port)}/${port.PublishedPort}`;
}

function protocolOf(port: EndpointPortConfig): string {
  return port.Protocol ?? "tcp";
}

function isIngress(port: EndpointPortConfig | undefined): boolean {
  return port !== undefined && (port.PublishMode ?? "ingress") === "ingress";
}

function isDynamic(port: number): boolean {
  return port >= dynamicPorts.first && port <= dynamicPorts.last;
}
