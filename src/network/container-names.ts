/**
 * The names of a container that was put on a network of the swarm after it was made: its name servers were settled then,
 * and the Engine has no way to change them. A container that only the Engine's default bridge knows is told of the
 * swarm's server in its resolv.conf. One that is on the Engine's own networks too must go on asking the Engine, so there
 * what the Engine asks others for it goes to the swarm's server: by rules in the container's own namespace, in a table of
 * ours. (An Engine whose own server is on the node's loopback asks that past the container, and is not reached by them.)
 *
 * Both end with the container's stop, and are made again at its start.
 */
import { readFile, writeFile } from "node:fs/promises";
import type { Commands } from "./commands.ts";

/** A container that runs. */
export interface RunningContainer {
  /** Of a process in its network namespace. */
  readonly processId: number;
  /** Path of its resolv.conf on the node. */
  readonly resolvConf: string;
}

export interface ContainerNaming extends RunningContainer {
  /** The swarm's, on one of the container's networks. */
  readonly nameserver: string;
  /** The container's own on that network (without prefix): who asks is known by it. */
  readonly address: string;
  /** The Engine knows names that the container needs. */
  readonly asksEngine: boolean;
}

/** Before each line of a resolv.conf that was put aside. */
const aside = "#shoal ";

const noRules = `
table ip shoal_names {
}
delete table ip shoal_names
`;

/** Repeatable; the last call counts. */
export async function leadNames(commands: Commands, naming: ContainerNaming): Promise<void> {
  const { processId, nameserver, address, asksEngine } = naming;
  if (!asksEngine) {
    const before = await original(naming);
    const kept = before.split("\n").filter((line) => /^\s*(search|options)\s/.test(line));
    const put = before.split("\n").filter((line) => line !== "");
    const lines = [...put.map((line) => aside + line), `nameserver ${nameserver}`, ...kept];
    return await writeFile(naming.resolvConf, `${lines.join("\n")}\n`);
  }
  const rules = `${noRules}
table ip shoal_names {
  chain ask {
    type nat hook output priority -90; policy accept;
    ip daddr != 127.0.0.0/8 meta l4proto { tcp, udp } th dport 53 dnat to ${nameserver}
  }
  chain asked {
    type nat hook postrouting priority 90; policy accept;
    ip daddr ${nameserver} meta l4proto { tcp, udp } th dport 53 snat to ${address}
  }
}
`;
  await applyRules(commands, processId, rules);
}

/** The container is on no network of the swarm any more. Repeatable. */
export async function leaveNames(commands: Commands, container: RunningContainer): Promise<void> {
  const before = await original(container);
  if (before !== (await readFile(container.resolvConf, "utf8"))) await writeFile(container.resolvConf, before);
  await applyRules(commands, container.processId, noRules);
}

/** As the Engine has written it. */
async function original({ resolvConf }: RunningContainer): Promise<string> {
  const text = await readFile(resolvConf, "utf8");
  const lines = text.split("\n").filter((line) => line.startsWith(aside));
  return lines.length === 0 ? text : `${lines.map((line) => line.slice(aside.length)).join("\n")}\n`;
}

async function applyRules(commands: Commands, processId: number, rules: string): Promise<void> {
  await commands.run("nsenter", [`--net=/proc/${processId}/ns/net`, "nft", "-f", "-"], rules);
}
