/**
 * Subnets and VXLAN ids of networks. They are given in the transaction that makes the network, on whichever manager,
 * so that there never is a network that waits for one: where none is left the client is told at once (in Swarm the
 * network is made and never works).
 *
 * Invariant: no two networks that are not removed have overlapping subnets, no two at all have one VXLAN id.
 */
import { ShoalError } from "../../lib/errors.ts";
import { formatAddress, formatRange, overlaps, parseCidr, type Range } from "../../lib/ipv4.ts";
import { networkOptions } from "../../model/networks.ts";
import type { AllocatedNetwork, Cluster, NetworkSpec } from "../../model/types.ts";
import type { Transaction } from "../../store/store.ts";
import { lastOf, putLast } from "./serial.ts";

/** Swarm's first id: those below are left to networks that are not of a swarm. */
const firstVxlanId = 4096;
const lastVxlanId = 2 ** 24 - 1;
/** Where the VXLAN id that was handed out last is kept; written with each network, so it is their lock too. */
const vxlanSerial = "vxlan";

/** The name of the lock under which somebody begins to use a network, or it is removed because nobody does. */
export function networkLock(networkId: string): string {
  return `network ${networkId}`;
}

/**
 * What a network of the spec (a valid one) gets: what it asks for, else the first free subnet of the cluster's pools.
 * @throws ShoalError PermissionDenied where the subnet asked for overlaps with another network's; InvalidArgument where
 * the pools are used up, or the VXLAN id that it asks for is taken
 */
export function allocateNetwork(tx: Transaction, cluster: Cluster, spec: NetworkSpec): AllocatedNetwork {
  const [asked] = spec.IPAM.Config;
  const taken = subnetsTaken(tx);
  const subnet = asked?.Subnet ? askedSubnet(asked.Subnet, taken.used) : freeSubnet(cluster, taken);
  const pool = asked?.IPRange ? parseCidr(asked.IPRange)!.range : subnet;
  const range = pool.length === subnet.length ? undefined : formatRange(pool);
  return {
    Subnet: formatRange(subnet),
    ...(range !== undefined && { IPRange: range }),
    Gateway: asked?.Gateway || formatAddress(Math.max(pool.first, subnet.first + 1)),
    VxlanID: allocateVxlanId(tx, spec),
  };
}

interface NamedRange {
  readonly name: string;
  readonly range: Range;
}

interface TakenSubnets {
  /** Of networks that are there. */
  readonly used: readonly NamedRange[];
  /** Of removed ones whose tasks are still ending: not chosen, but given to who asks for them. */
  readonly leaving: readonly Range[];
}

function subnetsTaken(tx: Transaction): TakenSubnets {
  const used: NamedRange[] = [];
  const leaving: Range[] = [];
  for (const { Name, Allocated, Removed } of tx.all("networks")) {
    const range = Allocated && parseCidr(Allocated.Subnet)?.range;
    if (!range) continue;
    if (Removed) leaving.push(range);
    else used.push({ name: Name, range });
  }
  return { used, leaving };
}

function askedSubnet(text: string, used: readonly NamedRange[]): Range {
  const { range } = parseCidr(text)!;
  const other = used.find((one) => overlaps(one.range, range));
  if (!other) return range;
  const whose = `${formatRange(other.range)} of network ${other.name}`;
  throw new ShoalError(
    "PermissionDenied",
    `invalid pool request: Pool overlaps with other one on this address space: ${text} with ${whose}`,
  );
}

function freeSubnet({ DefaultAddrPool: pools, SubnetSize: length }: Cluster, { used, leaving }: TakenSubnets): Range {
  const taken = [...used.map(({ range }) => range), ...leaving].sort((a, b) => a.first - b.first);
  const size = 2 ** (32 - length);
  let count = 0;
  for (const text of pools) {
    const pool = parseCidr(text)?.range;
    if (!pool || pool.length > length) continue;
    count += 2 ** (length - pool.length);
    let first = pool.first;
    for (const range of taken) {
      // In order of their addresses, so what is free before one of them stays so.
      if (range.last < first) continue;
      if (range.first > first + size - 1) break;
      first = Math.ceil((range.last + 1) / size) * size;
    }
    if (first + size - 1 <= pool.last) return { first, last: first + size - 1, length };
  }
  const subnets =
    count === 1 ? `the only subnet of size /${length} is` : `${count} of ${count} subnets of size /${length} are`;
  throw new ShoalError("InvalidArgument", `all predefined address pools have been fully subnetted: ${subnets} in use`);
}

function allocateVxlanId(tx: Transaction, spec: NetworkSpec): number {
  const taken = new Set<number>();
  for (const { Allocated } of tx.all("networks")) if (Allocated) taken.add(Allocated.VxlanID);
  const last = lastOf(tx, vxlanSerial) ?? firstVxlanId - 1;
  const asked = spec.Options[networkOptions.vxlanIds];
  if (asked) {
    if (taken.has(Number(asked))) throw new ShoalError("InvalidArgument", `VXLAN id ${asked} is already in use`);
    putLast(tx, vxlanSerial, last);
    return Number(asked);
  }
  let id = last;
  do id = id >= lastVxlanId ? firstVxlanId : id + 1;
  while (taken.has(id));
  putLast(tx, vxlanSerial, id);
  return id;
}
