/**
 * Who is on which overlay network and what leads where, kept up with the store's commits.
 *
 * Invariant: after each commit it equals what one would work out from the committed view alone (and the tasks that
 * nodes have withdrawn); the work for a commit grows with what the commit changed. A network is known as soon as
 * anything refers to it, and is told of once the allocator has given it what nodes need.
 */
import { sameJson } from "../../lib/same.ts";
import type {
  NetworkEndpoint,
  NetworkKey,
  NetworkNode,
  NetworkService,
  NetworkState,
} from "../../model/network-state.ts";
import { isTerminal } from "../../model/state.ts";
import type { Node } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import {
  isPlaced,
  isServing,
  networkEndpoint,
  networkKey,
  networkNode,
  networkService,
  networkState,
  networksOfService,
} from "./rows.ts";

/** One network. Readers take it as it is at the moment. */
export interface NetworkContents {
  /** Undefined: nodes can't be told of it (yet). */
  readonly state: NetworkState | undefined;
  /** Who takes part: whoever has a task on it; on the ingress network every node that can. */
  readonly nodes: ReadonlyMap<string, NetworkNode>;
  /** By task. */
  readonly endpoints: ReadonlyMap<string, NetworkEndpoint>;
  readonly services: ReadonlyMap<string, NetworkService>;
}

export type NetworkPart = "network" | "node" | "endpoint" | "service";

/** Told of each difference, in the course of the commit. `id` of the part; the network's own where it is that. */
export type OnDifference = (networkId: string, part: NetworkPart, id: string) => void;

interface Entry extends NetworkContents {
  state: NetworkState | undefined;
  readonly nodes: Map<string, NetworkNode>;
  readonly endpoints: Map<string, NetworkEndpoint>;
  readonly services: Map<string, NetworkService>;
  /** How many endpoints each node has. */
  readonly tasksOfNode: Map<string, number>;
}

export class NetworkIndex {
  readonly #view: View;
  readonly #onDifference: OnDifference;
  readonly #onKey: () => void;
  readonly #networks = new Map<string, Entry>();
  readonly #ingress = new Set<string>();
  readonly #networksOfTask = new Map<string, readonly string[]>();
  readonly #networksOfService = new Map<string, ReadonlySet<string>>();
  readonly #withdrawn = new Set<string>();
  #key: NetworkKey | undefined;

  /** Equal to the view from the start. @param onKey told when the key has changed */
  constructor(view: View, onDifference: OnDifference, onKey: () => void) {
    this.#view = view;
    this.#onDifference = onDifference;
    this.#onKey = onKey;
    this.#key = networkKey(view.cluster());
    for (const { ID } of view.all("networks")) this.#lookAtNetwork(ID);
    for (const { ID } of view.all("services")) this.#lookAtService(ID);
    for (const { ID } of view.all("tasks")) this.#lookAtTask(ID);
  }

  get key(): NetworkKey | undefined {
    return this.#key;
  }

  network(id: string): NetworkContents | undefined {
    return this.#networks.get(id);
  }

  /** Ids of all networks that are known, also of those that nodes can't be told of yet. */
  networkIds(): Iterable<string> {
    return this.#networks.keys();
  }

  /** Whether the node takes part in the network, and can be told of it. */
  takesPart(nodeId: string, networkId: string): boolean {
    const network = this.#networks.get(networkId);
    return network?.state !== undefined && network.nodes.has(nodeId);
  }

  /** Takes a change; the view has all of its commit already. */
  apply(change: Change): void {
    switch (change.table) {
      case "networks":
        this.#lookAtNetwork(change.id);
        return;
      case "nodes":
        this.#lookAtNode(change.id, change.before, change.after);
        return;
      case "tasks":
        if (!change.after || isTerminal(change.after.Status.State)) this.#withdrawn.delete(change.id);
        this.#lookAtTask(change.id);
        return;
      case "services":
        this.#lookAtService(change.id);
        // Tasks are called by their service's name, which never changes.
        if (!change.before !== !change.after) {
          for (const task of this.#view.tasksOfService(change.id)) this.#lookAtTask(task.ID);
        }
        return;
      case "specs": {
        const spec = change.after ?? change.before;
        if (spec) this.#lookAtService(spec.ServiceID);
        return;
      }
      case "cluster":
        this.#lookAtKey();
        if (change.before?.DataPathPort !== change.after?.DataPathPort) {
          for (const { ID } of this.#view.all("networks")) this.#lookAtNetwork(ID);
        }
        return;
      default: // whoever leads, and what a service hands to its tasks, is no matter of networks
        return;
    }
  }

  /**
   * Nobody is led to the task any more, whatever the store says of it: until it has ended, or `restore`. Also of a task
   * that the view does not have yet.
   */
  withdraw(taskId: string): void {
    this.#withdrawn.add(taskId);
    this.#lookAtTask(taskId);
  }

  restore(taskId: string): void {
    if (this.#withdrawn.delete(taskId)) this.#lookAtTask(taskId);
  }

  #lookAtKey(): void {
    const key = networkKey(this.#view.cluster());
    if (sameJson(key, this.#key)) return;
    this.#key = key;
    this.#onKey();
  }

  #lookAtNetwork(id: string): void {
    const state = networkState(this.#view.network(id), this.#view.cluster());
    const before = this.#networks.get(id)?.state;
    if (sameJson(before, state)) return;
    const entry = this.#entry(id);
    entry.state = state;
    this.#onDifference(id, "network", id);
    if ((before?.ingress ?? false) !== (state?.ingress ?? false)) this.#setIngress(id, entry, state?.ingress ?? false);
    this.#dropIfEmpty(id, entry);
  }

  #setIngress(id: string, entry: Entry, isIngress: boolean): void {
    if (isIngress) this.#ingress.add(id);
    else this.#ingress.delete(id);
    for (const node of this.#view.all("nodes")) this.#placeNode(id, entry, node.ID, node);
    for (const serviceId of [...entry.services.keys()]) this.#lookAtService(serviceId);
  }

  #lookAtNode(id: string, before: Node | undefined, after: Node | undefined): void {
    const isDown = before?.Status.State === "down";
    if (!before?.DataPath !== !after?.DataPath || isDown !== (after?.Status.State === "down")) {
      for (const task of this.#view.tasksOfNode(id)) this.#lookAtTask(task.ID);
    }
    if (sameJson(before?.DataPath, after?.DataPath) && sameJson(before?.Attachments, after?.Attachments)) return;
    for (const [networkId, entry] of this.#networks) this.#placeNode(networkId, entry, id, after);
  }

  /** The node on a network, as its tasks there and its row want it. */
  #placeNode(networkId: string, entry: Entry, nodeId: string, row: Node | undefined): void {
    const takesPart = entry.tasksOfNode.has(nodeId) || this.#ingress.has(networkId);
    const node = takesPart ? networkNode(row, networkId) : undefined;
    if (this.#set(entry.nodes, nodeId, node)) this.#onDifference(networkId, "node", nodeId);
  }

  #lookAtService(id: string): void {
    const service = this.#view.service(id);
    const spec = service && this.#view.spec(id, service.SpecVersion.Index)?.Spec;
    const before = this.#networksOfService.get(id);
    const after = service && spec ? networksOfService(service, spec) : new Set<string>();
    for (const networkId of before ?? []) if (!after.has(networkId)) this.#setService(networkId, id, undefined);
    if (after.size === 0) this.#networksOfService.delete(id);
    else this.#networksOfService.set(id, after);
    if (!service || !spec) return;
    for (const networkId of after) {
      this.#setService(networkId, id, networkService(service, spec, networkId, this.#ingress.has(networkId)));
    }
  }

  #setService(networkId: string, id: string, service: NetworkService | undefined): void {
    const entry = this.#entry(networkId);
    if (this.#set(entry.services, id, service)) this.#onDifference(networkId, "service", id);
    this.#dropIfEmpty(networkId, entry);
  }

  #lookAtTask(id: string): void {
    const task = this.#view.get("tasks", id);
    const node = task && this.#view.get("nodes", task.NodeID);
    const addresses = task?.Addresses && isPlaced(task, node) ? task.Addresses : [];
    const before = this.#networksOfTask.get(id);
    if (task && addresses.length > 0) {
      const active = isServing(task, node) && !this.#withdrawn.has(id);
      const name = task.ServiceID === "" ? undefined : this.#view.service(task.ServiceID)?.Name;
      for (const address of addresses) {
        this.#setEndpoint(address.NetworkID, id, networkEndpoint(task, address, name, active));
      }
      this.#networksOfTask.set(
        id,
        addresses.map(({ NetworkID }) => NetworkID),
      );
    } else this.#networksOfTask.delete(id);
    for (const networkId of before ?? []) {
      if (!addresses.some(({ NetworkID }) => NetworkID === networkId)) this.#setEndpoint(networkId, id, undefined);
    }
  }

  #setEndpoint(networkId: string, taskId: string, endpoint: NetworkEndpoint | undefined): void {
    const entry = this.#entry(networkId);
    const before = entry.endpoints.get(taskId);
    if (!this.#set(entry.endpoints, taskId, endpoint)) return;
    this.#onDifference(networkId, "endpoint", taskId);
    if (before?.nodeId !== endpoint?.nodeId) {
      if (endpoint) this.#count(networkId, entry, endpoint.nodeId, 1);
      if (before) this.#count(networkId, entry, before.nodeId, -1);
    }
    this.#dropIfEmpty(networkId, entry);
  }

  #count(networkId: string, entry: Entry, nodeId: string, difference: number): void {
    const count = (entry.tasksOfNode.get(nodeId) ?? 0) + difference;
    if (count > 0) entry.tasksOfNode.set(nodeId, count);
    else entry.tasksOfNode.delete(nodeId);
    this.#placeNode(networkId, entry, nodeId, this.#view.get("nodes", nodeId));
  }

  /** False where nothing is different. */
  #set<T>(map: Map<string, T>, id: string, value: T | undefined): boolean {
    if (sameJson(map.get(id), value)) return false;
    if (value === undefined) map.delete(id);
    else map.set(id, value);
    return true;
  }

  #entry(id: string): Entry {
    let entry = this.#networks.get(id);
    if (!entry) {
      entry = {
        state: undefined,
        nodes: new Map(),
        endpoints: new Map(),
        services: new Map(),
        tasksOfNode: new Map(),
      };
      this.#networks.set(id, entry);
    }
    return entry;
  }

  #dropIfEmpty(id: string, entry: Entry): void {
    if (entry.state || entry.endpoints.size > 0 || entry.services.size > 0) return;
    this.#networks.delete(id);
  }
}
