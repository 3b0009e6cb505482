/**
 * One network's namespace on this node, as the programs of iproute2 make and see it. Nothing is remembered here: the
 * kernel is asked. Each method is a batch or two, since starting a program costs more than what it does.
 */
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import { type Cable, cableOf, outsidePrefix } from "./cable.ts";
import { type Commands, namespaceNames, parsedList } from "./commands.ts";
import {
  type AddressView,
  bridgeLine,
  compareLinks,
  type LinksDifference,
  type LinkView,
  type NetworkLinks,
  namespaceLine,
  settingLines,
  vxlanLine,
} from "./kernel-links.ts";
import type { Batches, ForwardingView, NeighbourView } from "./kernel-tables.ts";
import { neighbourLine, portLine, withoutNeighbourLine } from "./kernel-tables.ts";
import { bridgeName, isNetworkNamespace, vxlanName } from "./names.ts";

export interface KernelTables {
  readonly neighbours: readonly NeighbourView[];
  readonly forwarding: readonly ForwardingView[];
}

export class NetworkKernel {
  readonly namespace: string;
  readonly #commands: Commands;
  /** A process in the node's own namespace, which the outer end of a cable is put into. */
  readonly #processId: number;

  constructor(commands: Commands, namespace: string, processId: number) {
    this.#commands = commands;
    this.namespace = namespace;
    this.#processId = processId;
  }

  /**
   * Makes the namespace and its links where they are missing, and sets them right. Cables that are there stay.
   * @returns "made" where there was no namespace
   */
  async ensure(wanted: NetworkLinks): Promise<"made" | "kept"> {
    const found = await this.#links();
    if (!found) {
      await this.#make(wanted);
      return "made";
    }
    const difference = compareLinks(wanted, found, await this.#addresses());
    if (difference.differences.length > 0) await this.#mend(wanted, difference, found);
    return "kept";
  }

  /** What is not as it should be, in words; the namespace may be missing. */
  async compare(wanted: NetworkLinks): Promise<readonly string[]> {
    const found = await this.#links();
    if (!found) return [`the namespace ${this.namespace} is missing`];
    return compareLinks(wanted, found, await this.#addresses()).differences;
  }

  async tables(): Promise<KernelTables> {
    const [neighbours, forwarding] = await Promise.all([
      this.#run("ip", ["-json", "neigh", "show", "dev", bridgeName]),
      this.#run("bridge", ["-json", "fdb", "show"]),
    ]);
    return { neighbours: parsedList(neighbours), forwarding: parsedList(forwarding) };
  }

  async program({ ip, bridge }: Batches): Promise<void> {
    await Promise.all([this.#batch("ip", ip), this.#batch("bridge", bridge)]);
  }

  /** The cables that are there. */
  async cables(): Promise<readonly Cable[]> {
    return ((await this.#links()) ?? []).flatMap((link) => cableOf(link) ?? []);
  }

  /**
   * Makes a task's cable: one end on the bridge, the other in the node's namespace, where the Engine takes it from.
   * What has its name is an older one of the same task, and goes.
   */
  async plug(cable: Cable, mtu: number): Promise<void> {
    const { inside, outside, address } = cable;
    const lines = [
      `link add ${inside} mtu ${mtu} type veth peer name ${outside} mtu ${mtu} netns ${this.#processId}`,
      `link set ${inside} alias ${cable.alias} addrgenmode none master ${bridgeName}`,
      `link set ${inside} type bridge_slave hairpin on learning off flood off`,
      `link set ${inside} up`,
      neighbourLine(address),
    ];
    try {
      await this.#batch("ip", lines);
    } catch (error) {
      if (!/File exists/.test(messageOf(error))) throw error;
      await this.#without([`link del ${inside}`]);
      if ((await outsideCables(this.#commands)).includes(outside)) {
        await this.#commands.run("ip", ["link", "del", outside]);
      }
      await this.#batch("ip", lines);
    }
    await this.#batch("bridge", [portLine({ address, port: inside })]);
  }

  /**
   * Takes a task's cable away; one that is gone (with its container's namespace) is not missed.
   * @param isHeld whether somebody else has its address now
   */
  async unplug({ inside, address }: Cable, isHeld: boolean): Promise<void> {
    await this.#without([`link del ${inside}`, ...(isHeld ? [] : [withoutNeighbourLine(address)])]);
  }

  /** Everything of the network's goes; what of it is still used goes when that ends. */
  async remove(): Promise<void> {
    // The VXLAN first and by itself: its number is free when this returns, while a namespace ends in the background.
    await this.#without([`link del ${vxlanName}`]);
    if ((await namespaces(this.#commands)).includes(this.namespace)) {
      await this.#commands.run("ip", ["netns", "del", this.namespace]);
    }
  }

  async #make(wanted: NetworkLinks): Promise<void> {
    const first = [namespaceLine(this.namespace)];
    try {
      // What `ip` does from another namespace it does with mounts of its own, and a new namespace is a mount.
      if (wanted.underlay !== undefined) await this.#commands.run("ip", ["-batch", "-"], text(first.splice(0)));
      await this.#makeVxlan(wanted, first);
      await this.#batch("ip", [bridgeLine(wanted), ...settingLines(wanted)], wanted);
    } catch (error) {
      await this.remove(); // the next try begins anew
      throw error;
    }
  }

  async #mend(wanted: NetworkLinks, difference: LinksDifference, found: readonly LinkView[]): Promise<void> {
    if (difference.vxlan) {
      if (found.some(({ ifname }) => ifname === vxlanName)) await this.#batch("ip", [`link del ${vxlanName}`]);
      await this.#makeVxlan(wanted);
    }
    const cables = found.flatMap((link) => cableOf(link) ?? []);
    await this.#batch(
      "ip",
      [
        ...(difference.bridge ? [bridgeLine(wanted)] : []),
        ...settingLines(wanted),
        ...difference.strangers.map((address) => `address del ${address} dev ${bridgeName}`),
        ...(difference.bridge ? cables.map(({ inside }) => `link set ${inside} master ${bridgeName}`) : []),
      ],
      wanted,
    );
  }

  /** @param before lines to be run first, in the same namespace */
  async #makeVxlan(wanted: NetworkLinks, before: readonly string[] = []): Promise<void> {
    const where = wanted.underlay === undefined ? [] : ["-n", wanted.underlay];
    try {
      await this.#commands.run("ip", [...where, "-batch", "-"], text([...before, vxlanLine(this.namespace, wanted)]));
    } catch (error) {
      if (!/RTNETLINK answers: File exists|specified VNI already exists/.test(messageOf(error))) throw error;
      const what = `a VXLAN with the id ${wanted.vxlanId} and the port ${wanted.port}`;
      throw new ShoalError("Unavailable", `there is ${what} on this node already`, { cause: error });
    }
  }

  /** Runs lines that take something away; that it is gone already is no failure. */
  async #without(lines: readonly string[]): Promise<void> {
    try {
      await this.#run("ip", ["-force", "-batch", "-"], text(lines));
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  /** Undefined where there is no namespace. */
  async #links(): Promise<readonly LinkView[] | undefined> {
    try {
      return parsedList<LinkView>(await this.#run("ip", ["-json", "-details", "link", "show"]));
    } catch (error) {
      if (isMissingNamespace(error)) return undefined;
      throw error;
    }
  }

  async #addresses(): Promise<readonly AddressView[]> {
    return parsedList(await this.#run("ip", ["-json", "-4", "address", "show"]));
  }

  #run(program: "ip" | "bridge", args: readonly string[], input?: string): Promise<string> {
    return this.#commands.run(program, ["-n", this.namespace, ...args], input);
  }

  async #batch(program: "ip" | "bridge", lines: readonly string[], wanted?: NetworkLinks): Promise<void> {
    if (lines.length === 0) return;
    try {
      await this.#run(program, ["-batch", "-"], text(lines));
    } catch (error) {
      if (!wanted || !/Address already in use/.test(messageOf(error))) throw error;
      const port = `the UDP port ${wanted.port}, which the swarm's networks need, is in use on this node`;
      throw new ShoalError("FailedPrecondition", port, { cause: error });
    }
  }
}

/** Names of our networks' namespaces on this node. */
export async function namespaces(commands: Commands): Promise<readonly string[]> {
  return (await namespaceNames(commands)).filter(isNetworkNamespace);
}

/** Cables' outer ends that no container has taken, in the node's own namespace. */
export async function outsideCables(commands: Commands): Promise<readonly string[]> {
  const links = parsedList<LinkView>(await commands.run("ip", ["-json", "link", "show", "type", "veth"]));
  return links.map(({ ifname }) => ifname).filter((name) => name.startsWith(outsidePrefix) && name.length === 14);
}

/**
 * The MTU of the link that has the address; undefined where no link has it (it is an outer address that somebody
 * translates), and then of the link that the default route takes.
 */
export async function linkOf(commands: Commands, address: string): Promise<{ readonly mtu: number; isOwn: boolean }> {
  const links = parsedList<LinkView & AddressView>(await commands.run("ip", ["-json", "address", "show"]));
  const own = links.find(({ addr_info = [] }) => addr_info.some(({ local }) => local === address));
  if (own) return { mtu: own.mtu ?? ethernetMtu, isOwn: true };
  const routes = parsedList<{ readonly dev?: string }>(await commands.run("ip", ["-json", "route", "show", "default"]));
  const link = links.find(({ ifname }) => ifname === routes[0]?.dev);
  return { mtu: link?.mtu ?? ethernetMtu, isOwn: false };
}

const ethernetMtu = 1500;

export function isMissingNamespace(error: unknown): boolean {
  return isShoalError(error, "Internal") && /Cannot open network namespace/.test(error.message);
}

/** Every line says that what was to go is not there. */
function isGone(error: unknown): boolean {
  if (!isShoalError(error, "Internal")) return false;
  const absent = /Command failed|Cannot find device|No such file or directory/;
  return error.message.split("\n").every((line) => absent.test(line));
}

function text(lines: readonly string[]): string {
  return `${lines.join("\n")}\n`;
}
