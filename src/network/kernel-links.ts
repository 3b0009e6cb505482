/**
 * The links of one network on one node: in its namespace a bridge and a VXLAN on it, and the node's own address on the
 * bridge. As text for `ip -batch`, and compared with what `ip -json` says is there.
 *
 * The VXLAN is made from the node's own namespace, straight into the network's: so its packets go out where the node's
 * own do. The bridge learns nothing and floods nothing into the VXLAN: whoever is on another node is in its tables, and
 * it answers in their place when their hardware address is asked for (`neigh_suppress`).
 */
import { bridgeName, macOf, prefixOf, vxlanName } from "./names.ts";

export interface NetworkLinks {
  readonly vxlanId: number;
  readonly port: number;
  /** The node's address that packets leave from; undefined leaves it to its routes. */
  readonly local: string | undefined;
  /** The namespace that its packets leave from, by its name; undefined is the node's own. */
  readonly underlay: string | undefined;
  readonly mtu: number;
  readonly subnet: string;
  /** The node's own on the network, without prefix. */
  readonly address: string;
}

/** A link as `ip -json -details link show` tells of it (what is looked at). */
export interface LinkView {
  readonly ifname: string;
  readonly address?: string;
  readonly mtu?: number;
  readonly flags?: readonly string[];
  readonly master?: string;
  readonly ifalias?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: Readonly<Record<string, unknown>>;
    readonly info_slave_data?: Readonly<Record<string, unknown>>;
  };
}

/** As `ip -json address show` tells of it. */
export interface AddressView {
  readonly ifname?: string;
  readonly flags?: readonly string[];
  readonly addr_info?: readonly { readonly local?: string; readonly prefixlen?: number; readonly family?: string }[];
}

export interface LinksDifference {
  /** Each in words, for people. */
  readonly differences: readonly string[];
  /** The VXLAN must be made (anew). */
  readonly vxlan: boolean;
  readonly bridge: boolean;
  /** Addresses with the subnet's prefix that are not the node's (any more): CIDR. */
  readonly strangers: readonly string[];
}

const quiet = "learning off flood off mcast_flood off bcast_flood off neigh_suppress on";

/** Makes the namespace: for `ip -batch` in the node's own. */
export function namespaceLine(namespace: string): string {
  return `netns add ${namespace}`;
}

/** Makes the VXLAN: for `ip -batch` in the namespace that its packets are to leave from. */
export function vxlanLine(namespace: string, { vxlanId, port, local }: NetworkLinks): string {
  const from = local === undefined ? "" : ` local ${local}`;
  return `link add ${vxlanName} netns ${namespace} type vxlan id ${vxlanId} dstport ${port}${from} nolearning`;
}

export function bridgeLine(links: NetworkLinks): string {
  return `link add ${bridgeName} address ${macOf(links.address)} type bridge mcast_snooping 0 nf_call_iptables 1`;
}

/** Settings of both, for `ip -batch` in the network's namespace: repeatable. */
export function settingLines(links: NetworkLinks): string[] {
  const { mtu, address, subnet } = links;
  return [
    "link set lo up",
    `link set ${bridgeName} address ${macOf(address)} addrgenmode none mtu ${mtu} up`,
    `link set ${vxlanName} addrgenmode none mtu ${mtu} master ${bridgeName} up`,
    `link set ${vxlanName} type bridge_slave ${quiet}`,
    // The bridge takes the smallest of its ports' when one is added.
    `link set ${bridgeName} mtu ${mtu}`,
    `address replace ${address}/${prefixOf(subnet)} dev ${bridgeName}`,
  ];
}

/** What of the links is not as it should be. */
export function compareLinks(
  wanted: NetworkLinks,
  links: readonly LinkView[],
  addresses: readonly AddressView[],
): LinksDifference {
  const differences: string[] = [];
  const note = (what: string, found: unknown, should: unknown) => {
    if (found !== should) differences.push(`${what} is ${found ?? "absent"}, not ${should}`);
    return found !== should;
  };
  const named = (name: string) => links.find(({ ifname }) => ifname === name);
  const bridge = named(bridgeName);
  const vxlan = named(vxlanName);
  const makeBridge = !bridge;
  if (!bridge) differences.push(`${bridgeName} is missing`);
  else {
    note(`${bridgeName}'s hardware address`, bridge.address, macOf(wanted.address));
    note(`${bridgeName}'s MTU`, bridge.mtu, wanted.mtu);
    note(`${bridgeName} up`, bridge.flags?.includes("UP") ?? false, true);
  }
  let makeVxlan = !vxlan;
  if (!vxlan) differences.push(`${vxlanName} is missing`);
  else {
    const { id, port, local } = vxlan.linkinfo?.info_data ?? {};
    const found = [
      note(`${vxlanName}'s id`, id, wanted.vxlanId),
      note(`${vxlanName}'s port`, port, wanted.port),
      note(`${vxlanName}'s local address`, local ?? vxlan.linkinfo?.info_data?.local6, wanted.local),
    ];
    makeVxlan = found.includes(true);
    note(`${vxlanName}'s MTU`, vxlan.mtu, wanted.mtu);
    note(`${vxlanName} up`, vxlan.flags?.includes("UP") ?? false, true);
    note(`${vxlanName}'s bridge`, vxlan.master, bridgeName);
    const slave = vxlan.linkinfo?.info_slave_data ?? {};
    for (const setting of ["learning", "flood", "mcast_flood", "bcast_flood"]) {
      note(`${vxlanName}'s ${setting}`, slave[setting], false);
    }
    note(`${vxlanName}'s neigh_suppress`, slave.neigh_suppress, true);
  }
  const prefix = prefixOf(wanted.subnet);
  const own = `${wanted.address}/${prefix}`;
  // Single addresses (/32) are the balance's: virtual ones.
  const onBridge = addresses
    .filter(({ ifname }) => ifname === bridgeName)
    .flatMap(({ addr_info = [] }) => addr_info.map(({ local, prefixlen }) => ({ local, prefixlen })))
    .filter(({ prefixlen }) => prefixlen !== 32)
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`);
  if (bridge && !onBridge.includes(own)) differences.push(`${bridgeName} lacks the address ${own}`);
  const strangers = onBridge.filter((address) => address !== own);
  for (const address of strangers) differences.push(`${bridgeName} has the address ${address}`);
  return { differences, vxlan: makeVxlan, bridge: makeBridge, strangers };
}
