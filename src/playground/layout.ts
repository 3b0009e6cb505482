/**
 * Names, paths and addresses of a playground: a pure function of its name and of a node's number, so that every
 * command finds what an earlier one made. Nothing here touches the machine.
 *
 * Two playgrounds (the user's and the tests') may stand side by side: they share no name, path or address.
 */
import { ShoalError } from "../lib/errors.ts";

export interface PlaygroundLayout {
  readonly name: string;
  /** Sockets, pid files: gone after a reboot of the machine, as they should be. */
  readonly runDir: string;
  /** Disks of the nodes, their logs and descriptions. */
  readonly dataDir: string;
  /** Parent cgroup of the nodes' containers, without a leading slash. */
  readonly cgroup: string;
  /** Namespace of the bridge. Its own, because an Engine in the machine's would make it drop forwarded frames. */
  readonly switchNamespace: string;
  /** The machine's own interface into the playground's network. */
  readonly machineInterface: string;
  readonly machineAddress: string;
  readonly prefixLength: number;
  node(index: number): NodeLayout;
  /** By name, as people write it: "node-2". InvalidArgument where it is none. */
  nodeByName(name: string): NodeLayout;
}

export interface NodeLayout {
  readonly name: string;
  readonly index: number;
  readonly address: string;
  readonly namespace: string;
  /** Interface in the switch's namespace: the node's network cable. */
  readonly port: string;
  readonly runDir: string;
  readonly dataDir: string;
  readonly socket: string;
  readonly engineSocket: string;
  readonly engineLog: string;
  readonly daemonLog: string;
  readonly machineLog: string;
  /** Parent cgroup of its containers, without a leading slash. */
  readonly cgroup: string;
}

/** Addresses .1 to .200 are nodes', .254 is the machine's. */
export const maximumNodes = 200;

/** The user's own playground, whose paths are part of the command-line's contract. */
export const defaultPlayground = { name: "playground", subnet: "10.77.0" } as const;

/**
 * @param name "playground" is the user's; another gives a separate one
 * @param subnet the first three bytes of its /24
 */
export function playgroundLayout(
  name: string = defaultPlayground.name,
  subnet: string = defaultPlayground.subnet,
): PlaygroundLayout {
  // Interface names hold 15 characters: "shoal-" + name + "0".
  if (!/^[a-z]{1,8}$/.test(name) && name !== defaultPlayground.name) {
    throw new ShoalError("InvalidArgument", `a playground's name is 1 to 8 lower-case letters, not "${name}"`);
  }
  const prefix = name === defaultPlayground.name ? "shoal" : `shoal-${name}`;
  const runDir = `/run/shoal/${name}`;
  const dataDir = `/var/lib/shoal/${name}`;
  const cgroup = `shoal-${name}`;
  const node = (index: number): NodeLayout => {
    if (!Number.isInteger(index) || index < 1 || index > maximumNodes) {
      throw new ShoalError("InvalidArgument", `a playground has nodes 1 to ${maximumNodes}, not ${index}`);
    }
    const nodeName = `node-${index}`;
    const nodeRunDir = `${runDir}/${nodeName}`;
    const nodeDataDir = `${dataDir}/${nodeName}`;
    return {
      name: nodeName,
      index,
      address: `${subnet}.${index}`,
      namespace: `${prefix}-${nodeName}`,
      port: nodeName,
      runDir: nodeRunDir,
      dataDir: nodeDataDir,
      socket: `${nodeRunDir}/shoal.sock`,
      engineSocket: `${nodeRunDir}/engine.sock`,
      engineLog: `${nodeDataDir}/engine.log`,
      daemonLog: `${nodeDataDir}/shoal.log`,
      machineLog: `${nodeDataDir}/machine.log`,
      cgroup: `${cgroup}/${nodeName}`,
    };
  };
  return {
    name,
    runDir,
    dataDir,
    cgroup,
    switchNamespace: `${prefix}-switch`,
    machineInterface: `${prefix}0`,
    machineAddress: `${subnet}.254`,
    prefixLength: 24,
    node,
    nodeByName(nodeName) {
      const index = /^node-([1-9][0-9]{0,2})$/.exec(nodeName)?.[1];
      if (index === undefined) {
        throw new ShoalError("InvalidArgument", `nodes are named node-1, node-2 ..., not "${nodeName}"`);
      }
      return node(Number(index));
    },
  };
}
