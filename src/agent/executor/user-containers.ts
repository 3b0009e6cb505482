/**
 * Users' own containers on this node, as far as they are on networks of the swarm: which of the swarm's addresses each
 * has. The Engine keeps that with the container (as driver options of its endpoints), and that is the only truth: what
 * is asked here is asked anew each time.
 */
import type { ContainerInspectResponse, EventMessage } from "@docker/node-sdk";
import type { Engine } from "../../engine/engine.ts";
import { EngineEvents } from "../../engine/events.ts";
import type { Clock } from "../../lib/clock.ts";
import { isShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { driverOption } from "../../model/driver-options.ts";
import type { ContainerNaming, RunningContainer } from "../../network/container-names.ts";
import { taskIdLabel } from "./docker-labels.ts";

export interface UserContainersListener {
  /** Anything may have changed. */
  anyChanged(): void;
  /** The container is gone, has left a network (also by its stop, which ends nothing for us). */
  changed(containerId: string): void;
  started(containerId: string): void;
}

export interface UserContainers {
  start(listener: UserContainersListener): void;
  stop(): Promise<void>;
  /**
   * The tasks whose addresses the container has; undefined where there is no such container.
   * @throws Unavailable
   */
  tasksOf(containerId: string): Promise<readonly string[] | undefined>;
  /**
   * The container that has the task's address: a search through all containers. Undefined where none has it.
   * @throws Unavailable
   */
  find(taskId: string): Promise<string | undefined>;
  /**
   * Takes the task's address away from the container. Repeatable.
   * @throws Unavailable
   */
  disconnect(containerId: string, taskId: string): Promise<void>;
  /**
   * A container that was made for other name servers asks this one from now on; of use only while it runs. Repeatable.
   * @throws Unavailable
   */
  leadNames(containerId: string, names: SwarmNames): Promise<void>;
  /**
   * It asks whom its user wanted again: it is on no network of the swarm any more. Repeatable.
   * @throws Unavailable
   */
  leaveNames(containerId: string): Promise<void>;
}

export interface SwarmNames {
  readonly nameserver: string;
  /** The container's own on that network, without prefix. */
  readonly address: string;
}

export interface DockerUserContainersOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** How a container that runs is made to ask the swarm's name server. */
  readonly names: ContainerNameServers;
}

/** `network/container-names.ts`. */
export interface ContainerNameServers {
  lead(naming: ContainerNaming): Promise<void>;
  leave(container: RunningContainer): Promise<void>;
}

/** Networks of the Engine itself, which are no reason to look at a container. */
const plainNetworks = new Set(["bridge", "host", "none"]);

export class DockerUserContainers implements UserContainers {
  readonly #engine: Engine;
  readonly #names: ContainerNameServers;
  readonly #events: EngineEvents;
  #listener: UserContainersListener | undefined;

  constructor(options: DockerUserContainersOptions) {
    this.#engine = options.engine;
    this.#names = options.names;
    this.#events = new EngineEvents({
      ...options,
      filters: { type: ["container", "network"], event: ["destroy", "disconnect", "start"] },
      listener: {
        connected: async () => this.#listener?.anyChanged(),
        event: (event) => this.#event(event),
        lost: () => undefined, // the executor follows the same Engine, and says so
      },
    });
  }

  start(listener: UserContainersListener): void {
    this.#listener = listener;
    this.#events.start();
  }

  stop(): Promise<void> {
    return this.#events.stop();
  }

  async tasksOf(containerId: string): Promise<readonly string[] | undefined> {
    const detail = await this.#inspect(containerId);
    return detail && [...endpoints(detail)].map(({ taskId }) => taskId);
  }

  async find(taskId: string): Promise<string | undefined> {
    for (const { Id, Labels, NetworkSettings } of await this.#engine.listContainers([])) {
      const networks = Object.keys(NetworkSettings?.Networks ?? {});
      if (!Id || Labels?.[taskIdLabel] || networks.every((name) => plainNetworks.has(name))) continue;
      if ((await this.tasksOf(Id))?.includes(taskId)) return Id;
    }
    return undefined;
  }

  async disconnect(containerId: string, taskId: string): Promise<void> {
    const detail = await this.#inspect(containerId);
    for (const endpoint of detail ? endpoints(detail) : []) {
      if (endpoint.taskId !== taskId) continue;
      try {
        await this.#engine.disconnectNetwork(endpoint.network, containerId);
      } catch (error) {
        if (!isShoalError(error, "NotFound")) throw error; // gone is what was wanted
      }
    }
  }

  async leadNames(containerId: string, names: SwarmNames): Promise<void> {
    const detail = await this.#inspect(containerId);
    const container = detail && running(detail);
    if (!container || detail.HostConfig?.Dns?.includes(names.nameserver)) return;
    await this.#names.lead({ ...container, ...names, asksEngine: isOnEngineNetwork(detail) });
  }

  async leaveNames(containerId: string): Promise<void> {
    const detail = await this.#inspect(containerId);
    const container = detail && running(detail);
    if (container) await this.#names.leave(container);
  }

  async #inspect(containerId: string): Promise<ContainerInspectResponse | undefined> {
    try {
      return await this.#engine.inspectContainer(containerId);
    } catch (error) {
      if (!isShoalError(error, "NotFound")) throw error;
      return undefined;
    }
  }

  #event({ Type, Action, Actor }: EventMessage): void {
    const containerId = Type === "container" ? Actor?.ID : Actor?.Attributes?.container;
    if (!containerId) return;
    if (Type === "container" && Action === "start") this.#listener?.started(containerId);
    else if (Action === (Type === "container" ? "destroy" : "disconnect")) this.#listener?.changed(containerId);
  }
}

function running({ State, ResolvConfPath }: ContainerInspectResponse): RunningContainer | undefined {
  if (!State?.Running || !State.Pid || !ResolvConfPath) return undefined;
  return { processId: State.Pid, resolvConf: ResolvConfPath };
}

/** On one whose names the Engine knows: a user's own, and neither the default bridge nor the swarm's. */
function isOnEngineNetwork({ NetworkSettings }: ContainerInspectResponse): boolean {
  return Object.entries(NetworkSettings?.Networks ?? {}).some(
    ([name, { DriverOpts }]) => !plainNetworks.has(name) && !DriverOpts?.[driverOption.task],
  );
}

/** The container's ends on networks of the swarm; a task's own container has none of a user's. */
function* endpoints(detail: ContainerInspectResponse): Generator<{ network: string; taskId: string }> {
  for (const [network, endpoint] of Object.entries(detail.NetworkSettings?.Networks ?? {})) {
    const taskId = endpoint.DriverOpts?.[driverOption.task];
    if (taskId) yield { network, taskId };
  }
}
