/** What the Engine checks of a `swarm init` or `join` before it starts anything. Its texts. */
import { isIP } from "node:net";
import { overlaps, parseCidr } from "../lib/ipv4.ts";
import { clusterName } from "../model/cluster.ts";
import type { SwarmInitRequest, SwarmJoinRequest } from "../model/types.ts";
import { badRequest } from "./errors.ts";

const defaultManagerPort = 2377;
const lowestDataPathPort = 1024;
const highestDataPathPort = 49151;
const defaultSubnetSize = 24;
/** 8 addresses: fewer would not do for the addresses that a network needs for itself. */
const longestSubnetSize = 29;

/** Throws 400. Listen and advertise addresses are the node's to judge: only it knows the machine's. */
export function validateInit(request: SwarmInitRequest & { Availability?: string }): void {
  const { Spec, DataPathPort = 0, DefaultAddrPool = [], SubnetSize = 0, Availability = "" } = request;
  if (Spec?.Name && Spec.Name !== clusterName) throw badRequest(`swarm spec must be named "${clusterName}"`);
  validateAvailability(Availability);
  if (DataPathPort !== 0 && (DataPathPort < lowestDataPathPort || DataPathPort > highestDataPathPort)) {
    throw badRequest(
      `Datapath port number is not in valid range (${lowestDataPathPort}-${highestDataPathPort}) : ${DataPathPort}`,
    );
  }
  if (DefaultAddrPool.length > 0) validatePools(DefaultAddrPool, SubnetSize || defaultSubnetSize);
}

/** What the Engine checks of a `swarm join`, and the managers' addresses with their ports. Throws 400. */
export function joinAddresses(request: SwarmJoinRequest): string[] {
  const { RemoteAddrs = [], Availability = "" } = request;
  validateAvailability(Availability);
  if (RemoteAddrs.length === 0) throw badRequest("at least 1 RemoteAddr is required to join");
  return RemoteAddrs.map(managerAddress);
}

/** `host:port`; the port is Swarm's where none is given. The host may be a name. */
function managerAddress(text: string): string {
  const address = text.replace(/^tcp:\/\//, "");
  if (address === "") throw badRequest(`invalid remoteAddr ${JSON.stringify(text)}: invalid empty address`);
  if (isIP(address) === 6) return `[${address}]:${defaultManagerPort}`;
  const [, host, port = String(defaultManagerPort)] = /^(\[[^\]]+\]|[^:/\s]+)(?::(\d{1,5}))?$/.exec(address) ?? [];
  if (!host || Number(port) < 1 || Number(port) > 65535) {
    throw badRequest(`invalid remoteAddr ${JSON.stringify(text)}: invalid bind address format: ${address}`);
  }
  return `${host}:${port}`;
}

function validateAvailability(availability: string): void {
  if (!["", "active", "pause", "drain"].includes(availability)) {
    throw badRequest(`invalid Availability: ${JSON.stringify(availability)}`);
  }
}

function validatePools(pools: readonly string[], subnetSize: number): void {
  if (subnetSize > longestSubnetSize) throw badRequest(`subnet size is out of range: ${subnetSize}`);
  const ranges = pools.map((pool) => {
    const range = parseCidr(pool)?.range;
    if (!range) throw badRequest(`invalid base pool ${pool}: invalid CIDR address: ${pool}`);
    if (subnetSize < range.length) {
      throw badRequest(`invalid CIDR: ${JSON.stringify(pool)}. Subnet size is too small for pool: ${subnetSize}`);
    }
    return { pool, range };
  });
  // In order of their addresses, two that overlap are next to each other (a CIDR holds another one, or none of it).
  ranges.sort((a, b) => a.range.first - b.range.first || a.range.length - b.range.length);
  for (const [at, one] of ranges.entries()) {
    const next = ranges[at + 1];
    if (next && overlaps(one.range, next.range)) throw badRequest(`Pool overlap: ${one.pool} and ${next.pool}`);
  }
}
