/** What a machine's own network may have in a swarm's way: taken ports, a firewall that drops, links that are too small. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface SwarmPort {
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  readonly cost: string;
}

export const swarmPorts: readonly SwarmPort[] = [
  { port: 2377, protocol: "tcp", cost: "a manager cannot serve its nodes (choose another with --listen-addr)" },
  { port: 4789, protocol: "udp", cost: "no overlay networks (choose another with --data-path-port)" },
];

/** What IPv4 asks of every link, and what a VXLAN adds to a packet. */
const leastMtu = 1280;
const vxlanBytes = 50;

/**
 * Who has the port, of either IP version, in this network namespace; undefined where it is free, or has been taken by a
 * daemon of ours or by the kernel itself (a VXLAN).
 */
export function takenBy(port: number, protocol: "tcp" | "udp"): string | undefined {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const listening = "0A";
  for (const file of [`/proc/net/${protocol}`, `/proc/net/${protocol}6`]) {
    if (!existsSync(file)) continue; // a kernel without IPv6
    for (const line of readFileSync(file, "utf8").split("\n").slice(1)) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
      if (!local?.endsWith(suffix) || (protocol === "tcp" && state !== listening) || inode === "0") continue;
      const owner = ownerOf(inode ?? "");
      if (!/\bshoal\b.*\bdaemon\b|\bmain\.ts daemon\b/.test(owner)) return owner ? `in use by ${owner}` : "in use";
    }
  }
  return undefined;
}

/** The command line of a process that has the socket; "" where it can't be seen. */
function ownerOf(inode: string): string {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const has = readdirSync(`/proc/${pid}/fd`).some(
        (descriptor) => readlinkSync(`/proc/${pid}/fd/${descriptor}`) === `socket:[${inode}]`,
      );
      if (has) return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
    } catch (error) {
      // It has ended meanwhile, or is another user's.
      if (!["ENOENT", "EACCES", "EPERM", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
  return "";
}

/** An object of `nft --json list ruleset`, as far as it is looked at. */
interface Listed {
  readonly chain?: { readonly family: string; readonly table: string; readonly name: string } & {
    readonly hook?: string;
    readonly policy?: string;
  };
  readonly rule?: { readonly family: string; readonly table: string; readonly expr: readonly unknown[] };
}

/**
 * The chains that drop what comes in unless a rule says otherwise, in a table in which no rule speaks of the port. It is
 * a guess (a rule may accept by interface or address), and so it is told as one.
 * @param ruleset what `nft --json list ruleset` prints
 */
export function chainsInTheWay(ruleset: string, { port, protocol }: SwarmPort): string[] {
  const { nftables } = JSON.parse(ruleset) as { nftables: readonly Listed[] };
  const found: string[] = [];
  for (const { chain } of nftables) {
    if (chain?.hook !== "input" || chain.policy !== "drop") continue;
    const rules = nftables.flatMap(({ rule }) =>
      rule?.table === chain.table && rule.family === chain.family ? [JSON.stringify(rule.expr)] : [],
    );
    const number = new RegExp(`\\b${port}\\b`);
    if (!rules.some((rule) => number.test(rule) && rule.includes(protocol)))
      found.push(`${chain.family} ${chain.table} ${chain.name}`);
  }
  return found;
}

/**
 * Links of default routes that are too small for an overlay network on top of them.
 * @param routes what `ip -4 route show default` prints
 */
export function linksTooSmall(routes: string, mtuOf: (link: string) => number): string[] {
  const links = new Set([...routes.matchAll(/\bdev (\S+)/g)].map(([, link = ""]) => link));
  return [...links]
    .filter((link) => mtuOf(link) < leastMtu + vxlanBytes)
    .map((link) => `${link} has an MTU of ${mtuOf(link)}, and needs ${leastMtu + vxlanBytes}`);
}

export function mtuOfLink(link: string): number {
  return Number(readFileSync(`/sys/class/net/${link}/mtu`, "utf8"));
}
