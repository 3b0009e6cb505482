/**
 * One container of a user on one network of the swarm, and the task that holds its address: makes the two agree. Looks
 * at what there is each time that something may have changed, one look at a time; what gave reason does not matter.
 *
 * Invariant: the task ends when no container has its address (and nobody is making one); a container whose task is not
 * wanted any more is taken off the network before the task ends here, for its address may be somebody else's then.
 */
import { type Clock, rfc3339, type Timer, within } from "../lib/clock.ts";
import { isShoalError, messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { addressOf } from "../model/networks.ts";
import { isTerminal, rank } from "../model/state.ts";
import type { AssignedTask, TaskStatus } from "../model/types.ts";
import type { NetworkPlane } from "../network/plane.ts";
import type { UserContainers } from "./executor/user-containers.ts";
import type { PresentManager } from "./present-manager.ts";

/** For the manager's answer to a detach; without one the task's status says the same later. */
const detachWithinMs = 5_000;
/** After a look that the Engine did not answer: the event that was its reason does not come again. */
const lookAgainMs = 10_000;

export interface AttachmentParts {
  readonly containers: UserContainers;
  readonly plane: NetworkPlane;
  readonly manager: PresentManager;
  /** A new status, to be stored and reported. */
  readonly report: (task: AssignedTask, status: TaskStatus) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface AttachmentOptions extends AttachmentParts {
  /** Whether it is known what containers there are. */
  readonly known: () => boolean;
  /** It is no longer assigned, and nothing is left of it. */
  readonly gone: (taskId: string) => void;
  /** Nothing begins after it. */
  readonly signal: AbortSignal;
}

export class Attachment {
  readonly #options: AttachmentOptions;
  #task: AssignedTask;
  #status: TaskStatus;
  /** The manager no longer has it. */
  #removed = false;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  /** The next look after one that has failed. */
  #retry: Timer | undefined;
  /** Whether somebody is making its container: perhaps, as long as a manager has yet to say what task it has made. */
  making: "yes" | "perhaps" | "no";

  constructor(task: AssignedTask, status: TaskStatus, making: "yes" | "perhaps" | "no", options: AttachmentOptions) {
    this.#task = task;
    this.#status = status;
    this.making = making;
    this.#options = options;
  }

  get task(): AssignedTask {
    return this.#task;
  }

  get status(): TaskStatus {
    return this.#status;
  }

  get removed(): boolean {
    return this.#removed;
  }

  /** The container that has the address, as far as it is known. */
  get containerId(): string | undefined {
    return this.#status.ContainerStatus?.ContainerID || undefined;
  }

  update(task: AssignedTask): void {
    this.#task = task;
    this.#removed = false;
    if (rank(task.Status.State) > rank(this.#status.State)) this.#status = task.Status;
    void this.look();
  }

  remove(): void {
    this.#removed = true;
    void this.look();
  }

  /** Its container is made. */
  async bind(containerId: string): Promise<void> {
    this.making = "no";
    this.#running(containerId);
    if (this.#isUnwanted()) await this.look();
  }

  /** Resolves when nothing is left to do, or can be done. Never rejects. */
  async look(): Promise<void> {
    this.#lookAgain = true;
    this.#looking ??= this.#lookUntilDone();
    await this.#looking;
  }

  /** Nothing begins any more: resolves when no look is under way. */
  async end(): Promise<void> {
    await this.#looking;
    this.#retry?.cancel();
  }

  /** The container's names are looked up at the swarm's server. Never rejects: it has its address in any case. */
  async leadNames(): Promise<void> {
    const { plane, containers, log, signal } = this.#options;
    const { containerId } = this;
    if (containerId === undefined || this.#isUnwanted()) return;
    try {
      const { nameserver } = await plane.attach(this.#task, signal);
      const address = addressOf(this.#task.Networks[0]?.Addresses[0] ?? "");
      await containers.leadNames(containerId, { nameserver, address });
    } catch (error) {
      const context = { containerId, error: messageOf(error) };
      if (!signal.aborted) log.warn("a container can't look up the swarm's names", context);
    }
  }

  async #lookUntilDone(): Promise<void> {
    const { clock, known, log, signal } = this.#options;
    await Promise.resolve(); // what gives reason to look in the same turn is one look
    while (this.#lookAgain && !signal.aborted) {
      this.#lookAgain = false;
      if (!known() || this.making !== "no") continue;
      this.#retry?.cancel();
      try {
        await this.#settle();
      } catch (error) {
        const context = { task: this.#task.ID, error: messageOf(error) };
        log.warn("a container on a network of the swarm can't be looked at", context);
        this.#retry = clock.after(lookAgainMs, () => void this.look());
      }
    }
    this.#looking = undefined;
  }

  async #settle(): Promise<void> {
    const { containers, log, gone } = this.#options;
    const taskId = this.#task.ID;
    const containerId = await this.#container();
    if (containerId !== undefined && !this.#isUnwanted()) return this.#running(containerId);
    if (containerId !== undefined) {
      log.info("a container is taken off a network of the swarm", { task: taskId, containerId });
      await containers.disconnect(containerId, taskId);
    }
    if (this.#removed) gone(taskId);
    else if (!isTerminal(this.#status.State)) await this.#finish();
  }

  /** The container that has the address; undefined where there is none, or where it has it no longer. */
  async #container(): Promise<string | undefined> {
    const { containers } = this.#options;
    const { containerId } = this;
    if (containerId === undefined) return await containers.find(this.#task.ID);
    return (await containers.tasksOf(containerId))?.includes(this.#task.ID) ? containerId : undefined;
  }

  #running(containerId: string): void {
    const { State } = this.#status;
    if (isTerminal(State) || (State === "running" && this.containerId === containerId)) return;
    this.#report({ State: "running", Message: "attached", ContainerStatus: { ContainerID: containerId } });
  }

  /** No container has the address any more: the manager frees it. */
  async #finish(): Promise<void> {
    const { ContainerStatus } = this.#status;
    const wished = this.#isUnwanted();
    if (!wished && (await this.#detach())) {
      // It is deleted there: nobody asks for its status any more.
      this.#status = { ...this.#status, State: "complete" };
      return;
    }
    const State = wished ? "shutdown" : "complete";
    this.#report({ State, Message: "detached", ...(ContainerStatus && { ContainerStatus }) });
  }

  #detach(): Promise<boolean> {
    return detachFrom(this.#options, this.#task.ID);
  }

  /** It may not have its address any more. */
  #isUnwanted(): boolean {
    const { DesiredState, Status } = this.#task;
    return this.#removed || rank(DesiredState) >= rank("shutdown") || isTerminal(Status.State);
  }

  #report(status: Omit<TaskStatus, "Timestamp">): void {
    this.#status = { Timestamp: rfc3339(this.#options.clock.now()), ...status };
    if (!this.#removed) this.#options.report(this.#task, this.#status);
  }
}

/** Tells a manager that nobody needs the task's address; whether it has taken note. Never rejects. */
export async function detachFrom(
  { manager, clock, log }: Pick<AttachmentParts, "manager" | "clock" | "log">,
  taskId: string,
): Promise<boolean> {
  if (!manager.connection) return false;
  const limit = new AbortController();
  try {
    return await within(
      clock,
      detachWithinMs,
      manager.call((connection) => connection.detach(taskId, limit.signal), limit.signal).then(() => true),
      () => false,
    );
  } catch (error) {
    if (!isShoalError(error, "Canceled")) log.info("no manager frees an address now", { error: messageOf(error) });
    return false;
  } finally {
    limit.abort();
  }
}
