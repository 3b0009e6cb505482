/**
 * Data planes on a playground's nodes, told by hand what managers would tell them: a swarm of networks without managers.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { dockerEngine } from "../../src/engine/client.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import type {
  NetworkChange,
  NetworkEndpoint,
  NetworkNode,
  NetworkService,
  NetworkState,
  NetworksMessage,
} from "../../src/model/network-state.ts";
import type { AssignedTask } from "../../src/model/types.ts";
import type { ContainerNetworks } from "../../src/network/plane.ts";
import type { NodeLayout } from "../../src/playground/layout.ts";
import type { Playground } from "../../src/playground/playground.ts";
import { nodeEnvironment, run } from "../../src/playground/process.ts";
import { sampleImage } from "../../src/playground/sample.ts";
import type { PlaneCall } from "./network-plane-node.ts";

const program = fileURLToPath(new URL("./network-plane-node.ts", import.meta.url));
const callLimitMs = 60_000;

interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
  readonly tookMs?: number;
}

/** A data plane that runs on a node. */
export class PlaneOnNode {
  readonly nodeId: string;
  readonly node: NodeLayout;
  readonly engine: Engine;
  readonly #playground: Playground;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  #log = "";
  #next = 1;
  /** How long the last call took on the node. */
  tookMs = 0;

  constructor(playground: Playground, index: number) {
    this.#playground = playground;
    this.node = playground.layout.node(index);
    this.nodeId = `node${index}`;
    this.engine = dockerEngine(this.node.engineSocket);
  }

  get log(): string {
    return this.#log;
  }

  /** The command that runs something inside the node's namespaces. */
  inside(): string[] {
    const init = this.#playground.machine(this.node.name).find("machine");
    if (!init) throw new Error(`${this.node.name} is down`);
    return ["--target", String(init.pid), "--mount", "--uts", "--net", "--pid", "--"];
  }

  async start(): Promise<void> {
    const command = [...this.inside(), process.execPath, program, this.nodeId, this.node.address];
    const child = spawn("nsenter", [...command, this.node.engineSocket], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...nodeEnvironment },
    });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once("close", resolve));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#log += text;
    });
    const ready = this.#answer(0);
    createInterface(child.stdout).on("line", (line) => {
      const answer = JSON.parse(line) as Answer;
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
    await ready;
  }

  async call<T>(order: PlaneCall): Promise<T> {
    const id = this.#next++;
    const answer = this.#answer(id);
    this.#child?.stdin?.write(`${JSON.stringify({ id, ...order })}\n`);
    const { result, error, tookMs = 0 } = await answer;
    this.tookMs = tookMs;
    if (error !== undefined) throw new ShoalError("Internal", error);
    return result as T;
  }

  /** Ends the process: in order, or at once (kill -9). */
  async end(how: "stop" | "die"): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null) return;
    if (how === "stop") await this.call({ call: "stop" });
    else child.stdin?.write(`${JSON.stringify({ id: this.#next++, call: "die" })}\n`);
    if (how === "stop") child.stdin?.end();
    await this.#ended;
    this.#child = undefined;
  }

  /** A shell line on the node; its standard output. */
  shell(line: string): Promise<string> {
    return run("nsenter", [...this.inside(), "sh", "-c", line]);
  }

  #answer(id: number): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const late = setTimeout(() => reject(new Error(`no answer of ${this.node.name}\n${this.#log}`)), callLimitMs);
    this.#waiting.set(id, resolve);
    void this.#ended.then(() => {
      if (this.#waiting.has(id) && !this.#child)
        reject(new Error(`the plane of ${this.node.name} ended\n${this.#log}`));
    });
    return promise.finally(() => clearTimeout(late));
  }
}

interface Contents {
  readonly network: NetworkState;
  readonly nodes: Map<string, NetworkNode>;
  readonly endpoints: Map<string, NetworkEndpoint>;
  readonly services: Map<string, NetworkService>;
}

/** What managers would know, and tell. */
export class HandMadeState {
  readonly networks = new Map<string, Contents>();
  revision = 1;

  addNetwork(network: Partial<NetworkState> & Pick<NetworkState, "id" | "name" | "vxlanId">): NetworkState {
    const subnet = network.subnet ?? `10.${network.vxlanId % 250}.0.0/16`;
    const whole: NetworkState = {
      subnet,
      gateway: subnet.replace(/\.0\/\d+$/, ".1"),
      internal: false,
      ingress: false,
      encrypted: false,
      ...network,
    };
    this.networks.set(network.id, { network: whole, nodes: new Map(), endpoints: new Map(), services: new Map() });
    return whole;
  }

  /** The endpoint of a task on a network. */
  addEndpoint(networkId: string, taskId: string, node: PlaneOnNode, address: string, serviceId = ""): NetworkEndpoint {
    const endpoint = { taskId, serviceId, nodeId: node.nodeId, address, names: [], active: true };
    this.#contents(networkId).endpoints.set(taskId, endpoint);
    return endpoint;
  }

  removeEndpoint(networkId: string, taskId: string): void {
    this.#contents(networkId).endpoints.delete(taskId);
  }

  addNode(networkId: string, node: PlaneOnNode, ownAddress?: string): void {
    const { nodeId } = node;
    const own = ownAddress === undefined ? {} : { ownAddress };
    this.#contents(networkId).nodes.set(nodeId, { nodeId, address: node.node.address, ...own });
  }

  addService(networkId: string, service: Partial<NetworkService> & Pick<NetworkService, "serviceId">): void {
    const whole = { name: service.serviceId, aliases: [], ports: [], ...service };
    this.#contents(networkId).services.set(service.serviceId, whole);
  }

  /** All that there is, for a node that takes part in these networks. */
  complete(networkIds: readonly string[] = [...this.networks.keys()]): NetworksMessage {
    const changes = networkIds.flatMap((networkId): NetworkChange[] => {
      const { network, nodes, endpoints, services } = this.#contents(networkId);
      return [
        { kind: "network", network },
        ...[...nodes.values()].map((node) => ({ kind: "node" as const, networkId, node })),
        ...[...endpoints.values()].map((endpoint) => ({ kind: "endpoint" as const, networkId, endpoint })),
        ...[...services.values()].map((service) => ({ kind: "service" as const, networkId, service })),
      ];
    });
    return { type: "complete", revision: this.revision++, changes };
  }

  incremental(...changes: NetworkChange[]): NetworksMessage {
    return { type: "incremental", revision: this.revision++, changes };
  }

  /** The task as the agent has it. */
  task(taskId: string, node: PlaneOnNode): AssignedTask {
    const Networks = [...this.networks.values()].flatMap(({ network, endpoints }) => {
      const endpoint = endpoints.get(taskId);
      if (!endpoint) return [];
      const prefix = network.subnet.split("/")[1];
      const Network = { ID: network.id, Name: network.name, Driver: "overlay" };
      return [{ Network, Addresses: [`${endpoint.address}/${prefix}`], Aliases: [] }];
    });
    return { ID: taskId, NodeID: node.nodeId, Networks } as unknown as AssignedTask;
  }

  #contents(networkId: string): Contents {
    const found = this.networks.get(networkId);
    if (!found) throw new Error(`there is no network ${networkId}`);
    return found;
  }
}

/** Starts a task's container as the agent would. @returns its id */
export async function startContainer(
  plane: PlaneOnNode,
  task: AssignedTask,
  hostPorts: Readonly<Record<string, number>> = {},
): Promise<string> {
  const { networks, nameserver } = await plane.call<ContainerNetworks>({ call: "attach", task });
  const [first, ...others] = networks;
  if (!first) throw new Error("the task has no network");
  const id = await plane.engine.createContainer(task.ID, {
    Image: sampleImage,
    Hostname: task.ID,
    ExposedPorts: Object.fromEntries(Object.keys(hostPorts).map((port) => [port, {}])),
    HostConfig: {
      NetworkMode: first.engineNetwork,
      Dns: [nameserver],
      PortBindings: Object.fromEntries(
        Object.entries(hostPorts).map(([port, hostPort]) => [port, [{ HostPort: String(hostPort) }]]),
      ),
    },
    NetworkingConfig: { EndpointsConfig: { [first.engineNetwork]: { DriverOpts: { ...first.driverOptions } } } },
  });
  for (const { engineNetwork, driverOptions } of others) {
    await plane.engine.connectNetwork(engineNetwork, id, { DriverOpts: { ...driverOptions } });
  }
  await plane.engine.startContainer(id);
  return id;
}
