/**
 * A cluster on one Linux machine: the public face of this folder. Each node is a machine of its own as far as it can
 * tell (`machine.ts`), on a network of its own (`network.ts`). `npm start`, the tests and the benchmarks use the same.
 *
 * Every operation may be repeated: what is there already is kept, what is gone already is not missed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { ShoalError } from "../lib/errors.ts";
import { exchangeJson } from "./http.ts";
import { type NodeLayout, type PlaygroundLayout, playgroundLayout } from "./layout.ts";
import { defaultMachineOptions, Machine, type MachineOptions, type NodePart, removeCgroups } from "./machine.ts";
import { ensureCable, ensureSwitch, isCut, removeNodeNetwork, removeSwitch, setCable } from "./network.ts";

export interface UpOptions {
  readonly nodes: number;
  readonly managers: number;
}

export type NodeRole = "manager" | "worker";

/**
 * `up`: everything runs. `degraded`: the machine runs, but its daemon or its Engine does not. `partitioned`: it runs,
 * its network cable is out. `down`: nothing runs; its disk is kept.
 */
export type NodeState = "up" | "degraded" | "partitioned" | "down";

export interface PlaygroundNode {
  readonly name: string;
  readonly address: string;
  readonly role: NodeRole;
  readonly state: NodeState;
  /** Name of its network namespace. */
  readonly namespace: string;
  /** Path of the daemon's socket: what DOCKER_HOST points at. */
  readonly socket: string;
  readonly engineSocket: string;
}

export class Playground {
  readonly layout: PlaygroundLayout;
  readonly #machineOptions: MachineOptions;

  /** @param machineOptions how nodes' daemons are started */
  constructor(layout: PlaygroundLayout = playgroundLayout(), machineOptions: MachineOptions = defaultMachineOptions) {
    this.layout = layout;
    this.#machineOptions = machineOptions;
  }

  /** Brings nodes 1 to `nodes` up, those that are down among them. They are not yet a swarm: see `formSwarm`. */
  async up(options: UpOptions): Promise<void> {
    const { nodes, managers } = options;
    if (!Number.isInteger(nodes) || !Number.isInteger(managers) || nodes < 1 || managers < 1 || managers > nodes) {
      throw new ShoalError(
        "InvalidArgument",
        "a playground has at least one node, and from one to all of them managers",
      );
    }
    if (nodes > 1) {
      throw new ShoalError(
        "Unimplemented",
        `a playground of ${nodes} nodes needs nodes that join a swarm, which this version cannot do yet: use --nodes 1`,
      );
    }
    requireRoot();
    await ensureSwitch(this.layout);
    for (let index = 1; index <= nodes; index++) {
      const node = this.layout.node(index);
      mkdirSync(node.dataDir, { recursive: true });
      const role: NodeRole = index <= managers ? "manager" : "worker";
      writeFileSync(descriptionFile(node), `${JSON.stringify({ role })}\n`);
      await ensureCable(this.layout, node);
      await this.machine(node.name).start();
    }
  }

  /** Makes the nodes a swarm, where they are none yet. */
  async formSwarm(): Promise<void> {
    const node = this.layout.node(1);
    const to = { socket: node.socket };
    const info = await exchangeJson<{ Swarm: { LocalNodeState: string } }>({ to, path: "/info" });
    if (info.Swarm.LocalNodeState === "active") return;
    await exchangeJson<string>({
      to,
      method: "POST",
      path: "/swarm/init",
      body: { ListenAddr: "0.0.0.0:2377", AdvertiseAddr: node.address },
      limitMs: 60_000,
    });
  }

  /** Removes everything: processes, containers, namespaces, disks. What fails to go does not keep the rest. */
  async down(): Promise<void> {
    requireRoot();
    const errors: unknown[] = [];
    const attempt = async (work: () => Promise<void> | void) => {
      try {
        await work();
      } catch (error) {
        errors.push(error);
      }
    };
    for (const node of this.#known()) {
      await attempt(() => this.machine(node.name).destroy());
      await attempt(() => removeNodeNetwork(node));
    }
    await attempt(() => removeSwitch(this.layout));
    await attempt(() => removeCgroups(this.layout.cgroup));
    if (errors.length > 0) throw errors.length === 1 ? errors[0] : new AggregateError(errors, errors.join("\n"));
    for (const directory of [this.layout.runDir, this.layout.dataDir]) {
      rmSync(directory, { recursive: true, force: true });
      removeIfEmpty(directory.slice(0, directory.lastIndexOf("/"))); // also holds what is not the playground's
    }
  }

  /** All nodes that there are, by number. */
  async list(): Promise<PlaygroundNode[]> {
    const nodes: PlaygroundNode[] = [];
    for (const node of this.#known()) {
      nodes.push({
        name: node.name,
        address: node.address,
        role: roleOf(node),
        state: await this.#state(node),
        namespace: node.namespace,
        socket: node.socket,
        engineSocket: node.engineSocket,
      });
    }
    return nodes;
  }

  /** kill -9: of the whole node (its power goes), or of one part of it. */
  async kill(name: string, part: NodePart = "machine"): Promise<void> {
    requireRoot();
    await this.machine(name).kill(part);
  }

  /** Starts whatever of the node is not running. */
  async start(name: string): Promise<void> {
    requireRoot();
    const machine = this.machine(name);
    await ensureSwitch(this.layout);
    await ensureCable(this.layout, machine.node);
    await machine.start();
  }

  /** Pulls the node's network cable out: it runs on, alone. */
  async partition(name: string): Promise<void> {
    requireRoot();
    await setCable(this.layout, this.machine(name).node, "down");
  }

  async heal(name: string): Promise<void> {
    requireRoot();
    await setCable(this.layout, this.machine(name).node, "up");
  }

  /** NotFound where the playground has no such node. */
  machine(name: string): Machine {
    const node = this.layout.nodeByName(name);
    if (!existsSync(node.dataDir)) throw new ShoalError("NotFound", `the playground has no ${name}`);
    return new Machine(node, this.#machineOptions);
  }

  #known(): NodeLayout[] {
    if (!existsSync(this.layout.dataDir)) return [];
    const names = readdirSync(this.layout.dataDir).filter((entry) => /^node-\d+$/.test(entry));
    return names.map((name) => this.layout.nodeByName(name)).sort((left, right) => left.index - right.index);
  }

  async #state(node: NodeLayout): Promise<NodeState> {
    const machine = this.machine(node.name);
    if (!machine.find("machine")) return "down";
    if (!machine.find("engine") || !machine.find("daemon")) return "degraded";
    return (await isCut(this.layout, node)) ? "partitioned" : "up";
  }
}

function descriptionFile(node: NodeLayout): string {
  return `${node.dataDir}/node.json`;
}

function roleOf(node: NodeLayout): NodeRole {
  const file = descriptionFile(node);
  if (!existsSync(file)) return "worker"; // an `up` that was cut short
  return (JSON.parse(readFileSync(file, "utf8")) as { role: NodeRole }).role;
}

function requireRoot(): void {
  if (process.getuid?.() !== 0) {
    throw new ShoalError("PermissionDenied", "a playground is made of namespaces and mounts: it needs root");
  }
}

function removeIfEmpty(directory: string): void {
  if (existsSync(directory) && readdirSync(directory).length === 0) rmdirSync(directory);
}
