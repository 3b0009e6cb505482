/**
 * Names and addresses that the kernel's things have. All of them follow from what the managers say, so that whoever
 * finds one after a crash knows whose it is.
 */
import { createHash } from "node:crypto";

export const bridgeName = "br0";
export const vxlanName = "vx0";

/** Of a network id; so many are as good as unique, and names of namespaces are read by people. */
const idLength = 12;
/** Interfaces' names have at most 15 characters; so many of them are the hash. */
const hashLength = 12;

/** The network's namespace, by its name under /run/netns. */
export function namespaceOf(networkId: string): string {
  return `shoal-${networkId.slice(0, idLength)}`;
}

/** Whether a namespace is one of `namespaceOf` (a playground's nodes and switch are not). */
export function isNetworkNamespace(name: string): boolean {
  return /^shoal-[0-9a-z]{12}$/.test(name);
}

export function namespacePath(name: string): string {
  return `/run/netns/${name}`;
}

/** The hardware address of whoever has this address on a network: nobody has to ask for it. */
export function macOf(address: string): string {
  const bytes = address.split(".").map((byte) => Number(byte).toString(16).padStart(2, "0"));
  return ["02", "42", ...bytes].join(":");
}

/** The ends of a task's cable: `inside` the network's namespace, `outside` until the Engine takes it. */
export function cableNames(taskId: string, networkId: string): { readonly inside: string; readonly outside: string } {
  const hash = createHash("sha256").update(`${taskId} ${networkId}`).digest("hex").slice(0, hashLength);
  return { inside: `vp${hash}`, outside: `vc${hash}` };
}

/** The number of bits of a subnet's prefix. */
export function prefixOf(subnet: string): number {
  return Number(subnet.slice(subnet.indexOf("/") + 1));
}
