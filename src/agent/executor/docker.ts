/**
 * Runs tasks as containers of the node's Docker Engine. For a task that simply runs it asks the Engine three things:
 * create, start, and one inspection; everything else it learns from the events that all tasks share.
 *
 * A container belongs to a task by its labels (task id and node id). So a container that is there already is adopted,
 * whoever made it and whenever; one of another node id (another swarm on the same Engine) is never touched.
 */

import type { Engine } from "../../engine/engine.ts";
import { EngineEvents } from "../../engine/events.ts";
import type { Clock, Timer } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { templateSubject } from "../../model/expand.ts";
import { expandContainer, isTemplated } from "../../model/expand-container.ts";
import { markOwn } from "../../model/own-node.ts";
import { taskName } from "../../model/task-name.ts";
import type { AssignedTask, GenericResource, NodeDescription } from "../../model/types.ts";
import type { NetworkPlane } from "../../network/plane.ts";
import type { LogMessage, LogOptions } from "../../rpc/services.ts";
import { nodeDescription } from "../description.ts";
import { DockerContainers } from "./docker-containers.ts";
import { createBody } from "./docker-create.ts";
import { DockerImages } from "./docker-images.ts";
import { nodeIdLabel, taskIdLabel } from "./docker-labels.ts";
import { logMessages, unixTime } from "./docker-logs.ts";
import { DockerNetworks } from "./docker-networks.ts";
import { requireAbilities } from "./engine-abilities.ts";
import type { Executor, ExecutorListener, Observation } from "./executor.ts";
import { Gate } from "./gate.ts";
import type { TaskPayloads } from "./task-payloads.ts";

/**
 * Creates and starts at once: few enough that an Engine is not flooded by hundreds, and enough that it is never without
 * work (fifty containers on two cores took 4.2 s with fifty at a time, 4.4 s with sixteen, 5.1 s with five).
 */
const engineOperations = 32;

/** An Engine that restarts is back within this; only a longer absence is told to the managers. */
const outageShownAfterMs = 2000;

/** Looks at a container that changed under each look, before that is an error. */
const inspectTries = 5;

export interface DockerExecutorOptions {
  readonly engine: Engine;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1: never pull what is on the node. */
  readonly preferOfflineImage?: boolean;
  /** What the node offers besides its CPUs and memory. */
  readonly genericResources?: readonly GenericResource[];
  /** The node's data plane; without one, tasks with networks of the swarm are rejected. */
  readonly plane?: NetworkPlane;
  /** Files of tasks; without it, tasks with secrets or configs are rejected. */
  readonly payloads?: TaskPayloads;
  /** Creates and starts at once (default 32). */
  readonly operations?: number;
}

export class DockerExecutor implements Executor {
  readonly #options: DockerExecutorOptions;
  readonly #containers: DockerContainers;
  readonly #images: DockerImages;
  readonly #networks: DockerNetworks;
  readonly #gate: Gate;
  readonly #events: EngineEvents;
  #listener: ExecutorListener | undefined;
  /** What the node was told to be last. */
  #described: NodeDescription | undefined;
  #synced = false;
  #outage: { timer: Timer; shown: boolean; error: unknown } | undefined;

  constructor(options: DockerExecutorOptions) {
    const { engine, nodeId, clock, random, log } = options;
    this.#options = options;
    this.#gate = new Gate(options.operations ?? engineOperations);
    this.#containers = new DockerContainers(nodeId, (taskId) => {
      void this.#dropFilesOfEnded(taskId);
      this.#listener?.changed(taskId);
    });
    this.#networks = new DockerNetworks({ engine, plane: options.plane, log });
    this.#images = new DockerImages(engine, clock, log, options.preferOfflineImage ?? false);
    this.#events = new EngineEvents({
      engine,
      clock,
      random,
      log,
      filters: {
        type: ["container"],
        label: [taskIdLabel],
        event: ["create", "start", "kill", "die", "destroy", "health_status"],
      },
      listener: {
        connected: () => this.#sync(),
        event: (event) => this.#containers.event(event),
        lost: (error) => this.#lost(error),
      },
    });
  }

  async describe(): Promise<NodeDescription> {
    this.#described = markOwn(nodeDescription(await this.#options.engine.info(), this.#options.genericResources));
    return this.#described;
  }

  start(listener: ExecutorListener): void {
    this.#listener = listener;
    this.#events.start();
  }

  async stop(): Promise<void> {
    this.#outage?.timer.cancel();
    await this.#events.stop();
  }

  observe(taskId: string): Observation | undefined {
    return this.#containers.observe(taskId);
  }

  taskIds(): readonly string[] {
    return this.#containers.taskIds();
  }

  async prepare(assigned: AssignedTask, signal: AbortSignal, progress: (text: string) => void): Promise<void> {
    const task = await this.#expanded(assigned);
    const files = this.#options.payloads?.mounts(task);
    const image = createBody(task, undefined, files).Image ?? ""; // what is wrong with the task itself is said before anything is done
    await requireAbilities(this.#options.engine, task);
    progress("waiting for the task's networks");
    const body = createBody(task, await this.#networks.of(task, signal), files);
    progress(`pulling image ${image}`);
    await this.#images.ensure(image, task.RegistryAuth, signal);
    progress("waiting for the Docker Engine to create the container");
    const name = taskName(task);
    const { engine } = this.#options;
    await this.#withFiles(assigned, async () => {
      try {
        const id = await this.#gate.run(signal, () => engine.createContainer(name, body));
        this.#containers.created(task.ID, id);
      } catch (error) {
        if (!isShoalError(error, "AlreadyExists")) throw error;
        await this.#adopt(task.ID, name, error);
      }
    });
  }

  /** Does something with the task's container that needs the task's files. */
  async #withFiles(task: AssignedTask, work: () => Promise<void>): Promise<void> {
    const { payloads } = this.#options;
    try {
      await (payloads ? payloads.during(task, () => this.#description(), work) : work());
    } finally {
      await this.#dropFilesOfEnded(task.ID);
    }
  }

  async #dropFilesOfEnded(taskId: string): Promise<void> {
    const kind = this.#containers.observe(taskId)?.kind;
    if (kind === "absent" || kind === "exited") await this.#options.payloads?.drop(taskId);
  }

  /** The task as this node runs it. @throws ShoalError InvalidArgument, with which it is rejected */
  async #expanded(task: AssignedTask): Promise<AssignedTask> {
    const { ContainerSpec: container } = task.Spec;
    if (!container || !isTemplated(container)) return task;
    const subject = templateSubject(task, await this.#description());
    return { ...task, Spec: { ...task.Spec, ContainerSpec: expandContainer(container, subject) } };
  }

  async #description(): Promise<NodeDescription> {
    return this.#described ?? this.describe();
  }

  /**
   * All networks but the one of the create. Here and not after the create: a create whose caller died leaves a container
   * that is adopted, and must not start with less than its networks.
   */
  async #connect(task: AssignedTask, id: string, signal: AbortSignal): Promise<void> {
    if (task.Networks.length === 1 && task.Networks[0]?.Network.Driver === "overlay") return; // it has it already
    const { networks } = await this.#networks.of(task, signal);
    for (const { engineNetwork, driverOptions } of networks.slice(1)) {
      await this.#options.engine.connectNetwork(engineNetwork, id, { DriverOpts: { ...driverOptions } });
    }
  }

  /** The container that has the name: ours when its labels say so (a create whose answer was lost). */
  async #adopt(taskId: string, name: string, conflict: ShoalError): Promise<void> {
    const mark = this.#containers.mark();
    const found = await this.#options.engine.inspectContainer(name);
    const labels = found.Config?.Labels ?? {};
    if (labels[taskIdLabel] !== taskId || labels[nodeIdLabel] !== this.#options.nodeId) throw conflict;
    this.#containers.inspected(taskId, found, mark);
  }

  async run(task: AssignedTask, signal: AbortSignal): Promise<void> {
    const id = this.#containers.containerId(task.ID);
    if (!id) throw new ShoalError("NotFound", `No such container: ${taskName(task)}`);
    await this.#connect(task, id, signal);
    await this.#withFiles(task, async () => {
      await this.#gate.run(signal, () => this.#options.engine.startContainer(id));
      this.#containers.started(task.ID, id);
    });
  }

  async inspect(taskId: string): Promise<void> {
    for (let tries = 0; tries < inspectTries; tries++) {
      const id = this.#containers.containerId(taskId);
      if (!id) return;
      const mark = this.#containers.mark();
      try {
        if (this.#containers.suspicious(taskId)) await this.#options.engine.ping();
        const detail = await this.#options.engine.inspectContainer(id);
        if (this.#containers.inspected(taskId, detail, mark)) return;
      } catch (error) {
        if (!isShoalError(error, "NotFound")) throw error;
        this.#containers.vanished(taskId);
      }
    }
    throw new ShoalError("Unavailable", "the container changes faster than it can be looked at");
  }

  async halt(taskId: string, graceNanoseconds: number | undefined): Promise<void> {
    const id = this.#containers.containerId(taskId);
    if (!id) return;
    const graceSeconds = graceNanoseconds === undefined ? undefined : Math.ceil(graceNanoseconds / 1e9);
    this.#containers.halting(taskId);
    try {
      await this.#options.engine.stopContainer(id, graceSeconds);
      this.#containers.stopped(taskId, id);
    } catch (error) {
      if (!isShoalError(error, "NotFound")) throw error;
      this.#containers.vanished(taskId);
    }
    await this.#dropFilesOfEnded(taskId);
  }

  async remove(taskId: string): Promise<void> {
    const id = this.#containers.containerId(taskId);
    if (id) await this.#removeContainer(id);
    this.#containers.removed(taskId);
    await this.#options.payloads?.drop(taskId);
    await this.#networks.collect();
  }

  async removeAll(): Promise<void> {
    const { engine, nodeId } = this.#options;
    const list = await engine.listContainers([taskIdLabel, `${nodeIdLabel}=${nodeId}`]);
    const ends = await Promise.allSettled(list.map(({ Id = "" }) => this.#removeContainer(Id)));
    const failed = ends.find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
    await this.#options.payloads?.clear();
  }

  async #removeContainer(id: string): Promise<void> {
    try {
      await this.#options.engine.removeContainer(id);
    } catch (error) {
      if (!isShoalError(error, "NotFound")) throw error; // gone is what was wanted
    }
  }

  async *logs(task: AssignedTask, options: LogOptions, signal: AbortSignal): AsyncGenerator<readonly LogMessage[]> {
    const id = this.#containers.containerId(task.ID);
    if (!id) return;
    const request = {
      stdout: options.streams.includes("stdout"),
      stderr: options.streams.includes("stderr"),
      follow: options.follow,
      tail: options.tail,
      since: unixTime(options.since),
    };
    const chunks = this.#options.engine.containerLogs(id, request, signal);
    const context = { serviceId: task.ServiceID, nodeId: this.#options.nodeId, taskId: task.ID };
    yield* logMessages(chunks, task.Spec.ContainerSpec?.TTY ?? false, context);
  }

  async #sync(): Promise<void> {
    const { engine, nodeId } = this.#options;
    const mark = this.#containers.mark();
    const list = await engine.listContainers([taskIdLabel, `${nodeIdLabel}=${nodeId}`]);
    const first = !this.#synced;
    const touched = this.#containers.listed(list, mark);
    this.#synced = true;
    await this.#options.payloads?.keepOnly((taskId) => this.#mayNeedFiles(taskId));
    this.#recovered();
    if (first) this.#listener?.ready();
    else for (const taskId of touched) this.#listener?.changed(taskId);
  }

  #mayNeedFiles(taskId: string): boolean {
    const kind = this.#containers.observe(taskId)?.kind;
    return kind === "created" || kind === "running";
  }

  #lost(error: unknown): void {
    this.#containers.lost();
    if (this.#outage) {
      this.#outage.error = error;
      return;
    }
    const timer = this.#options.clock.after(outageShownAfterMs, () => {
      const outage = this.#outage;
      if (!outage) return;
      outage.shown = true;
      this.#options.log.warn("the Docker Engine can't be reached", { error: messageOf(outage.error) });
      this.#listener?.problem(messageOf(outage.error));
    });
    this.#outage = { timer, shown: false, error };
  }

  #recovered(): void {
    const outage = this.#outage;
    this.#outage = undefined;
    outage?.timer.cancel();
    if (!outage?.shown) return;
    this.#options.log.info("the Docker Engine is back");
    this.#listener?.problem(undefined);
  }
}
