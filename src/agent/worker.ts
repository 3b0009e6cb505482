/**
 * The tasks of this node: one TaskRunner each, made by assignments or found in the task database, gone when the
 * manager (or a COMPLETE set without it) says so and nothing is left of it.
 *
 * Invariant: nothing is cleared away for not being assigned before a manager has sent a COMPLETE set; without a
 * manager, whatever ran goes on, also over a restart of the daemon.
 */
import { type Clock, rfc3339 } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { rank } from "../model/state.ts";
import type { AssignedTask, TaskStatus } from "../model/types.ts";
import type { AssignmentsMessage } from "../rpc/services.ts";
import { type Attachments, isAttachment } from "./attachments.ts";
import type { Executor } from "./executor/executor.ts";
import type { Payloads } from "./payloads.ts";
import type { StatusReporter } from "./reporter.ts";
import { TaskRunner } from "./task.ts";
import type { TaskDatabase } from "./task-database.ts";
import type { Withdrawals } from "./withdrawals.ts";

export interface WorkerOptions {
  readonly executor: Executor;
  readonly database: TaskDatabase;
  readonly reporter: StatusReporter;
  readonly payloads: Payloads;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Both are absent where the node has no data plane. */
  readonly withdrawals?: Withdrawals | undefined;
  readonly attachments?: Attachments | undefined;
  /** As `ExecutorListener.problem`. */
  readonly onProblem: (text: string | undefined) => void;
}

export class Worker {
  readonly #options: WorkerOptions;
  readonly #runners = new Map<string, TaskRunner>();
  /** Assignments of tasks that are still being cleared away from an earlier time. */
  readonly #comingBack = new Map<string, AssignedTask>();
  readonly #watchers = new Set<(taskId: string) => void>();
  /** A manager has said what is ours. */
  #complete = false;
  #stopped = false;
  #outage: string | undefined;
  /** Version that the last assignments lead to; undefined before the first. */
  #version: string | undefined;

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  /** Takes up the tasks of the database, and begins to look at what there is. */
  start(): void {
    const { database, executor } = this.#options;
    for (const { task, status } of database.load()) {
      if (isAttachment(task)) this.#options.attachments?.update(task, status);
      else this.#add(task, status);
    }
    executor.start({
      ready: () => this.#ready(),
      changed: (taskId) => this.#changed(taskId),
      problem: (text) => this.#problem(text),
    });
  }

  /** Leaves the tasks alone; what runs goes on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#options.executor.stop();
    await Promise.all([...this.#runners.values()].map((runner) => runner.stop()));
  }

  /** The tasks that are assigned to this node. */
  *tasks(): Generator<TaskRunner> {
    for (const runner of this.#runners.values()) if (!runner.retired) yield runner;
  }

  task(taskId: string): TaskRunner | undefined {
    return this.#runners.get(taskId);
  }

  /** Calls `watcher` with the id of each task that changes; the answer ends it. */
  watch(watcher: (taskId: string) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Hands every status to the reporter again: a new session's manager may have missed some. */
  reportAll(): void {
    for (const runner of this.tasks()) {
      if (rank(runner.status.State) >= rank("accepted")) this.#options.reporter.report(runner.taskId, runner.status);
    }
    this.#options.attachments?.reportAll();
  }

  /** @returns false when the message does not follow the last one and nothing was done: ask for a COMPLETE set */
  assign(message: AssignmentsMessage): boolean {
    if (message.type === "incremental" && message.appliesTo !== this.#version) return false;
    this.#version = message.resultsIn;
    this.#options.payloads.assign(message); // before the tasks that need them
    const assigned = new Set<string>();
    for (const change of message.changes) {
      switch (change.kind) {
        case "update-task":
          assigned.add(change.task.ID);
          this.#update(change.task);
          break;
        case "remove-task":
          this.#remove(change.id);
          break;
      }
    }
    if (message.type === "complete") this.#keepOnly(assigned);
    return true;
  }

  #update(task: AssignedTask): void {
    const runner = this.#runners.get(task.ID);
    if (isAttachment(task)) this.#attach(task);
    else if (runner?.retired) this.#comingBack.set(task.ID, task);
    else if (runner) {
      runner.update(task);
      this.#options.database.put({ task, status: runner.status });
    } else this.#add(task, task.Status).wake();
  }

  /** A task for a user's container. */
  #attach(task: AssignedTask): void {
    const { attachments, database } = this.#options;
    attachments?.update(task);
    database.put({ task, status: attachments?.statusOf(task.ID) ?? task.Status });
  }

  #remove(taskId: string): void {
    this.#options.attachments?.remove(taskId);
    this.#comingBack.delete(taskId);
    this.#runners.get(taskId)?.retire();
    this.#options.database.delete(taskId);
    this.#options.reporter.forget(taskId);
    this.#tell(taskId);
  }

  #keepOnly(assigned: ReadonlySet<string>): void {
    this.#complete = true;
    const attached = this.#options.attachments?.taskIds() ?? [];
    for (const taskId of [...this.#runners.keys(), ...this.#comingBack.keys(), ...attached]) {
      if (!assigned.has(taskId)) this.#remove(taskId);
    }
    this.#clearStrays();
  }

  #clearStrays(): void {
    for (const taskId of this.#options.executor.taskIds()) this.#clearStray(taskId);
  }

  #add(task: AssignedTask, status: TaskStatus): TaskRunner {
    const { database } = this.#options;
    const runner = this.#runner(task.ID, task, status);
    database.put({ task, status: runner.status });
    return runner;
  }

  /** A container of this node whose task is not ours: what an earlier life of the node left behind. */
  #clearStray(taskId: string): void {
    if (!this.#complete || this.#runners.has(taskId)) return;
    this.#options.log.info("removing a container whose task is not assigned to this node", { task: taskId });
    const status: TaskStatus = { Timestamp: rfc3339(this.#options.clock.now()), State: "new" };
    this.#runner(taskId, undefined, status).retire();
  }

  #runner(taskId: string, task: AssignedTask | undefined, status: TaskStatus): TaskRunner {
    const { executor, withdrawals, clock, random, log } = this.#options;
    const runner = new TaskRunner(taskId, task, status, {
      executor,
      clock,
      random,
      log,
      withdraw: withdrawals && ((withdrawn, signal) => withdrawals.withdraw(withdrawn, signal)),
      report: (reporting) => this.#report(reporting),
      gone: (gone) => this.#gone(gone),
    });
    this.#runners.set(taskId, runner);
    if (this.#outage) runner.outage(this.#outage);
    return runner;
  }

  #report(runner: TaskRunner): void {
    if (runner.retired || !runner.task) return;
    this.reportStatus(runner.task, runner.status);
    this.#tell(runner.taskId);
  }

  /** Keeps and reports a task's new status. */
  reportStatus(task: AssignedTask, status: TaskStatus): void {
    this.#options.database.put({ task, status });
    this.#options.reporter.report(task.ID, status);
  }

  #gone({ taskId }: TaskRunner): void {
    this.#runners.delete(taskId);
    const task = this.#comingBack.get(taskId);
    this.#comingBack.delete(taskId);
    if (task) this.#update(task);
  }

  #ready(): void {
    for (const runner of this.#runners.values()) runner.wake();
    this.#clearStrays();
  }

  #changed(taskId: string): void {
    if (this.#stopped) return;
    const runner = this.#runners.get(taskId);
    if (runner) runner.wake();
    else if (this.#options.executor.observe(taskId)?.kind !== "absent") this.#clearStray(taskId);
    this.#tell(taskId);
  }

  #problem(text: string | undefined): void {
    this.#outage = text;
    for (const runner of this.#runners.values()) runner.outage(text);
    this.#options.onProblem(text);
  }

  #tell(taskId: string): void {
    for (const watcher of this.#watchers) watcher(taskId);
  }
}
