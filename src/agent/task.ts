/**
 * One task on this node: takes the steps of task-plan.ts, strictly one at a time, until there is nothing to do. It is
 * woken by a new assignment, by a change of what there is, and by its own timer after a failure; what woke it does
 * not matter.
 *
 * - Reported states only grow.
 * - A failure that another try may mend (the Engine can't be reached) is tried again with growing delays, and is
 *   shown in the status meanwhile; so is a step that takes long, and a container that is not healthy yet. No task waits
 *   without a text that says for what, and that text is in `Err`, which is what users see. A text alone is no new state:
 *   the status keeps the time since when it is in it.
 * - Any other failure ends the task: REJECTED before STARTING, FAILED from there on. Stopping and removing never give
 *   up.
 *
 * Differs from Swarm: no fixed second between tries, and a wish to stop does not wait for the preparation to end.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, rfc3339, type Timer } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { isTerminal, rank, type TaskState } from "../model/state.ts";
import type { AssignedTask, TaskStatus } from "../model/types.ts";
import type { Executor, Observation } from "./executor/executor.ts";
import { withheld } from "./task-database.ts";
import { nextStep, type Step } from "./task-plan.ts";

/** From the first retry (a restarting Engine) to the last (one that is gone for the day). */
const retry = { baseMs: 100, maxMs: 8000 };

/** What takes longer says so in the task's status. */
const slowAfterMs = 5000;

const unhealthyYet = "waiting for the container's first successful health check";

/** After a restart of the daemon, which keeps them nowhere. */
const awaitsCredentials = "waiting for a manager to send the credentials of the registry again";

export interface TaskRunnerOptions {
  readonly executor: Executor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /**
   * Withdraws the task from its networks; bounded, so that its end never waits for long. Absent where this node has no
   * data plane.
   */
  readonly withdraw?: ((task: AssignedTask, signal: AbortSignal) => Promise<void>) | undefined;
  /** A new status, to be stored and reported. */
  readonly report: (runner: TaskRunner) => void;
  /** The task is retired, and nothing is left of it. */
  readonly gone: (runner: TaskRunner) => void;
}

export class TaskRunner {
  readonly taskId: string;
  readonly #options: TaskRunnerOptions;
  readonly #backoff: Backoff;
  /** Undefined for a container of ours whose task nobody knows: it is only cleared away. */
  #task: AssignedTask | undefined;
  #status: TaskStatus;
  #retired = false;
  #stopped = false;
  #cause: string | undefined;
  /** Nothing leads to it any more, or that has been waited for long enough. */
  #withdrawn = false;
  /** Why no step succeeds; shown in the status. */
  #trouble: string | undefined;
  /** Why no step can succeed, as the executor says. */
  #outage: string | undefined;
  /** What it has been waiting for, for long by now. */
  #slow: string | undefined;
  /** Until the wait for its health is long. */
  #healthWait: Timer | undefined;
  #running: Promise<void> | undefined;
  #woken = false;
  #retry: Timer | undefined;
  /** Ends the preparation under way, or the wait for a start. */
  #abort: AbortController | undefined;
  /** Ends the wait for its connections' end. */
  #withdrawal: AbortController | undefined;

  constructor(taskId: string, task: AssignedTask | undefined, status: TaskStatus, options: TaskRunnerOptions) {
    this.taskId = taskId;
    this.#task = task;
    this.#status = status;
    this.#options = options;
    this.#backoff = new Backoff(retry, options.random);
  }

  get task(): AssignedTask | undefined {
    return this.#task;
  }

  /** The last status that this node reported (or, before the first, what the manager sent). */
  get status(): TaskStatus {
    return this.#status;
  }

  get retired(): boolean {
    return this.#retired;
  }

  /** What there is of it. */
  get observed(): Observation | undefined {
    return this.#options.executor.observe(this.taskId);
  }

  /** A new assignment of the same task. */
  update(task: AssignedTask): void {
    this.#task = task;
    // A manager may have ended it by itself (a node that counted as down): then it is over here too.
    if (rank(task.Status.State) > rank(this.#status.State)) this.#status = task.Status;
    if (rank(task.DesiredState) >= rank("shutdown")) this.#giveUpStart();
    this.wake();
  }

  /** The task is no longer ours: clear it away. */
  retire(): void {
    this.#retired = true;
    this.#giveUpStart();
    this.wake();
  }

  /** The executor can't do anything at present (text), or can again (undefined). */
  outage(text: string | undefined): void {
    this.#outage = text;
    this.#showTrouble();
    if (text === undefined) this.wake();
  }

  wake(): void {
    if (this.#stopped) return;
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#woken = true;
    if (this.observed?.kind !== "running") this.#endWithdrawal("the container has ended");
    this.#running ??= this.#run();
  }

  /** Stops looking after the task, which runs on; resolves when the step under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#healthWait?.cancel();
    this.#giveUpStart();
    this.#endWithdrawal("the agent stops");
    await this.#running;
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // what wakes it in the same turn is one look
    try {
      while (this.#woken && !this.#stopped) {
        const step = this.#next();
        this.#watchHealth();
        if (step.kind === "rest") this.#woken = false;
        else if (!(await this.#perform(step))) return;
      }
    } finally {
      this.#running = undefined;
    }
  }

  #next(): Step {
    const desired = this.#task?.DesiredState ?? "remove";
    const { observed } = this;
    const led = !this.#withdrawn && this.#options.withdraw !== undefined && hasAddresses(this.#task);
    return nextStep({ desired, retired: this.#retired, state: this.#status.State, observed, cause: this.#cause, led });
  }

  /** @returns false when there is nothing more to do for now (a retry is set, or it is gone) */
  async #perform(step: Exclude<Step, { kind: "rest" }>): Promise<boolean> {
    try {
      await this.#take(step);
    } catch (error) {
      return this.#failed(step, error);
    }
    if (step.kind === "forget") {
      this.#stopped = true;
      this.#options.gone(this);
      return false;
    }
    this.#backoff.reset();
    if (this.#trouble !== undefined) {
      this.#trouble = undefined;
      this.#showTrouble();
    }
    return true;
  }

  async #take(step: Exclude<Step, { kind: "rest" }>): Promise<void> {
    const { executor } = this.#options;
    switch (step.kind) {
      case "report":
        this.#report(step.state, step.message, step.err);
        return;
      case "prepare":
        // Without them its pull would be refused for good.
        if (this.#task?.RegistryAuth === withheld) throw new ShoalError("Unavailable", awaitsCredentials);
        return this.#begin((task, signal, progress) => executor.prepare(task, signal, progress));
      case "run":
        return this.#begin((task, signal, progress) => {
          progress("waiting for the Docker Engine to start the container");
          return executor.run(task, signal);
        });
      case "inspect":
        return executor.inspect(this.taskId);
      case "withdraw":
        this.#cause ??= step.cause;
        return this.#withdraw();
      case "halt":
        this.#cause ??= step.cause;
        return executor.halt(this.taskId, this.#task?.Spec.ContainerSpec?.StopGracePeriod);
      case "remove":
      case "forget": // there is nothing left: the executor drops what it remembers of it
        return executor.remove(this.taskId);
    }
  }

  async #withdraw(): Promise<void> {
    const task = this.#task;
    this.#withdrawal = new AbortController();
    try {
      if (task) await this.#options.withdraw?.(task, this.#withdrawal.signal);
    } finally {
      this.#withdrawal = undefined;
      this.#withdrawn = true;
    }
  }

  #endWithdrawal(why: string): void {
    this.#withdrawal?.abort(new ShoalError("Canceled", why));
  }

  /** A step towards running: it can be given up, and says what it waits for when that takes long. */
  async #begin(
    work: (task: AssignedTask, signal: AbortSignal, progress: (text: string) => void) => Promise<void>,
  ): Promise<void> {
    const task = this.#task;
    if (!task) return;
    this.#abort = new AbortController();
    let doing = "";
    let isSlow = false;
    const show = () => {
      if (!isSlow || !doing) return;
      this.#slow = doing;
      this.#showTrouble();
    };
    const slow = this.#options.clock.after(slowAfterMs, () => {
      isSlow = true;
      show();
    });
    try {
      await work(task, this.#abort.signal, (text) => {
        doing = text;
        show();
      });
    } finally {
      slow.cancel();
      this.#slow = undefined;
      this.#abort = undefined;
    }
  }

  /** A container that runs, but has not shown yet that it is healthy, says so when that takes long. */
  #watchHealth(): void {
    const { observed } = this;
    const waits =
      this.#status.State === "starting" && observed?.kind === "running" && observed.detail?.health === "starting";
    if (!waits) {
      this.#healthWait?.cancel();
      this.#healthWait = undefined;
      if (this.#slow === unhealthyYet) this.#slow = undefined;
      return;
    }
    this.#healthWait ??= this.#options.clock.after(slowAfterMs, () => {
      this.#slow = unhealthyYet;
      this.#showTrouble();
    });
  }

  #unwanted(): boolean {
    return this.#retired || this.#stopped || rank(this.#task?.DesiredState ?? "remove") >= rank("shutdown");
  }

  #giveUpStart(): void {
    this.#abort?.abort(new ShoalError("Canceled", "the task is no longer wanted"));
  }

  #failed(step: Step, error: unknown): boolean {
    const canceled = isShoalError(error, "Canceled");
    if (canceled && this.#unwanted()) return !this.#stopped; // given up: look again at what is wanted
    const lasting = step.kind === "prepare" || step.kind === "run";
    if (lasting && !canceled && !isShoalError(error, "Unavailable")) {
      const started = step.kind === "run";
      const err = started ? `starting container failed: ${messageOf(error)}` : messageOf(error);
      this.#report(started ? "failed" : "rejected", undefined, err);
      return true;
    }
    this.#options.log.debug("a task's step failed, it is tried again", {
      task: this.taskId,
      step: step.kind,
      error: messageOf(error),
    });
    this.#trouble = messageOf(error);
    this.#showTrouble();
    this.#woken = false;
    this.#retry = this.#options.clock.after(this.#backoff.nextMs(), () => this.wake());
    return false;
  }

  /** Shows why it does not get on, or takes that back, without changing the state. */
  #showTrouble(): void {
    const err = this.#trouble ?? this.#outage ?? this.#slow;
    const { State } = this.#status;
    if (this.#retired || isTerminal(State) || rank(State) < rank("accepted") || err === this.#status.Err) return;
    const message = this.#slow === undefined ? "" : `: ${this.#slow}`;
    this.#report(State, baseMessage(this.#status) + message, err);
  }

  #report(state: TaskState, message: string | undefined, err: string | undefined): void {
    const ports = this.observed?.kind === "running" ? this.observed.detail?.ports : undefined;
    const { Timestamp: since, State: before } = this.#status;
    this.#status = {
      Timestamp: state === before && since ? since : rfc3339(this.#options.clock.now()),
      State: state,
      Message: message ?? baseMessage(this.#status),
      ...(err ? { Err: err } : {}),
      ...this.#containerStatus(),
      ...(ports ? { PortStatus: ports } : {}),
    };
    this.#options.report(this);
  }

  #containerStatus(): Pick<TaskStatus, "ContainerStatus"> {
    const before = this.#status.ContainerStatus;
    const { observed } = this;
    switch (observed?.kind) {
      case "created":
        return { ContainerStatus: { ContainerID: observed.containerId } };
      case "running":
        return { ContainerStatus: { ContainerID: observed.containerId, PID: observed.detail?.pid ?? before?.PID } };
      case "exited":
        return { ContainerStatus: { ContainerID: observed.containerId, ExitCode: observed.exit?.code } };
      case "absent":
        return before
          ? { ContainerStatus: { ...before, ...(observed.exit ? { ExitCode: observed.exit.code } : {}) } }
          : {};
      case undefined:
        return before ? { ContainerStatus: before } : {};
    }
  }
}

/** The managers have given it addresses, which others are led to. */
function hasAddresses(task: AssignedTask | undefined): boolean {
  return task?.Networks.some(({ Addresses }) => Addresses.length > 0) ?? false;
}

/** The message of the state alone: "preparing", without what it is slow at. */
function baseMessage(status: TaskStatus): string {
  return (status.Message ?? "").split(": ")[0] ?? "";
}
