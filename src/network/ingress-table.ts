/**
 * The routing mesh in the ingress network's namespace, as rules. Two things happen there:
 *
 * - **Lead.** What comes through the cable for a published port goes to one of the service's active tasks in turn, at
 *   its target port, on whichever node, with the client's address as it is. A port without an active task refuses at
 *   once, and before the kernel remembers the connection (a UDP client that always uses the same port would else be
 *   refused for ever).
 * - **Way back.** A task answers to its gateway, which is its own node; but the node by which the client came must see
 *   the answer, since it has led. So the task's node remembers by which node a connection came (that node's hardware
 *   address is the packet's sender), and an answer's receiver is replaced by that node while it is still on the bridge:
 *   it goes straight there, without being routed here. What came by this node itself has no such mark.
 *
 * The mark is the connection's zone, in its original direction alone: the same client, with the same port, may so speak
 * to the same task by two nodes at once. A client that tasks see with an address of the network has none, and needs
 * none: it is a node, and answers reach it by themselves.
 *
 * Swarm gives tasks the node's address as their client's instead, so that they answer to that node by themselves.
 */
import { assert } from "../lib/errors.ts";
import { parseAddress, parseCidr } from "../lib/ipv4.ts";
import type { NetworkPort } from "../model/network-state.ts";
import { inTurn, refusal } from "./balance.ts";
import { hostFrame, meshLink } from "./ingress-host.ts";
import { bridgeName, macOf } from "./names.ts";
import { type NftFrame, NftTable } from "./nft.ts";
import type { NetworkTable, TableChanges } from "./table.ts";

/** A port of one task on this node alone (`mode=host`). */
export interface HostPort {
  /** The task's, on the ingress network, without prefix. */
  readonly address: string;
  readonly protocol: NetworkPort["protocol"];
  readonly hostPort: number;
  readonly port: number;
}

/** Zones are 16 bits, and 0 is none. */
const zones = 0xffff;

/** What is led where: in the namespace, and in the node's own. */
export class IngressTables {
  readonly mesh: NftTable;
  readonly host: NftTable;
  readonly #selfNodeId: string;
  /** Zone by node. */
  readonly #zones = new Map<string, number>();
  /** Hardware address by node. */
  readonly #macs = new Map<string, string>();
  /** Rules by port (`tcp . 80`), by service; those of single tasks have "" for a service. */
  readonly #ports = new Map<string, ReadonlyMap<string, readonly string[]>>();

  constructor(table: NetworkTable, hostPorts: readonly HostPort[], selfNodeId: string) {
    this.#selfNodeId = selfNodeId;
    this.mesh = new NftTable(meshFrame(table.network.subnet));
    this.host = new NftTable(hostFrame);
    this.#setNodes(table, table.nodes.keys());
    this.#setServices(table, table.services.keys());
    this.setHostPorts(hostPorts);
  }

  update(table: NetworkTable, changes: TableChanges): void {
    this.#setNodes(table, changes.nodes);
    this.#setServices(table, changes.services);
  }

  setHostPorts(hostPorts: readonly HostPort[]): void {
    const wanted = new Map<string, readonly string[]>();
    for (const { address, protocol, hostPort, port } of hostPorts) {
      wanted.set(keyOf(protocol, hostPort), [`meta l4proto ${protocol} dnat to ${address}:${port}`]);
    }
    this.#setPorts(new Map([["", wanted]]));
  }

  #setNodes(table: NetworkTable, nodeIds: Iterable<string>): void {
    const gained: [string, string][] = [];
    for (const nodeId of nodeIds) {
      const address = nodeId === this.#selfNodeId ? undefined : table.nodes.get(nodeId)?.ownAddress;
      const [before, after] = [this.#macs.get(nodeId), address === undefined ? undefined : macOf(address)];
      if (before === after) continue;
      const zone = this.#zones.get(nodeId);
      if (before !== undefined && zone !== undefined) {
        this.mesh.setElement("zones", before, undefined);
        this.mesh.setElement("nodes", String(zone), undefined);
      }
      this.#macs.delete(nodeId);
      this.#zones.delete(nodeId);
      if (address !== undefined) gained.push([nodeId, address]);
    }
    for (const [nodeId, address] of gained) {
      const zone = this.#freeZone(table.network.subnet, address);
      const mac = macOf(address);
      this.#zones.set(nodeId, zone);
      this.#macs.set(nodeId, mac);
      this.mesh.setElement("zones", mac, String(zone));
      this.mesh.setElement("nodes", String(zone), mac);
    }
  }

  /**
   * Follows from the address, so that connections find their way back after a restart of the agent. Two nodes get the
   * same one only in networks of more than 65,535 addresses; then the later one takes the next.
   */
  #freeZone(subnet: string, address: string): number {
    const base = parseCidr(subnet)!.address;
    const taken = new Set(this.#zones.values());
    assert(taken.size < zones, "more nodes than zones");
    let zone = Math.max(1, (parseAddress(address)! - base) & zones);
    while (taken.has(zone)) zone = (zone % zones) + 1;
    return zone;
  }

  #setServices(table: NetworkTable, serviceIds: Iterable<string>): void {
    const wanted = new Map<string, ReadonlyMap<string, readonly string[]>>();
    for (const serviceId of serviceIds) {
      const ports = table.services.get(serviceId)?.ports ?? [];
      const backends = ports.length > 0 ? table.activeEndpoints(serviceId).map(({ address }) => address) : [];
      wanted.set(
        serviceId,
        new Map(ports.map((port) => [keyOf(port.protocol, port.published), leadOf(port, backends)])),
      );
    }
    this.#setPorts(wanted);
  }

  /** A port may go from one service to another: what is gone goes first. */
  #setPorts(wanted: ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>): void {
    for (const [owner, ports] of wanted) {
      for (const key of this.#ports.get(owner)?.keys() ?? []) {
        if (ports.has(key)) continue;
        this.mesh.setElement("ports", key, undefined);
        this.mesh.setChain(chainOf(key), undefined);
        this.host.setElement("ports", key, undefined);
      }
    }
    for (const [owner, ports] of wanted) {
      if (ports.size === 0) this.#ports.delete(owner);
      else this.#ports.set(owner, ports);
      for (const [key, rules] of ports) {
        this.mesh.setChain(chainOf(key), rules);
        this.mesh.setElement("ports", key, `goto ${chainOf(key)}`);
        this.host.setElement("ports", key, "");
      }
    }
  }
}

function meshFrame(subnet: string): NftFrame {
  const fromBridge = `iifname "${bridgeName}"`;
  return {
    collections: {
      ports: { kind: "map", type: "type inet_proto . inet_service : verdict" },
      zones: { kind: "map", type: "typeof ether saddr : ct original zone" },
      nodes: { kind: "map", type: "typeof ct original zone : ether daddr" },
    },
    hooks: {
      remember: {
        hook: "type filter hook prerouting priority raw; policy accept;",
        // Cheapest first, here and below, as every packet of the mesh comes by: what tasks answer is told by its source.
        rules: [`ip saddr != ${subnet} ${fromBridge} ct original zone set ether saddr map @zones`],
      },
      back: {
        hook: "type filter hook prerouting priority mangle; policy accept;",
        rules: [`ct direction reply ct original zone != 0 ${fromBridge} ether daddr set ct original zone map @nodes`],
      },
      lead: {
        hook: "type nat hook prerouting priority dstnat; policy accept;",
        rules: [`iifname "${meshLink}" meta l4proto . th dport vmap @ports`],
      },
      leaving: {
        hook: "type nat hook postrouting priority srcnat; policy accept;",
        rules: [
          // The tasks' own way out.
          `oifname "${meshLink}" masquerade`,
          // A client in a network of the same addresses outside: tasks would look for it among themselves.
          `iifname "${meshLink}" ip saddr ${subnet} masquerade`,
        ],
      },
    },
  };
}

function leadOf({ protocol, target }: NetworkPort, backends: readonly string[]): readonly string[] {
  return backends.length === 0 ? refusal : [`meta l4proto ${protocol} dnat to ${inTurn(backends)}:${target}`];
}

function keyOf(protocol: string, port: number): string {
  return `${protocol} . ${port}`;
}

function chainOf(key: string): string {
  return `p_${key.replace(" . ", "_")}`;
}
