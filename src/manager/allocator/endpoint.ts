/** A service's endpoint: the ports that it publishes, and a virtual address on each of its networks. */
import { isDeepStrictEqual } from "node:util";
import { attachmentsOf, needsIngress } from "../../model/networks.ts";
import type { EndpointSpec, Service, ServiceEndpoint, ServiceSpec } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { Plan, PlannedChange } from "../planner.ts";
import { AddressPlan, exhaustedText, isOverlay, type OverlayNetwork } from "./addresses.ts";
import { allocatePorts, dynamicPorts, portLock } from "./ports.ts";

/** Whether the endpoint was made from the current spec, so that tasks may be made with it. */
export function isAllocated(service: Service, view: View): boolean {
  const { Spec: spec } = view.specOf(service);
  const { Endpoint } = service;
  if (!Endpoint || !isDeepStrictEqual(Endpoint.Spec, spec.EndpointSpec ?? {})) return false;
  const wanted = virtualNetworks(spec, view);
  const given = Endpoint.VirtualIPs ?? [];
  return wanted.length === given.length && wanted.every(({ ID }) => given.some(({ NetworkID }) => NetworkID === ID));
}

/**
 * The endpoint of a service that shares nothing with others: whoever writes its spec may give it at once, and spares
 * it the wait for the allocator. Undefined where there are ports or addresses to allocate.
 */
export function unsharedEndpoint(spec: ServiceSpec, view: View): ServiceEndpoint | undefined {
  if (spec.EndpointSpec?.Ports?.length || virtualNetworks(spec, view).length > 0) return undefined;
  return { Spec: spec.EndpointSpec ?? {} };
}

/** The networks on which tasks of the spec have an address: those it names, and the ingress network for its ports. */
export function networksOf(spec: ServiceSpec, view: View): OverlayNetwork[] {
  const networks = new Map<string, OverlayNetwork>();
  for (const { Target = "" } of attachmentsOf(spec)) {
    const network = view.network(Target);
    if (isOverlay(network)) networks.set(network.ID, network);
  }
  const ingress = needsIngress(spec.EndpointSpec) ? view.ingressNetwork() : undefined;
  if (isOverlay(ingress)) networks.set(ingress.ID, ingress);
  return [...networks.values()];
}

/** What keeps a service from being allocated. */
export interface Lack {
  readonly text: string;
  /** The network that is full. */
  readonly networkId?: string;
}

/** Allocates the service, if it is not yet and can be. */
export function planService(view: View, id: string): Plan {
  const service = view.service(id);
  if (!service || isAllocated(service, view)) return { changes: [] };
  const outcome = allocateService(view, service);
  return "lack" in outcome ? { changes: [] } : outcome;
}

/** Why a service that is not allocated isn't; undefined where its turn is still to come. */
export function lackOf(view: View, service: Service): Lack | undefined {
  const outcome = allocateService(view, service);
  return "lack" in outcome ? outcome.lack : undefined;
}

function allocateService(view: View, service: Service): Plan | { readonly lack: Lack } {
  const { Spec: spec } = view.specOf(service);
  const endpointSpec: EndpointSpec = spec.EndpointSpec ?? {};
  const ports = allocatePorts(view, service, endpointSpec);
  if (ports.kind === "exhausted") {
    const { first, last } = dynamicPorts;
    return {
      lack: { text: `no published port is free: all ${ports.protocol} ports from ${first} to ${last} are in use` },
    };
  }
  const addresses = new AddressPlan(view);
  const virtualIps: { NetworkID: string; Addr: string }[] = [];
  for (const network of virtualNetworks(spec, view)) {
    const kept = service.Endpoint?.VirtualIPs?.find(({ NetworkID }) => NetworkID === network.ID)?.Addr;
    const address = kept ?? addresses.take(network);
    if (address === undefined) return { lack: { text: exhaustedText(view, network), networkId: network.ID } };
    virtualIps.push({ NetworkID: network.ID, Addr: address });
  }
  const endpoint: ServiceEndpoint = {
    Spec: endpointSpec,
    ...(ports.ports.length > 0 ? { Ports: ports.ports } : {}),
    ...(virtualIps.length > 0 ? { VirtualIPs: virtualIps } : {}),
  };
  const changes: PlannedChange[] = [
    { kind: "update", table: "services", object: { ...service, Endpoint: endpoint } },
    ...addresses.changes(),
  ];
  return { changes, locks: ports.picked.map(portLock) };
}

/** None where its names are to lead to the tasks' own addresses. */
function virtualNetworks(spec: ServiceSpec, view: View): OverlayNetwork[] {
  return spec.EndpointSpec?.Mode === "dnsrr" ? [] : networksOf(spec, view);
}
