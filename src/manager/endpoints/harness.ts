/** For tests of the networks' state: rows as other parts would write them, and a node that takes messages at their word. */
import assert from "node:assert/strict";
import { unreachable } from "../../lib/errors.ts";
import type {
  NetworkChange,
  NetworkEndpoint,
  NetworkNode,
  NetworkService,
  NetworkState,
  NetworksMessage,
} from "../../model/network-state.ts";
import { isTerminal } from "../../model/state.ts";
import { type NetworkSpec, specKey, type Task } from "../../model/types.ts";
import type { Transaction, View } from "../../store/store.ts";
import type { NetworkIndex } from "./network-index.ts";

const networkSpec: NetworkSpec = {
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigOnly: false,
  EnableIPv6: false,
  Options: {},
  IPAM: { Driver: "default", Options: {}, Config: [] },
};

/** An overlay network, allocated. `number`: of its VXLAN and its subnet 10.0.N.0/24. */
export function makeNetwork(tx: Transaction, id: string, number: number, spec: Partial<NetworkSpec> = {}): void {
  tx.create("networks", {
    ID: id,
    Name: `net-${id}`,
    Labels: {},
    Driver: "overlay",
    Predefined: false,
    Spec: { ...networkSpec, ...spec },
    Allocated: { Subnet: `10.0.${number}.0/24`, Gateway: `10.0.${number}.1`, VxlanID: 4096 + number },
  });
}

/** A node that is up. `number`: its data path is 192.168.0.N; undefined: it has none of ours. */
export function makeNode(tx: Transaction, id: string, number: number | undefined, ingressId?: string): void {
  tx.create("nodes", {
    ID: id,
    Spec: { Labels: {}, Role: "worker", Availability: "active" },
    Status: { State: "ready" },
    Role: "worker",
    SessionManager: "m1",
    ...(number !== undefined && { DataPath: { address: `192.168.0.${number}` } }),
    ...(ingressId && { Attachments: [{ NetworkID: ingressId, Address: `10.0.0.${200 + (number ?? 0)}/24` }] }),
  });
}

/** A service on networks; with an ingress port if `ingressId` is given. `number`: its virtual address ends in it. */
export function makeService(
  tx: Transaction,
  id: string,
  number: number,
  networkIds: readonly string[],
  options: { readonly ingressId?: string; readonly aliases?: readonly string[]; readonly dnsrr?: boolean } = {},
): void {
  const { ingressId, aliases = [], dnsrr = false } = options;
  const VirtualIPs = [...(dnsrr ? [] : networkIds), ...(ingressId ? [ingressId] : [])].map((NetworkID) => ({
    NetworkID,
    Addr: `10.9.9.${number}/24`,
  }));
  const Ports = ingressId ? [{ Protocol: "tcp" as const, TargetPort: 80, PublishedPort: 8000 + number }] : [];
  const Networks = networkIds.map((Target) => ({ Target, Aliases: [...aliases] }));
  tx.create("services", { ID: id, Name: id, SpecVersion: { Index: 1 }, Endpoint: { Ports, VirtualIPs } });
  tx.create("specs", {
    ID: specKey(id, 1),
    ServiceID: id,
    Revision: 1,
    Spec: { Name: id, TaskTemplate: { Networks } },
  });
}

/** A task that is assigned, with an address on each network. */
export function makeTask(
  tx: Transaction,
  id: string,
  serviceId: string,
  nodeId: string,
  networkIds: readonly string[],
  change: Partial<Task> = {},
): void {
  tx.create("tasks", {
    ID: id,
    ServiceID: serviceId,
    Slot: 1,
    NodeID: nodeId,
    SpecVersion: { Index: 1 },
    Status: { Timestamp: tx.now, State: "assigned" },
    DesiredState: "running",
    Addresses: networkIds.map((NetworkID) => ({ NetworkID, Address: freeAddress(tx, NetworkID) })),
    ...change,
  });
}

/** The lowest address that no task has: so that they come back soon. */
function freeAddress(view: View, networkId: string): string {
  const used = new Set<string>();
  for (const { Addresses, Status } of view.all("tasks")) {
    if (isTerminal(Status.State)) continue;
    for (const { NetworkID, Address } of Addresses ?? []) if (NetworkID === networkId) used.add(Address);
  }
  for (let host = 2; ; host++) if (!used.has(`10.0.7.${host}/24`)) return `10.0.7.${host}/24`;
}

export function setTask(tx: Transaction, id: string, change: Partial<Task>): void {
  const task = tx.get("tasks", id);
  if (task) tx.put("tasks", { ...task, ...change });
}

interface Known {
  state: NetworkState;
  readonly nodes: Map<string, NetworkNode>;
  readonly endpoints: Map<string, NetworkEndpoint>;
  readonly services: Map<string, NetworkService>;
}

/** What a node knows. It refuses what can't be done in the order in which it comes. */
export class NodeModel {
  readonly networks = new Map<string, Known>();
  key: number | undefined;
  revision = 0;
  messages = 0;
  /** Of all messages. */
  changes = 0;

  apply(message: NetworksMessage): void {
    assert.equal(message.type, this.messages === 0 ? "complete" : "incremental");
    assert(message.revision > this.revision, "revisions grow");
    this.revision = message.revision;
    this.messages++;
    this.changes += message.changes.length;
    for (const change of message.changes) this.#apply(change);
  }

  #apply(change: NetworkChange): void {
    switch (change.kind) {
      case "key":
        this.key = change.key.revision;
        return;
      case "network": {
        const known = this.networks.get(change.network.id);
        if (known) known.state = change.network;
        else {
          this.networks.set(change.network.id, {
            state: change.network,
            nodes: new Map(),
            endpoints: new Map(),
            services: new Map(),
          });
        }
        return;
      }
      case "remove-network":
        assert(this.networks.delete(change.networkId), "only a network that the node has is removed");
        return;
      case "node":
        this.#known(change.networkId).nodes.set(change.node.nodeId, change.node);
        return;
      case "remove-node": {
        const { nodes, endpoints } = this.#known(change.networkId);
        for (const { nodeId } of endpoints.values()) assert.notEqual(nodeId, change.nodeId, "nobody is there any more");
        nodes.delete(change.nodeId);
        return;
      }
      case "endpoint": {
        const { nodes, endpoints } = this.#known(change.networkId);
        const { endpoint } = change;
        assert(nodes.has(endpoint.nodeId), "the way to an endpoint is known before it");
        for (const other of endpoints.values()) {
          if (other.taskId !== endpoint.taskId) assert.notEqual(other.address, endpoint.address, "an address is one's");
        }
        endpoints.set(endpoint.taskId, endpoint);
        return;
      }
      case "remove-endpoint":
        this.#known(change.networkId).endpoints.delete(change.taskId);
        return;
      case "service":
        this.#known(change.networkId).services.set(change.service.serviceId, change.service);
        return;
      case "remove-service":
        this.#known(change.networkId).services.delete(change.serviceId);
        return;
      default:
        unreachable(change);
    }
  }

  #known(networkId: string): Known {
    const known = this.networks.get(networkId);
    assert(known, "a network comes before what is on it");
    return known;
  }

  /** What it knows, to be compared. */
  contents(): object {
    return Object.fromEntries(
      [...this.networks]
        .sort(byName)
        .map(([id, { state, nodes, endpoints, services }]) => [
          id,
          { state, nodes: sorted(nodes), endpoints: sorted(endpoints), services: sorted(services) },
        ]),
    );
  }
}

/** What the index has of the networks that nodes are told of, to be compared. @param nodeId only of its networks */
export function contentsOf(index: NetworkIndex, nodeId?: string): object {
  const contents: Record<string, object> = {};
  for (const id of [...index.networkIds()].sort()) {
    const { state, nodes, endpoints, services } = index.network(id)!;
    if (!state || (nodeId !== undefined && !index.takesPart(nodeId, id))) continue;
    contents[id] = { state, nodes: sorted(nodes), endpoints: sorted(endpoints), services: sorted(services) };
  }
  return contents;
}

function sorted<T>(map: ReadonlyMap<string, T>): Record<string, T> {
  return Object.fromEntries([...map].sort(byName));
}

function byName([left]: readonly [string, unknown], [right]: readonly [string, unknown]): number {
  return left < right ? -1 : 1;
}
