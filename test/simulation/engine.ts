/**
 * A node's Engine: images, containers and what they do by themselves. It outlives the agent; a machine that loses power
 * takes its containers along, but not what is written of them.
 */

import type { Health } from "../../src/agent/executor/executor.ts";
import type { Timer } from "../../src/lib/clock.ts";
import type { AssignedTask, NodeDescription } from "../../src/model/types.ts";
import type { Dice } from "./dice.ts";
import { type Fate, fateOf } from "./images.ts";
import type { Timeline } from "./timeline.ts";

export interface Container {
  readonly id: string;
  readonly host: string;
  readonly nodeId: string;
  readonly taskId: string;
  readonly serviceId: string;
  readonly slot: number;
  readonly fate: Fate;
  state: "created" | "running" | "exited";
  exitCode: number;
  health: Health;
  pid: number;
  /** Milliseconds since the epoch. */
  startedAt: number;
  starts: number;
  removed: boolean;
}

/** `halt`: the agent has it stopped, it has not ended yet. */
export type ContainerEvent = "create" | "start" | "halt" | "die" | "destroy" | "health";

export interface EngineOptions {
  readonly host: string;
  readonly nodeId: string;
  readonly timeline: Timeline;
  readonly dice: Dice;
  readonly description: NodeDescription;
  readonly onEvent: (container: Container, event: ContainerEvent) => void;
}

export class SimulatedEngine {
  readonly #options: EngineOptions;
  readonly #containers = new Map<string, Container>();
  readonly #images = new Set<string>();
  readonly #timers = new Map<string, Timer[]>();
  /** The agent's subscription. */
  #listener: ((container: Container) => void) | undefined;
  #stateListener: ((up: boolean) => void) | undefined;
  #up = true;
  #made = 0;
  description: NodeDescription;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.description = options.description;
  }

  get up(): boolean {
    return this.#up;
  }

  get containers(): Iterable<Container> {
    return this.#containers.values();
  }

  container(taskId: string): Container | undefined {
    return this.#containers.get(taskId);
  }

  /** From now on tells of each change of a container, and of the Engine's own comings and goings. */
  subscribe(changed: (container: Container) => void, state: (up: boolean) => void): () => void {
    this.#listener = changed;
    this.#stateListener = state;
    return () => {
      if (this.#listener !== changed) return;
      this.#listener = undefined;
      this.#stateListener = undefined;
    };
  }

  /** @param survive whether the containers run on without it (live restore) */
  stop(survive: boolean): void {
    if (!this.#up) return;
    this.#up = false;
    if (!survive) for (const container of [...this.#containers.values()]) this.die(container, 137);
    this.#stateListener?.(false);
  }

  start(): void {
    if (this.#up) return;
    this.#up = true;
    this.#stateListener?.(true);
  }

  has(image: string): boolean {
    return this.#images.has(image);
  }

  pulled(image: string): void {
    this.#images.add(image);
  }

  prune(): void {
    this.#images.clear();
  }

  create(task: AssignedTask): Container {
    const { host, nodeId, dice } = this.#options;
    const image = task.Spec.ContainerSpec?.Image ?? "";
    const fate = fateOf(image, dice);
    const container: Container = {
      id: `${host}-c${++this.#made}`,
      host,
      nodeId,
      taskId: task.ID,
      serviceId: task.ServiceID,
      slot: task.Slot,
      fate,
      state: "created",
      exitCode: 0,
      health: fate.health ? "starting" : "none",
      pid: 0,
      startedAt: 0,
      starts: 0,
      removed: false,
    };
    this.#containers.set(task.ID, container);
    this.#tell(container, "create");
    return container;
  }

  run(container: Container): void {
    if (container.state !== "created" || container.removed) return;
    container.state = "running";
    container.starts++;
    container.startedAt = this.#options.timeline.now();
    container.pid = 1000 + this.#made;
    const { ends, health } = container.fate;
    if (ends) this.#later(container, ends.afterMs, () => this.die(container, ends.code));
    if (health) {
      this.#later(container, health.afterMs, () => {
        container.health = health.healthy ? "healthy" : "unhealthy";
        this.#tell(container, "health");
      });
    }
    this.#tell(container, "start");
  }

  /** It gets its stop signal. The agent, who sends it, is told nothing. */
  halting(container: Container): void {
    if (container.state === "running") this.#options.onEvent(container, "halt");
  }

  /** It ends, by itself or not. */
  die(container: Container, code: number): void {
    if (container.state !== "running") return;
    for (const timer of this.#timers.get(container.id) ?? []) timer.cancel();
    this.#timers.delete(container.id);
    container.state = "exited";
    container.exitCode = code;
    this.#tell(container, "die");
  }

  remove(container: Container): void {
    if (container.removed) return;
    this.die(container, 137);
    container.removed = true;
    this.#containers.delete(container.taskId);
    this.#tell(container, "destroy");
  }

  #later(container: Container, delayMs: number, run: () => void): void {
    const timers = this.#timers.get(container.id) ?? [];
    this.#timers.set(container.id, timers);
    timers.push(
      this.#options.timeline.after(delayMs, () => {
        if (container.state === "running") run();
      }),
    );
  }

  #tell(container: Container, event: ContainerEvent): void {
    this.#options.onEvent(container, event);
    if (this.#up) this.#listener?.(container);
  }
}
