/**
 * The agent's executor on a simulated Engine: what it knows comes by events and lists that take their time, every step
 * takes time and can fail half way, and while the Engine is away nothing works. One per life of the agent.
 */
import type { Executor, ExecutorListener, Observation } from "../../src/agent/executor/executor.ts";
import type { Payloads } from "../../src/agent/payloads.ts";
import { sleep } from "../../src/lib/clock.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import { payloadReferences } from "../../src/model/payload-references.ts";
import type { AssignedTask, NodeDescription } from "../../src/model/types.ts";
import type { NetworkPlane } from "../../src/network/plane.ts";
import type { LogMessage } from "../../src/rpc/services.ts";
import type { Dice } from "./dice.ts";
import type { Container, SimulatedEngine } from "./engine.ts";
import { fateOf } from "./images.ts";
import type { Life } from "./timeline.ts";

const defaultGraceMs = 10_000;
/** As the real one: a shorter absence of the Engine is nobody's business. */
const outageShownAfterMs = 2000;

export class SimulatedExecutor implements Executor {
  readonly #engine: SimulatedEngine;
  readonly #life: Life;
  readonly #dice: Dice;
  readonly #plane: NetworkPlane;
  readonly #payloads: Payloads;
  readonly #known = new Map<string, Observation>();
  #listener: ExecutorListener | undefined;
  #synced = false;
  #outageShown = false;
  #unsubscribe = () => {};

  constructor(engine: SimulatedEngine, life: Life, dice: Dice, plane: NetworkPlane, payloads: Payloads) {
    this.#engine = engine;
    this.#life = life;
    this.#dice = dice;
    this.#plane = plane;
    this.#payloads = payloads;
  }

  async describe(): Promise<NodeDescription> {
    await this.#work(1, 5);
    return this.#engine.description;
  }

  start(listener: ExecutorListener): void {
    this.#listener = listener;
    this.#unsubscribe = this.#engine.subscribe(
      (container) => this.#later(0.2, 10, () => this.#changed(container)),
      (up) => (up ? this.#sync() : this.#lost()),
    );
    this.#life.onEnd(() => this.#unsubscribe());
    if (this.#engine.up) this.#sync();
  }

  async stop(): Promise<void> {
    this.#unsubscribe();
    this.#listener = undefined;
  }

  observe(taskId: string): Observation | undefined {
    return this.#synced ? (this.#known.get(taskId) ?? { kind: "absent" }) : undefined;
  }

  taskIds(): readonly string[] {
    if (!this.#synced) return [];
    return [...this.#known].flatMap(([id, { kind }]) => (kind === "absent" ? [] : [id]));
  }

  async prepare(task: AssignedTask, signal: AbortSignal, progress: (text: string) => void): Promise<void> {
    const image = task.Spec.ContainerSpec?.Image ?? "";
    progress(`pulling image ${image}`);
    await this.#pull(image, signal);
    if (task.Networks.some(({ Addresses }) => Addresses.length > 0)) {
      progress("waiting for the task's networks");
      await this.#plane.attach(task, signal);
    }
    for (const { table, id } of payloadReferences(task.Spec.ContainerSpec)) {
      if (!this.#payloads.of(task, table, id)) throw new ShoalError("Unavailable", `waiting for ${id} of ${table}`);
    }
    progress("waiting for the Docker Engine to create the container");
    await this.#work(5, 100);
    const container = this.#engine.container(task.ID) ?? this.#engine.create(task);
    this.#lostAnswer();
    this.#look(container);
  }

  async run(task: AssignedTask, signal: AbortSignal): Promise<void> {
    await this.#work(1, 20);
    signal.throwIfAborted();
    const container = this.#engine.container(task.ID);
    if (!container) {
      this.#known.set(task.ID, { kind: "absent" });
      throw new ShoalError("NotFound", `No such container: ${task.ID}`);
    }
    await this.#work(container.fate.startMs, container.fate.startMs * 1.1);
    this.#engine.run(container);
    this.#lostAnswer();
    this.#look(container);
  }

  async inspect(taskId: string): Promise<void> {
    await this.#work(1, 20);
    const container = this.#engine.container(taskId);
    if (container) this.#look(container, true);
    else this.#vanish(taskId);
  }

  async halt(taskId: string, graceNanoseconds: number | undefined): Promise<void> {
    await this.#work(1, 20);
    const container = this.#engine.container(taskId);
    if (!container) return this.#vanish(taskId);
    const graceMs = graceNanoseconds === undefined ? defaultGraceMs : graceNanoseconds / 1e6;
    const killed = container.fate.stopMs > graceMs;
    this.#engine.halting(container);
    await this.#work(0, Math.min(container.fate.stopMs, graceMs));
    this.#engine.die(container, killed ? 137 : 0);
    this.#lostAnswer();
    this.#look(container);
  }

  async remove(taskId: string): Promise<void> {
    await this.#work(1, 50);
    const container = this.#engine.container(taskId);
    if (container) this.#engine.remove(container);
    this.#lostAnswer();
    this.#known.delete(taskId);
  }

  async removeAll(): Promise<void> {
    await this.#work(1, 50);
    for (const container of [...this.#engine.containers]) this.#engine.remove(container);
  }

  /** Nothing that the simulation looks at depends on logs. */
  async *logs(): AsyncGenerator<readonly LogMessage[]> {
    yield [];
  }

  async #pull(image: string, signal: AbortSignal): Promise<void> {
    if (this.#engine.has(image)) return;
    await this.#work(1, 5);
    const { pullMs, pullFails, missing } = fateOf(image, this.#dice);
    await sleep(this.#life.clock, pullMs, signal).catch(() => {
      throw new ShoalError("Canceled", "the pull was given up");
    });
    if (!this.#engine.up || this.#dice.chance(pullFails)) {
      throw new ShoalError("Unavailable", `the registry of ${image} can't be reached`);
    }
    if (missing) throw new ShoalError("NotFound", `No such image: ${image}`);
    this.#engine.pulled(image);
  }

  /** One question to the Engine. */
  async #work(lowestMs: number, highestMs: number): Promise<void> {
    await sleep(this.#life.clock, this.#dice.between(lowestMs, highestMs));
    if (!this.#engine.up) throw new ShoalError("Unavailable", "the Docker Engine can't be reached");
  }

  /** The Engine did it, but went away before it could say so. */
  #lostAnswer(): void {
    if (!this.#engine.up) throw new ShoalError("Unavailable", "the Docker Engine can't be reached");
  }

  #later(lowestMs: number, highestMs: number, run: () => void): void {
    this.#life.clock.after(this.#dice.between(lowestMs, highestMs), run);
  }

  #changed(container: Container): void {
    if (!this.#synced) return;
    if (container.removed) this.#vanish(container.taskId);
    else this.#look(container);
    this.#listener?.changed(container.taskId);
  }

  /** What an event or an answer says: not more than that it runs, or how it ended. */
  #look(container: Container, fully = false): void {
    const { id: containerId, taskId } = container;
    if (container.removed) {
      this.#vanish(taskId);
      return;
    }
    const before = this.#known.get(taskId);
    switch (container.state) {
      case "created":
        this.#known.set(taskId, { kind: "created", containerId });
        return;
      case "running": {
        const known = fully || (before?.kind === "running" && before.detail !== undefined);
        const detail = { pid: container.pid, health: container.health, ports: undefined };
        this.#known.set(taskId, { kind: "running", containerId, ...(known && { detail }) });
        return;
      }
      case "exited": {
        const exit = { code: container.exitCode };
        this.#known.set(taskId, { kind: "exited", containerId, ...(fully && { exit }) });
        return;
      }
    }
  }

  #vanish(taskId: string): void {
    const before = this.#known.get(taskId);
    if (!before || before.kind === "absent") return;
    const exit = before.kind === "exited" ? before.exit : undefined;
    this.#known.set(taskId, { kind: "absent", ...(exit && { exit }) });
  }

  #sync(): void {
    this.#later(1, 200, () => {
      if (!this.#engine.up) return;
      const touched = new Set(this.#known.keys());
      for (const taskId of this.#known.keys()) if (!this.#engine.container(taskId)) this.#vanish(taskId);
      for (const container of this.#engine.containers) {
        touched.add(container.taskId);
        this.#look(container);
      }
      const first = !this.#synced;
      this.#synced = true;
      if (this.#outageShown) this.#listener?.problem(undefined);
      this.#outageShown = false;
      if (first) this.#listener?.ready();
      else for (const taskId of touched) this.#listener?.changed(taskId);
    });
  }

  #lost(): void {
    this.#life.clock.after(outageShownAfterMs, () => {
      if (this.#engine.up || this.#outageShown) return;
      this.#outageShown = true;
      this.#listener?.problem("the Docker Engine can't be reached");
    });
  }
}
