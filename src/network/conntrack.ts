/**
 * What the kernel remembers of connections to tasks, in a network's namespace. A connection is led once and remembered:
 * that is what lets a task that nobody is led to any more finish what it has, and what must be forgotten when its
 * address is gone: the next packet is then refused at once instead of being sent to nobody, and an address that another
 * task gets starts afresh.
 */
import { type Clock, sleep } from "../lib/clock.ts";
import { type Commands, inNamespace } from "./commands.ts";

/** Each look forks twice. */
const lookEveryMs = 100;
/**
 * A connection on which nothing has been sent for so long is most likely kept for later by its client, and would hold
 * up every stop. One in the midst of a slow answer has the task's stop grace period beyond it.
 */
const idleSeconds = 3;
/** Also half closed: an answer may be on its way. */
const openStates: ReadonlySet<string> = new Set(["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"]);
const openStatesOfSctp: ReadonlySet<string> = new Set([
  "COOKIE_ECHOED",
  "ESTABLISHED",
  "SHUTDOWN_SENT",
  "SHUTDOWN_RECD",
]);

/** To or from an address; that there are none is no failure. */
const forgetScript = `for address in "$@"; do for side in -r -s; do
  said=$(conntrack -D $side "$address" 2>&1 >/dev/null) || case "$said" in
    *" 0 flow entries have been deleted"*) ;;
    *) echo "$said" >&2; exit 1;;
  esac
done; done`;

const listScript = `cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established
for address in "$@"; do conntrack -L -r "$address" 2>/dev/null; done`;

/**
 * Forgets all connections to and from the addresses (without prefix) in the namespace. To be called once nobody is led
 * to them, on every node of the network.
 */
export async function forgetFlows(commands: Commands, namespace: string, addresses: readonly string[]): Promise<void> {
  if (addresses.length === 0) return;
  await inNamespace(commands, namespace).run("sh", ["-c", forgetScript, "sh", ...addresses]);
}

export interface DrainOptions {
  readonly commands: Commands;
  readonly clock: Clock;
  /** Of the network, on the node of the task: there all its connections are seen. */
  readonly namespace: string;
}

/**
 * Resolves when no connection to the addresses (without prefix) is open but those on which nothing has been sent for
 * some seconds, or when `limitMs` has passed. UDP has no end that could be waited for.
 */
export async function drained(options: DrainOptions, addresses: readonly string[], limitMs: number): Promise<void> {
  const { clock } = options;
  const commands = inNamespace(options.commands, options.namespace);
  const deadline = clock.now() + limitMs;
  while (addresses.length > 0 && clock.now() < deadline) {
    const listing = await commands.run("sh", ["-c", listScript, "sh", ...addresses]);
    if (openConnections(listing) === 0) return;
    await sleep(clock, Math.max(0, Math.min(lookEveryMs, deadline - clock.now())));
  }
}

/**
 * How many connections are open.
 * @param listing a line with the seconds after which an idle TCP connection is forgotten, then `conntrack -L`:
 *   `tcp      6 431999 ESTABLISHED src=... dst=...`, where the third word is what is left of those seconds
 */
export function openConnections(listing: string): number {
  const [first, ...lines] = listing.split("\n");
  const forgottenAfterSeconds = Number(first);
  return lines.filter((line) => {
    const [protocol, , left, state = ""] = line.trim().split(/\s+/);
    if (protocol === "sctp") return openStatesOfSctp.has(state);
    if (protocol !== "tcp" || !openStates.has(state)) return false;
    return state !== "ESTABLISHED" || forgottenAfterSeconds - Number(left) < idleSeconds;
  }).length;
}
