/**
 * What the managers have told of one network, in memory: who is on it and what leads where. Changes are noted, so that
 * whoever makes the kernel or the DNS equal to it has work with what changed only.
 */
import { unreachable } from "../lib/errors.ts";
import { addTo, removeFrom } from "../lib/sets.ts";
import type {
  ContentChange,
  NetworkEndpoint,
  NetworkNode,
  NetworkService,
  NetworkState,
} from "../model/network-state.ts";

/** Ids of what may be different since the last look; also of what is gone. */
export interface TableChanges {
  /** The network's own settings. */
  readonly network: boolean;
  readonly nodes: ReadonlySet<string>;
  /** Tasks' ids. */
  readonly endpoints: ReadonlySet<string>;
  readonly services: ReadonlySet<string>;
}

export class NetworkTable {
  readonly #nodes = new Map<string, NetworkNode>();
  readonly #endpoints = new Map<string, NetworkEndpoint>();
  readonly #services = new Map<string, NetworkService>();
  /** Ids of the endpoints of each service that has any. */
  readonly #byService = new Map<string, Set<string>>();
  #network: NetworkState;
  #changes = noChanges();

  constructor(network: NetworkState) {
    this.#network = network;
    this.#changes.network = true;
  }

  get network(): NetworkState {
    return this.#network;
  }

  get nodes(): ReadonlyMap<string, NetworkNode> {
    return this.#nodes;
  }

  get endpoints(): ReadonlyMap<string, NetworkEndpoint> {
    return this.#endpoints;
  }

  get services(): ReadonlyMap<string, NetworkService> {
    return this.#services;
  }

  /** The endpoints that the service's names lead to, in the order of their addresses' arrival. */
  activeEndpoints(serviceId: string): NetworkEndpoint[] {
    const found: NetworkEndpoint[] = [];
    for (const taskId of this.#byService.get(serviceId) ?? []) {
      const endpoint = this.#endpoints.get(taskId);
      if (endpoint?.active) found.push(endpoint);
    }
    return found;
  }

  /** Takes a change of this network; a service whose endpoints change has changed too. */
  apply(change: ContentChange): void {
    switch (change.kind) {
      case "network":
        this.#network = change.network;
        this.#changes.network = true;
        return;
      case "node":
        this.#nodes.set(change.node.nodeId, change.node);
        this.#changes.nodes.add(change.node.nodeId);
        return;
      case "remove-node":
        this.#nodes.delete(change.nodeId);
        this.#changes.nodes.add(change.nodeId);
        return;
      case "endpoint":
        this.#setEndpoint(change.endpoint.taskId, change.endpoint);
        return;
      case "remove-endpoint":
        this.#setEndpoint(change.taskId, undefined);
        return;
      case "service":
        this.#services.set(change.service.serviceId, change.service);
        this.#changes.services.add(change.service.serviceId);
        return;
      case "remove-service":
        this.#services.delete(change.serviceId);
        this.#changes.services.add(change.serviceId);
        return;
      default:
        unreachable(change);
    }
  }

  /** What has changed since the last call. */
  takeChanges(): TableChanges {
    const changes = this.#changes;
    this.#changes = noChanges();
    return changes;
  }

  #setEndpoint(taskId: string, endpoint: NetworkEndpoint | undefined): void {
    const before = this.#endpoints.get(taskId);
    for (const one of [before, endpoint]) if (one?.serviceId) this.#changes.services.add(one.serviceId);
    this.#changes.endpoints.add(taskId);
    if (before?.serviceId && before.serviceId !== endpoint?.serviceId) {
      removeFrom(this.#byService, before.serviceId, taskId);
    }
    if (!endpoint) this.#endpoints.delete(taskId);
    else {
      this.#endpoints.set(taskId, endpoint);
      if (endpoint.serviceId) addTo(this.#byService, endpoint.serviceId, taskId);
    }
  }
}

function noChanges() {
  return { network: false, nodes: new Set<string>(), endpoints: new Set<string>(), services: new Set<string>() };
}
