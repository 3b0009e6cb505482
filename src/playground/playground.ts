/**
 * A cluster on one Linux machine: the public face of this folder. Each node is a machine of its own as far as it can
 * tell (`machine.ts`), on a network of its own (`network.ts`). `npm start`, the tests and the benchmarks use the same.
 *
 * Every operation may be repeated: what is there already is kept, what is gone already is not missed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { ShoalError } from "../lib/errors.ts";
import { type NodeLayout, type PlaygroundLayout, playgroundLayout } from "./layout.ts";
import { defaultMachineOptions, Machine, type MachineOptions, type NodePart, removeCgroups } from "./machine.ts";
import { ensureCable, ensureSwitch, isCut, removeNodeNetwork, removeSwitch, setCable } from "./network.ts";
import { cuts, type Pair, setCuts } from "./partition.ts";
import { formSwarm, type NodeRole, viewSwarm } from "./swarm.ts";

export interface UpOptions {
  readonly nodes: number;
  readonly managers: number;
}

/**
 * `up`: everything runs. `degraded`: the machine runs, but its daemon or its Engine does not. `partitioned`: it runs,
 * cut off from the others or from some of them. `down`: nothing runs; its disk is kept.
 */
export type NodeState = "up" | "degraded" | "partitioned" | "down";

export interface PlaygroundNode {
  readonly name: string;
  readonly address: string;
  /** As the swarm says; where no manager answers, what the node was meant to be. */
  readonly role: NodeRole;
  readonly state: NodeState;
  /** What the swarm's managers think of it: "ready", "down", "unknown", "disconnected"; "none" where none answers. */
  readonly status: string;
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
    requireRoot();
    await ensureSwitch(this.layout);
    const indices = Array.from({ length: nodes }, (_, index) => index + 1);
    await inParallel(indices, async (index) => {
      const node = this.layout.node(index);
      mkdirSync(node.dataDir, { recursive: true });
      const role: NodeRole = index <= managers ? "manager" : "worker";
      writeFileSync(descriptionFile(node), `${JSON.stringify({ role })}\n`);
      await ensureCable(this.layout, node);
      await this.machine(node.name).start();
    });
  }

  /** Makes all nodes one swarm, each in its role, where they are none yet. All of them must be up. */
  formSwarm(): Promise<void> {
    return formSwarm(this.#known().map((node) => ({ node, role: roleOf(node) })));
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
    await inParallel(this.#known(), async (node) => {
      await attempt(() => this.machine(node.name).destroy());
      await attempt(() => removeNodeNetwork(node));
    });
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
    const known = this.#known();
    const views = await viewSwarm(known.filter((node) => this.machine(node.name).find("daemon")));
    const cutPairs = await cuts(this.layout);
    for (const node of known) {
      const view = views.get(node.name);
      nodes.push({
        name: node.name,
        address: node.address,
        role: view?.role ?? roleOf(node),
        state: await this.#state(node, cutPairs),
        status: view?.status ?? "none",
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

  /**
   * Cuts these nodes off from all others, not from each other; this machine still reaches everybody. Adds to what is
   * cut already.
   */
  async split(names: readonly string[]): Promise<void> {
    requireRoot();
    const inside = names.map((name) => this.machine(name).node.port);
    const outside = this.#known()
      .map(({ port }) => port)
      .filter((port) => !inside.includes(port));
    const pairs = inside.flatMap((one) => outside.map((other): Pair => [one, other]));
    await setCuts(this.layout, [...(await cuts(this.layout)), ...pairs]);
  }

  /** Plugs the node's cable in again, and ends every cut between it and another node. */
  async heal(name: string): Promise<void> {
    requireRoot();
    const { node } = this.machine(name);
    const before = await cuts(this.layout);
    const left = before.filter((pair) => !pair.includes(node.port));
    if (left.length < before.length) await setCuts(this.layout, left);
    await setCable(this.layout, node, "up");
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

  async #state(node: NodeLayout, cutPairs: readonly Pair[]): Promise<NodeState> {
    const machine = this.machine(node.name);
    if (!machine.find("machine")) return "down";
    if (!machine.find("engine") || !machine.find("daemon")) return "degraded";
    if (cutPairs.some((pair) => pair.includes(node.port))) return "partitioned";
    return (await isCut(this.layout, node)) ? "partitioned" : "up";
  }
}

/** Nodes that are started or removed at once: more of them only wait for each other's disk and processor. */
const parallelNodes = 4;

/** Runs `work` for every item; all of it has ended when this does, and the first failure is thrown then. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const errors: unknown[] = [];
  const runOn = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      await work(item).catch((error) => errors.push(error));
    }
  };
  await Promise.all(Array.from({ length: parallelNodes }, runOn));
  if (errors.length > 0) throw errors[0];
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
