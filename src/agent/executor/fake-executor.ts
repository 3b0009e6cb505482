/** An executor without containers, for tests: every step works at once unless it is told to fail or to wait. */
import { ShoalError } from "../../lib/errors.ts";
import type { AssignedTask, NodeDescription } from "../../model/types.ts";
import type { LogMessage, LogOptions } from "../../rpc/services.ts";
import type { Executor, ExecutorListener, Exit, Health, Observation } from "./executor.ts";

type StepName = "prepare" | "run" | "inspect" | "halt" | "remove";

export class FakeExecutor implements Executor {
  /** Each step that was begun, as "name taskId". */
  readonly calls: string[] = [];
  readonly observations = new Map<string, Observation>();
  readonly fail: { [name in StepName]?: Error } = {};
  /** Awaited within a step; a test holds a step with it. */
  readonly gates: { [name in StepName]?: Promise<void> } = {};
  /** Health of what starts from now on. */
  health: Health = "none";
  /** Exit code of what is stopped from now on. */
  exitCode = 0;
  description: NodeDescription = { Hostname: "host1" };
  logLines: readonly LogMessage[] = [];
  /** Task id to why its log can't be read. */
  readonly logFailures = new Map<string, Error>();
  /** The options of each `logs` call. */
  readonly logCalls: LogOptions[] = [];
  /** Steps under way, and the most that were for one task. */
  readonly busy = new Map<string, number>();
  mostAtOnce = 0;
  #listener: ExecutorListener | undefined;
  #ready = false;
  readonly #startsReady: boolean;

  /** @param startsReady false: what there is is unknown until `becomeReady` */
  constructor(startsReady = true) {
    this.#startsReady = startsReady;
  }

  async describe(): Promise<NodeDescription> {
    return this.description;
  }

  start(listener: ExecutorListener): void {
    this.#listener = listener;
    if (this.#startsReady) this.becomeReady();
  }

  becomeReady(): void {
    this.#ready = true;
    this.#listener?.ready();
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
  }

  observe(taskId: string): Observation | undefined {
    return this.#ready ? (this.observations.get(taskId) ?? { kind: "absent" }) : undefined;
  }

  taskIds(): readonly string[] {
    return this.#ready ? [...this.observations.keys()] : [];
  }

  async prepare(task: AssignedTask, signal: AbortSignal, progress: (text: string) => void): Promise<void> {
    progress("pulling image bb:1");
    await this.#step("prepare", task.ID, signal);
    this.observations.set(task.ID, { kind: "created", containerId: `c-${task.ID}` });
  }

  async run(task: AssignedTask, signal: AbortSignal): Promise<void> {
    await this.#step("run", task.ID, signal);
    this.observations.set(task.ID, { kind: "running", containerId: `c-${task.ID}` });
  }

  async inspect(taskId: string): Promise<void> {
    await this.#step("inspect", taskId);
    const seen = this.observations.get(taskId);
    if (seen?.kind === "running") {
      this.observations.set(taskId, { ...seen, detail: { pid: 42, health: this.health, ports: undefined } });
    } else if (seen?.kind === "exited") {
      this.observations.set(taskId, { ...seen, exit: { code: this.exitCode } });
    }
  }

  async halt(taskId: string, graceNanoseconds: number | undefined): Promise<void> {
    await this.#step("halt", graceNanoseconds === undefined ? taskId : `${taskId} ${graceNanoseconds}`);
    this.exit(taskId, { code: this.exitCode });
  }

  async remove(taskId: string): Promise<void> {
    if (!this.observations.has(taskId)) return;
    await this.#step("remove", taskId);
    this.observations.delete(taskId);
  }

  async removeAll(): Promise<void> {
    this.calls.push("removeAll");
    this.observations.clear();
  }

  async *logs({ ID }: AssignedTask, options: LogOptions, signal: AbortSignal): AsyncGenerator<readonly LogMessage[]> {
    this.logCalls.push(options);
    const failure = this.logFailures.get(ID);
    if (failure) throw failure;
    yield this.logLines;
    if (options.follow) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  }

  /** The container ends by itself. */
  exit(taskId: string, exit: Exit): void {
    const seen = this.observations.get(taskId);
    if (seen?.kind === "running") this.show(taskId, { kind: "exited", containerId: seen.containerId, exit });
  }

  /** There is something new. */
  show(taskId: string, observation: Observation): void {
    this.observations.set(taskId, observation);
    this.#listener?.changed(taskId);
  }

  problem(text: string | undefined): void {
    this.#listener?.problem(text);
  }

  async #step(name: StepName, what: string, signal?: AbortSignal): Promise<void> {
    const [taskId = ""] = what.split(" ");
    this.calls.push(`${name} ${what}`);
    const busy = (this.busy.get(taskId) ?? 0) + 1;
    this.busy.set(taskId, busy);
    this.mostAtOnce = Math.max(this.mostAtOnce, busy);
    try {
      const gate = this.gates[name];
      if (gate) await (signal ? Promise.race([gate, aborts(signal)]) : gate);
      const error = this.fail[name];
      if (error) throw error;
    } finally {
      this.busy.set(taskId, busy - 1);
    }
  }
}

function aborts(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new ShoalError("Canceled", "given up")), { once: true });
  });
}
