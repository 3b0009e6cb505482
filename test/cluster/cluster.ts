/**
 * What the tests on several nodes share: a playground of many nodes, each reached through its own daemon and Engine, and
 * what runs where. What the swarm says is always held against what the Engines say: a container that the swarm does not
 * know of is as wrong as a task without one.
 */
import type { NodeLayout } from "../../src/playground/layout.ts";
import type { Playground } from "../../src/playground/playground.ts";
import { tailOf } from "../../src/playground/process.ts";
import { ensureSampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { Api, type TaskStatusView, taskOf } from "./api.ts";
import { Docker, dockerPrograms, testPlayground } from "./harness.ts";

/**
 * How long a condition may take: several times Swarm's own failure detection (16 s), and short enough that a step that
 * fails does not keep the rest for long.
 */
const settleMs = 45_000;

export interface NodeView {
  readonly ID: string;
  readonly CreatedAt: string;
  readonly Version: { readonly Index: number };
  readonly Spec: {
    readonly Role: "manager" | "worker";
    readonly Availability: "active" | "pause" | "drain";
    readonly Labels: Readonly<Record<string, string>>;
  };
  readonly Description: {
    readonly Hostname: string;
    readonly Engine: { readonly EngineVersion: string };
    readonly TLSInfo: { readonly CertIssuerPublicKey: string };
  };
  readonly Status: { readonly State: string; readonly Message?: string; readonly Addr?: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string; readonly Addr: string };
}

/** A task that runs, with the container that runs it. */
export interface Placed {
  readonly task: string;
  readonly slot: number;
  /** The node's name in the playground. */
  readonly node: string;
  readonly container: string;
}

/** One playground for the tests of a file; node-1 is a manager in all of them. */
export class Cluster {
  readonly playground: Playground;
  readonly #stockManager: number | undefined;
  #program = "docker";
  /** The manager whose word counts; another one while that one is down. */
  asked = 1;

  /**
   * Names, paths and addresses of its own, so that files may run beside each other.
   * @param stockManager the node whose Engine, not its daemon, is the swarm's manager
   */
  constructor(name: string, subnet: string, stockManager?: number) {
    this.playground = testPlayground(name, subnet);
    this.#stockManager = stockManager;
  }

  /** Fresh nodes with the sample image, in no swarm yet. Ends what an aborted run left. */
  async start(nodes: number, managers = 1): Promise<void> {
    const programs = [...(await dockerPrograms())];
    programs.sort((left, right) => right.version.localeCompare(left.version, "en", { numeric: true }));
    this.#program = programs[0]!.program;
    await this.playground.down();
    await this.playground.up({ nodes, managers });
    const engines = (await this.playground.list()).map(({ engineSocket }) => engineSocket);
    await Promise.all(engines.map(ensureSampleImage));
  }

  stop(): Promise<void> {
    return this.playground.down();
  }

  layout(index: number): NodeLayout {
    return this.playground.layout.node(index);
  }

  /** The newest docker CLI of this machine (known from `start` on), pointed at the node's daemon. */
  docker(index: number): Docker {
    return new Docker(this.#program, this.layout(index));
  }

  /** The swarm API at that node. */
  api(index: number): Api {
    return index === this.#stockManager ? this.engine(index) : new Api(this.layout(index).socket);
  }

  engine(index: number): Api {
    return new Api(this.layout(index).engineSocket);
  }

  /** The manager's address, as `docker swarm join` wants it. */
  managerAddress(index = this.asked): string {
    return `${this.layout(index).address}:2377`;
  }

  async token(role: "worker" | "manager", via = this.asked): Promise<string> {
    const { JoinTokens } = await this.api(via).get<{ JoinTokens: { Worker: string; Manager: string } }>("/swarm");
    return role === "worker" ? JoinTokens.Worker : JoinTokens.Manager;
  }

  nodes(via = this.asked): Promise<NodeView[]> {
    return this.api(via).get("/nodes");
  }

  /** The newest node of that name: one that left and joined again is listed twice. */
  async node(index: number, via = this.asked): Promise<NodeView> {
    const named = (await this.nodes(via)).filter(({ Description }) => Description?.Hostname === `node-${index}`);
    const [newest] = named.sort((left, right) => right.CreatedAt.localeCompare(left.CreatedAt));
    if (!newest) throw new Error(`the swarm has no node-${index}`);
    return newest;
  }

  nodeBecomes(index: number, state: string, limitMs = settleMs): Promise<NodeView> {
    return this.until(
      `node-${index} is ${state}`,
      async () => {
        const node = await this.node(index);
        return node.Status.State === state && node;
      },
      { limitMs },
    );
  }

  /** What runs of a service on the nodes that are up, by their Engines. */
  async containers(service: string): Promise<Omit<Placed, "slot">[]> {
    const found: Omit<Placed, "slot">[] = [];
    for (const { name } of await this.playground.list()) {
      if (!this.playground.machine(name).find("engine")) continue;
      const engine = new Api(this.playground.layout.nodeByName(name).engineSocket);
      for (const container of await engine.containers()) {
        if (container.State !== "running") continue;
        if (container.Labels["com.docker.swarm.service.name"] !== service) continue;
        found.push({ task: taskOf(container), node: name, container: container.Id });
      }
    }
    return found;
  }

  /**
   * Waits until the service has `count` running tasks, each with its container on its node, and no node that is up runs
   * any other container of it.
   */
  running(
    service: string,
    count: number,
    wanted: (placed: readonly Placed[]) => boolean = () => true,
    limitMs = settleMs,
  ): Promise<Placed[]> {
    let seen = "";
    return this.until(
      `${count} tasks of ${service} run as they should`,
      async () => {
        const tasks = (await this.api(this.asked).tasks(service)).filter(
          ({ Status, DesiredState }) => Status.State === "running" && DesiredState === "running",
        );
        const containers = await this.containers(service);
        const placed = containers.flatMap((one) => {
          const task = tasks.find(({ ID }) => ID === one.task);
          return task ? [{ ...one, slot: task.Slot }] : [];
        });
        seen = `tasks ${tasks.map(({ ID }) => ID).join()}; containers ${JSON.stringify(containers)}`;
        const fits = tasks.length === count && containers.length === count && placed.length === count;
        return fits && wanted(placed) && placed;
      },
      { limitMs, details: () => seen },
    );
  }

  /** Waits for a condition; says how the cluster stands when it does not come. */
  until<T>(
    what: string,
    probe: () => Promise<T | undefined | false>,
    options: { readonly limitMs?: number; readonly details?: () => string } = {},
  ): Promise<T> {
    const { limitMs = settleMs, details = () => "" } = options;
    return eventually(
      { what, limitMs, intervalMs: 100, details: async () => `${details()}\n${await this.diagnose()}` },
      probe,
    );
  }

  /** For an error's text; never fails. */
  async diagnose(): Promise<string> {
    const parts: string[] = [];
    const asText = (error: Error) => error.message;
    const nodes = await this.nodes().catch(asText);
    if (typeof nodes === "string") parts.push(nodes);
    else
      for (const { ID, Description, Status } of nodes) parts.push(`${ID} ${Description?.Hostname} ${describe(Status)}`);
    const tasks = await this.api(this.asked).tasks().catch(asText);
    if (typeof tasks === "string") parts.push(tasks);
    else for (const task of tasks) parts.push(describeTask(task));
    for (const { name } of await this.playground.list()) {
      parts.push(tailOf(this.playground.layout.nodeByName(name).daemonLog, 15));
    }
    return parts.join("\n");
  }
}

function describe(status: object): string {
  return JSON.stringify(status);
}

function describeTask({ ID, ServiceID, NodeID = "", Slot, DesiredState, Status }: TaskStatusView): string {
  return `task ${ID} of ${ServiceID} slot ${Slot} on ${NodeID}, wanted ${DesiredState}: ${describe(Status)}`;
}
