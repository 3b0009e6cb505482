/**
 * Machines that consist of a network namespace each, on one switch, without any Engine or daemon: what the data plane
 * does to a kernel, seen from outside. A "task" is a namespace with a small server, plugged into networks as the driver
 * would do it. The networks' links and neighbours are made by the production code too.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { silentLogger } from "../../src/lib/log.ts";
import type { NetworkChange, NetworkEndpoint, NetworkNode, NetworkState } from "../../src/model/network-state.ts";
import { Balancer } from "../../src/network/balance.ts";
import { newCable } from "../../src/network/cable.ts";
import { type Commands, inNamespace, systemCommands } from "../../src/network/commands.ts";
import { forgetFlows } from "../../src/network/conntrack.ts";
import { IngressMesh } from "../../src/network/ingress.ts";
import { NetworkKernel } from "../../src/network/kernel.ts";
import { removePeers, setPeers } from "../../src/network/kernel-tables.ts";
import { macOf, prefixOf } from "../../src/network/names.ts";
import { networkState } from "../../src/network/network-fixture.ts";
import { NetworkTable } from "../../src/network/table.ts";
import type { Question } from "./network-client.ts";

const mtu = 1450;
const vxlanPort = 4789;
const taskProgram = fileURLToPath(new URL("./network-task.ts", import.meta.url));
const clientProgram = fileURLToPath(new URL("./network-client.ts", import.meta.url));

type ContentChange = Exclude<NetworkChange, { kind: "network" | "remove-network" | "key" }>;
/** As a change of the model has it, without the network: it is the same for all. */
export type Told = ContentChange extends infer Change
  ? Change extends unknown
    ? Omit<Change, "networkId">
    : never
  : never;

/** One network on one machine. */
export interface HostNetwork {
  readonly state: NetworkState;
  readonly namespace: string;
  readonly table: NetworkTable;
  readonly balance: Balancer | IngressMesh;
}

export interface Host {
  readonly nodeId: string;
  readonly address: string;
  /** Run in its namespace. */
  readonly commands: Commands;
  /** By name. */
  readonly networks: Map<string, HostNetwork>;
}

export interface Task {
  readonly name: string;
  readonly namespace: string;
  readonly process: ChildProcess;
  readonly host: Host;
}

export class NetworkHosts {
  readonly #prefix: string;
  readonly #subnet: string;
  readonly hosts: Host[] = [];
  readonly #tasks: Task[] = [];

  /**
   * @param prefix of all names, letters only
   * @param subnet the first three numbers of the machines' addresses
   */
  constructor(prefix: string, subnet: string) {
    this.#prefix = prefix;
    this.#subnet = subnet;
  }

  /** A machine on the switch that is none of the swarm's. */
  get client(): string {
    return `${this.#prefix}-client`;
  }

  get clientAddress(): string {
    return `${this.#subnet}.254`;
  }

  /** Also removes what a run that was aborted has left. */
  async up(count: number): Promise<void> {
    await this.down();
    const names = Array.from({ length: count }, (_, index) => `${this.#prefix}-${index + 1}`);
    const bridge = `${this.#prefix}-switch`;
    await run("ip", ["netns", "add", bridge]);
    await batch(inNamespace(systemCommands, bridge), ["link add sw0 type bridge", "link set sw0 up"]);
    for (const [name, address] of [
      ...names.map((name, index) => [name, `${this.#subnet}.${index + 1}`] as const),
      [this.client, this.clientAddress] as const,
    ]) {
      await run("ip", ["netns", "add", name]);
      await batch(systemCommands, [`link add eth0 netns ${name} type veth peer name ${name} netns ${bridge}`]);
      await batch(inNamespace(systemCommands, bridge), [`link set ${name} master sw0 up`]);
      const commands = inNamespace(systemCommands, name);
      await batch(commands, ["link set lo up", `address add ${address}/24 dev eth0`, "link set eth0 up"]);
      if (name !== this.client) {
        await engineFirewall(commands);
        this.hosts.push({ nodeId: name, address, commands, networks: new Map() });
      }
    }
  }

  async down(): Promise<void> {
    const pattern = new RegExp(`^${this.#prefix}-`);
    for (const name of await namespaces()) {
      if (!pattern.test(name)) continue;
      for (const id of (await run("ip", ["netns", "pids", name])).split("\n"))
        if (id) process.kill(Number(id), "SIGKILL");
      await run("ip", ["netns", "del", name]);
    }
    this.hosts.length = 0;
    this.#tasks.length = 0;
  }

  /** Makes a network on every machine. */
  async network(name: string, subnet: string, vxlanId: number, isIngress: boolean): Promise<void> {
    const base = subnet.slice(0, subnet.lastIndexOf("."));
    for (const [index, host] of this.hosts.entries()) {
      const namespace = `${host.nodeId}-${name}`;
      const gateway = `${base}.1`;
      const state = networkState(name, { vxlanId, subnet, gateway, ingress: isIngress });
      const own = isIngress ? `${base}.${index + 2}` : gateway;
      const kernel = new NetworkKernel(host.commands, namespace, process.pid);
      await kernel.remove();
      await kernel.ensure({
        vxlanId,
        port: vxlanPort,
        local: host.address,
        underlay: undefined,
        mtu,
        subnet,
        address: own,
      });
      const options = { commands: host.commands, namespace, selfNodeId: host.nodeId };
      const balance = isIngress ? new IngressMesh({ ...options, log: silentLogger }) : new Balancer(options);
      host.networks.set(name, { state, namespace, table: new NetworkTable(state), balance });
    }
    await this.tell(
      name,
      ...this.hosts.map((host, index) => ({ kind: "node", node: this.#node(host, index, base, isIngress) }) as const),
    );
  }

  #node({ nodeId, address }: Host, index: number, base: string, isIngress: boolean): NetworkNode {
    return { nodeId, address, ...(isIngress ? { ownAddress: `${base}.${index + 2}` } : {}) };
  }

  /** What managers tell every machine of the network; resolves when all kernels are equal to it. */
  async tell(network: string, ...changes: readonly Told[]): Promise<void> {
    await Promise.all(this.hosts.map((host) => tellHost(host, host.networks.get(network)!, changes)));
  }

  /** All that the kernels have wrong. */
  async audit(): Promise<string[]> {
    const found: string[] = [];
    for (const { nodeId, networks } of this.hosts) {
      for (const [name, { balance, table }] of networks) {
        for (const line of await balance.audit(table)) found.push(`${nodeId} ${name}: ${line}`);
      }
    }
    return found;
  }

  /** Starts one; `addresses` by network. The gateway of ingress, where it is among them, is its way out. */
  async task(host: Host, name: string, port: number, addresses: Readonly<Record<string, string>>): Promise<Task> {
    const namespace = `${this.#prefix}-t-${name}`;
    await run("ip", ["netns", "add", namespace]);
    const process = await server(namespace, name, port);
    const task = { name, namespace, process, host };
    this.#tasks.push(task);
    for (const [network, address] of Object.entries(addresses)) {
      const { state, namespace: inside, table } = host.networks.get(network)!;
      const cable = newCable(state.id, `e-${name}`, name, address);
      await new NetworkKernel(host.commands, inside, process.pid!).plug(cable, mtu);
      const own = table.nodes.get(host.nodeId)?.ownAddress;
      await batch(inNamespace(systemCommands, namespace), [
        "link set lo up",
        `link set ${cable.outside} address ${macOf(address)} name e-${network}`,
        `address add ${address}/${prefixOf(state.subnet)} dev e-${network}`,
        `link set e-${network} up`,
        ...(own === undefined ? [] : [`route add default via ${own}`]),
      ]);
    }
    return task;
  }

  /** A program that listens in any namespace, and answers as tasks do. */
  async listener(namespace: string, name: string, port: number): Promise<{ end(): Promise<void> }> {
    const process = await server(namespace, name, port);
    return {
      async end() {
        process.kill("SIGKILL");
        await once(process, "close");
      },
    };
  }

  /** Its process and its namespace end, as a container's do. */
  async end(task: Task): Promise<void> {
    task.process.kill("SIGKILL");
    await once(task.process, "close");
    await run("ip", ["netns", "del", task.namespace]);
  }

  /** What a client in that namespace is answered. */
  async ask(namespace: string, question: Question): Promise<string[]> {
    const answers = await inNamespace(systemCommands, namespace).run(process.execPath, [
      clientProgram,
      JSON.stringify(question),
    ]);
    return JSON.parse(answers) as string[];
  }
}

/** Resolves when it listens. */
async function server(namespace: string, name: string, port: number): Promise<ChildProcess> {
  const enter = `--net=/run/netns/${namespace}`;
  const child = spawn("nsenter", [enter, process.execPath, taskProgram, name, String(port)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await Promise.race([
    once(child.stdout, "data"),
    once(child, "close").then(() => Promise.reject(new Error(`${name} ended before it listened`))),
  ]);
  return child;
}

/** In the order that the data plane keeps. */
async function tellHost(
  host: Host,
  { state, namespace, table, balance }: HostNetwork,
  changes: readonly Told[],
): Promise<void> {
  const kernel = new NetworkKernel(host.commands, namespace, process.pid);
  const before = new Map(table.endpoints);
  for (const change of changes) table.apply({ ...change, networkId: state.id } as ContentChange);
  const taken = table.takeChanges();
  const elsewhere = (endpoint: NetworkEndpoint | undefined) =>
    endpoint !== undefined && endpoint.nodeId !== host.nodeId;
  const peers = [...taken.endpoints].flatMap((id) => {
    const endpoint = table.endpoints.get(id);
    return endpoint && elsewhere(endpoint)
      ? [{ address: endpoint.address, via: table.nodes.get(endpoint.nodeId)!.address }]
      : [];
  });
  for (const id of taken.nodes) {
    const node = table.nodes.get(id);
    if (node?.ownAddress && id !== host.nodeId) peers.push({ address: node.ownAddress, via: node.address });
  }
  await kernel.program(setPeers(peers));
  await balance.apply(table, taken);
  const gone = [...taken.endpoints].filter((id) => !table.endpoints.has(id)).flatMap((id) => before.get(id) ?? []);
  await forgetFlows(
    host.commands,
    namespace,
    gone.map(({ address }) => address),
  );
  await kernel.program(
    removePeers(
      gone.filter(elsewhere).map(({ address }) => address),
      () => false,
    ),
  );
}

/** As an Engine has it: what it doesn't know is not forwarded. */
async function engineFirewall(commands: Commands): Promise<void> {
  const rules = [
    ":FORWARD DROP [0:0]",
    ":DOCKER-USER - [0:0]",
    ":DOCKER-ISOLATION-STAGE-2 - [0:0]",
    "-A FORWARD -j DOCKER-USER",
    "-A DOCKER-USER -j RETURN",
    "-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP",
    "-A DOCKER-ISOLATION-STAGE-2 -j RETURN",
  ];
  await commands.run("iptables-restore", ["-w", "10"], `*filter\n${rules.join("\n")}\nCOMMIT\n`);
}

async function namespaces(): Promise<string[]> {
  const listed = await run("ip", ["-json", "netns", "list"]);
  return (JSON.parse(listed || "[]") as { name: string }[]).map(({ name }) => name);
}

function run(program: string, args: readonly string[]): Promise<string> {
  return systemCommands.run(program, args);
}

async function batch(commands: Commands, lines: readonly string[]): Promise<void> {
  await commands.run("ip", ["-batch", "-"], `${lines.join("\n")}\n`);
}
