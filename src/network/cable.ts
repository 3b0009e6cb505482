/**
 * A task's cable into a network: a pair of links, one end on the network's bridge, the other the task's interface. What
 * it is for is written on it (the link's alias), so that a daemon that starts again finds it, whatever it has forgotten.
 */
import type { LinkView } from "./kernel-links.ts";
import { cableNames } from "./names.ts";

export interface Cable {
  /** The Engine's id of the container's end on the network. */
  readonly endpointId: string;
  readonly taskId: string;
  /** Without prefix. */
  readonly address: string;
  /** Names of the ends. */
  readonly inside: string;
  readonly outside: string;
  /** What is written on it. */
  readonly alias: string;
}

export const outsidePrefix = "vc";

export function newCable(networkId: string, endpointId: string, taskId: string, address: string): Cable {
  const alias = ["shoal", endpointId, taskId, address].join(",");
  return { endpointId, taskId, address, ...cableNames(taskId, networkId), alias };
}

/** The cable that a link in a network's namespace is the end of; undefined for another link. */
export function cableOf({ ifname, ifalias = "" }: LinkView): Cable | undefined {
  const [mark, endpointId, taskId, address] = ifalias.split(",");
  if (mark !== "shoal" || !endpointId || !taskId || !address) return undefined;
  return { endpointId, taskId, address, inside: ifname, outside: ifname.replace(/^vp/, "vc"), alias: ifalias };
}
