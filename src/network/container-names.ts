/**
 * The names of a container that was put on a network of the swarm after it was made: its name servers were settled
 * then, and the Engine has no way to change them. So whatever it asks of them goes to the swarm's, which asks others for
 * what it does not know. The Engine's own server (127.0.0.11) stays before it, and still knows the Engine's names.
 *
 * The rules are in the container's own namespace, in a table of ours, and go with it when it stops.
 */
import type { Commands } from "./commands.ts";

export interface ContainerNaming {
  /** Of a process in the container's network namespace. */
  readonly processId: number;
  /** The swarm's, on one of the container's networks. */
  readonly nameserver: string;
  /** The container's own on that network (without prefix): who asks is known by it. */
  readonly address: string;
}

/** Repeatable; the last call counts. */
export async function leadNames(commands: Commands, naming: ContainerNaming): Promise<void> {
  const { processId, nameserver, address } = naming;
  const rules = `
table ip shoal_names {
}
delete table ip shoal_names
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
  await commands.run("nsenter", [`--net=/proc/${processId}/ns/net`, "nft", "-f", "-"], rules);
}
