/**
 * A network's neighbours and forwarding entries in the kernel, as text for `ip -batch` and `bridge -batch`, and compared
 * with what those programs say is there.
 *
 * An endpoint on another node has two lines: its hardware address on the bridge (a neighbour, from which the bridge also
 * answers for it), and where that address is: behind the VXLAN, on which node (both in one forwarding entry, which is
 * marked as learned elsewhere so that it never ages). One on this node has a neighbour and its own port.
 */
import { bridgeName, macOf, vxlanName } from "./names.ts";
import type { Peer } from "./peers.ts";

/** An endpoint on this node. */
export interface LocalEndpoint {
  /** Without prefix. */
  readonly address: string;
  /** Its port on the bridge. */
  readonly port: string;
}

/** For `ip -batch` and `bridge -batch` in the network's namespace. */
export interface Batches {
  readonly ip: readonly string[];
  readonly bridge: readonly string[];
}

/** As `ip -json neigh show` tells of it. */
export interface NeighbourView {
  readonly dst: string;
  readonly dev?: string;
  readonly lladdr?: string;
  readonly state?: readonly string[];
}

/** As `bridge -json fdb show` tells of it. */
export interface ForwardingView {
  readonly mac: string;
  readonly ifname: string;
  readonly dst?: string;
  readonly flags?: readonly string[];
  readonly master?: string;
  readonly state?: string;
}

export interface TablesDifference extends Batches {
  /** Each in words, for people. */
  readonly differences: readonly string[];
  /** What is too much: to be run after all the others. */
  readonly removal: Batches;
}

export function neighbourLine(address: string): string {
  return `neigh replace ${address} lladdr ${macOf(address)} dev ${bridgeName} nud permanent`;
}

export function withoutNeighbourLine(address: string): string {
  return `neigh del ${address} dev ${bridgeName}`;
}

function forwardingLine({ address, via }: Peer): string {
  return `fdb replace ${macOf(address)} dev ${vxlanName} dst ${via} self master dynamic extern_learn`;
}

export function portLine({ address, port }: LocalEndpoint): string {
  return `fdb replace ${macOf(address)} dev ${port} master static`;
}

/** Endpoints on other nodes that are new, or elsewhere now. */
export function setPeers(peers: readonly Peer[]): Batches {
  return { ip: peers.map(({ address }) => neighbourLine(address)), bridge: peers.map(forwardingLine) };
}

/**
 * Addresses that are no longer on another node.
 * @param isLocal those that are on this one now: their neighbour and their port's entry stay
 */
export function removePeers(addresses: readonly string[], isLocal: (address: string) => boolean): Batches {
  const elsewhere = addresses.filter((address) => !isLocal(address));
  return {
    ip: elsewhere.map(withoutNeighbourLine),
    bridge: addresses.flatMap((address) => [
      `fdb del ${macOf(address)} dev ${vxlanName} self`,
      // The bridge has one entry for an address; that of a port of ours has taken its place.
      ...(isLocal(address) ? [] : [`fdb del ${macOf(address)} dev ${vxlanName} master`]),
    ]),
  };
}

/** What it takes to make the kernel's tables equal to these endpoints. */
export function compareTables(
  peers: Iterable<Peer>,
  locals: Iterable<LocalEndpoint>,
  neighbours: readonly NeighbourView[],
  forwarding: readonly ForwardingView[],
): TablesDifference {
  const differences: string[] = [];
  const ip: string[] = [];
  const bridge: string[] = [];
  const known = new Map<string, string | undefined>();
  for (const { dst, dev, lladdr, state = [] } of neighbours) {
    if ((dev ?? bridgeName) === bridgeName && state.includes("PERMANENT")) known.set(dst, lladdr);
  }
  const remote = new Map<string, string | undefined>();
  const ports = new Map<string, string>();
  for (const { mac, ifname, dst, flags = [], master, state } of forwarding) {
    if (ifname === vxlanName && flags.includes("self")) remote.set(mac, dst);
    else if (master === bridgeName && state !== "permanent") ports.set(mac, ifname);
  }
  const needNeighbour = (address: string) => {
    const found = known.get(address);
    known.delete(address);
    if (found === macOf(address)) return;
    ip.push(neighbourLine(address));
    differences.push(`neighbour ${address} is ${found ?? "missing"}`);
  };
  const localMacs = new Set<string>();
  for (const local of locals) {
    needNeighbour(local.address);
    const mac = macOf(local.address);
    localMacs.add(mac);
    const found = ports.get(mac);
    ports.delete(mac);
    if (found === local.port) continue;
    bridge.push(portLine(local));
    differences.push(`${local.address} is behind ${found ?? "no port"}, not ${local.port}`);
  }
  for (const peer of peers) {
    const mac = macOf(peer.address);
    if (localMacs.has(mac)) continue; // it is on its way here or from here; the port decides as long as it is there
    needNeighbour(peer.address);
    const via = remote.get(mac);
    const port = ports.get(mac);
    remote.delete(mac);
    ports.delete(mac);
    if (via === peer.via && port === vxlanName) continue;
    bridge.push(forwardingLine(peer));
    differences.push(`${peer.address} is on ${via ?? "no node"} behind ${port ?? "no port"}, not on ${peer.via}`);
  }
  const removal = { ip: [...known.keys()].map(withoutNeighbourLine), bridge: [] as string[] };
  for (const address of known.keys()) differences.push(`neighbour ${address} is nobody's`);
  for (const [mac, via] of remote) {
    removal.bridge.push(`fdb del ${mac} dev ${vxlanName} self`);
    differences.push(`${mac} on ${via} is nobody's`);
  }
  for (const [mac, port] of ports) {
    removal.bridge.push(`fdb del ${mac} dev ${port} master`);
    differences.push(`${mac} behind ${port} is nobody's`);
  }
  return { differences, ip, bridge, removal };
}
