/**
 * The routing mesh in the node's own namespace: what comes for a published port, on any of the node's addresses, goes
 * through a cable (`shing0`, `up0` at its other end) into the ingress network's namespace, with the client's address
 * as it is.
 *
 * Its place among other firewalls' rules, from which users may start:
 * - `table ip shoal` leads the first packet of a connection in `prerouting` just before the usual place (dstnat - 1):
 *   published ports are ours also where another program listens there, as with Swarm. Local clients are led in `output`.
 * - Then the packet is forwarded, with the published port still its destination: `DOCKER-USER` and every other rule
 *   for forwarded packets sees it, by that port and with the client's address, and may drop it.
 * - The Engine lets nothing be forwarded that it doesn't know. The chain `SHOAL-INGRESS` of the filter table accepts
 *   what goes through the cable. It is called from FORWARD after DOCKER-USER, so that users' rules come first.
 */
import { isShoalError } from "../lib/errors.ts";
import type { Commands } from "./commands.ts";
import type { NftFrame } from "./nft.ts";

export const hostLink = "shing0";
export const meshLink = "up0";
/** Link-local addresses: no other network has them. */
export const hostAddress = "169.254.77.1";
export const meshAddress = "169.254.77.2";
export const cablePrefix = 30;

const rule = `meta l4proto . th dport @ports fib daddr type local dnat to ${meshAddress}`;

export const hostFrame: NftFrame = {
  collections: { ports: { kind: "set", type: "type inet_proto . inet_service" } },
  hooks: {
    arriving: { hook: "type nat hook prerouting priority dstnat - 1; policy accept;", rules: [rule] },
    local: { hook: "type nat hook output priority -101; policy accept;", rules: [rule] },
    leaving: {
      hook: "type nat hook postrouting priority srcnat - 1; policy accept;",
      rules: [
        // Clients that could not be answered else: the node itself by 127.0.0.1, and its tasks by the node's address.
        `oifname "${hostLink}" ip saddr { 127.0.0.0/8, ${meshAddress} } masquerade`,
        // The tasks' own way out.
        `oifname != "${hostLink}" ip saddr ${meshAddress} masquerade`,
      ],
    },
  },
};

const chain = "SHOAL-INGRESS";
const users = "DOCKER-USER";
/**
 * The Engine's chains, by its age, that drop what goes into its bridge networks from elsewhere: what tasks send by
 * themselves is not to reach other networks' containers.
 */
const isolations = ["DOCKER-ISOLATION-STAGE-2", "DOCKER-BRIDGE"] as const;
/** Seconds that others may hold the filter table. */
const wait = ["-w", "10"] as const;

export interface FirewallDifference {
  /** In words. */
  readonly differences: readonly string[];
  /** For `iptables-restore --noflush`. */
  readonly script: string;
}

/** @param listing of `iptables -S` */
export function compareFirewall(listing: string): FirewallDifference {
  const lines = listing.split("\n");
  const has = (name: string) => lines.includes(`-N ${name}`);
  const isolation = isolations.find(has);
  const rules = [
    `-A ${chain} -o ${hostLink} -j ACCEPT`,
    `-A ${chain} -i ${hostLink} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    ...(isolation === undefined ? [] : [`-A ${chain} -i ${hostLink} -j ${isolation}`]),
    `-A ${chain} -i ${hostLink} -j ACCEPT`,
  ];
  const differences: string[] = [];
  const commands: string[] = [];
  const there = lines.filter((line) => line.startsWith(`-A ${chain} `));
  if (!has(chain) || there.join("\n") !== rules.join("\n")) {
    differences.push(`the filter table's chain ${chain} is not as it should be`);
    commands.push(`:${chain} - [0:0]`, ...rules); // empties it if it is there
  }
  const forward = lines.filter((line) => line.startsWith("-A FORWARD "));
  const isCall = (line: string) => line === `-A FORWARD -j ${chain}`;
  const calls = forward.filter(isCall).length;
  const at = forward.indexOf(`-A FORWARD -j ${users}`);
  if (calls !== 1 || forward.findIndex(isCall) < at) {
    differences.push(`${calls === 1 ? `${chain} comes before ${users}` : `FORWARD calls ${chain} ${calls} times`}`);
    for (let call = 0; call < calls; call++) commands.push(`-D FORWARD -j ${chain}`);
    const before = forward.slice(0, at).filter(isCall).length;
    // Rules are counted from 1, without the calls that have just gone; with no DOCKER-USER after all that users have.
    commands.push(at < 0 ? `-A FORWARD -j ${chain}` : `-I FORWARD ${at - before + 2} -j ${chain}`);
  }
  return { differences, script: commands.length === 0 ? "" : `*filter\n${commands.join("\n")}\nCOMMIT\n` };
}

/** Lets the mesh's packets be forwarded; repeatable. Says what was not as it should be. */
export async function openFirewall(commands: Commands): Promise<readonly string[]> {
  const { differences, script } = await auditFirewall(commands);
  if (script !== "") await commands.run("iptables-restore", [...wait, "--noflush"], script);
  return differences;
}

export async function auditFirewall(commands: Commands): Promise<FirewallDifference> {
  const listing = await list(commands);
  return listing === undefined ? { differences: [], script: "" } : compareFirewall(listing);
}

export async function closeFirewall(commands: Commands): Promise<void> {
  const lines = ((await list(commands)) ?? "").split("\n");
  const calls = lines.filter((line) => line === `-A FORWARD -j ${chain}`).map(() => `-D FORWARD -j ${chain}`);
  if (!lines.includes(`-N ${chain}`)) return;
  const script = ["*filter", ...calls, `-F ${chain}`, `-X ${chain}`, "COMMIT", ""].join("\n");
  await commands.run("iptables-restore", [...wait, "--noflush"], script);
}

/** Undefined where there is no iptables: then there are no rules of it that would drop anything. */
async function list(commands: Commands): Promise<string | undefined> {
  try {
    return await commands.run("iptables", [...wait, "-S"]);
  } catch (error) {
    if (isShoalError(error, "Unavailable")) return undefined;
    throw error;
  }
}
