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
  /** Makes the containers of that process's namespace ask the swarm's name server (`network/container-names.ts`). */
  readonly leadNames: (naming: SwarmNames & { readonly processId: number }) => Promise<void>;
}

/** Networks of the Engine itself, which are no reason to look at a container. */
const plainNetworks = new Set(["bridge", "host", "none"]);

export class DockerUserContainers implements UserContainers {
  readonly #engine: Engine;
  readonly #leadNames: DockerUserContainersOptions["leadNames"];
  readonly #events: EngineEvents;
  #listener: UserContainersListener | undefined;

  constructor(options: DockerUserContainersOptions) {
    this.#engine = options.engine;
    this.#leadNames = options.leadNames;
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
    const { Running, Pid } = detail?.State ?? {};
    if (!Running || !Pid || detail?.HostConfig?.Dns?.includes(names.nameserver)) return;
    await this.#leadNames({ ...names, processId: Pid });
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

/** The container's ends on networks of the swarm; a task's own container has none of a user's. */
function* endpoints(detail: ContainerInspectResponse): Generator<{ network: string; taskId: string }> {
  for (const [network, endpoint] of Object.entries(detail.NetworkSettings?.Networks ?? {})) {
    const taskId = endpoint.DriverOpts?.[driverOption.task];
    if (taskId) yield { network, taskId };
  }
}
