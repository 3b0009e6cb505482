/**
 * Users' containers on attachable networks of the swarm. Each has a task of its own, without a service, that holds its
 * address, from before the container is made until it is removed or disconnected; also over a restart of the daemon.
 *
 * Differs from Swarm, where a container has an address only while it runs: here it keeps it over a stop.
 */
import { within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import type { Random } from "../lib/random.ts";
import { isTerminal, rank } from "../model/state.ts";
import type { AssignedTask, TaskStatus } from "../model/types.ts";
import type { ContainerNetwork } from "../network/plane.ts";
import type { AttachRequest } from "../rpc/services.ts";
import { Attachment, type AttachmentParts, detachFrom } from "./attachment.ts";

/** As Swarm's: from the question to the manager until the network is there. */
const attachWithinMs = 20_000;
/** Swarm's words. */
const tooLate =
  "attaching to network failed, make sure your network options are correct and check manager logs: context deadline exceeded";

/** A container that is to be made or connected; without its id where it has none yet. */
export type AttachmentRequest = Omit<AttachRequest, "containerId"> & { readonly containerId?: string };

/** An address that waits for its container: `bind` it, or `release` it. */
export interface NewAttachment {
  readonly taskId: string;
  readonly network: ContainerNetwork;
  readonly nameserver: string;
}

/** What the API needs to put users' containers on networks of the swarm. */
export interface ContainerAttachments {
  /** Whether any container of this node has, or is about to get, an address of the swarm. */
  readonly any: boolean;
  /**
   * Gets an address on the network from a manager, and the network onto this node.
   * @throws what the manager answers: NotFound for no such network, PermissionDenied for one that is not attachable
   */
  attach(request: AttachmentRequest, signal: AbortSignal): Promise<NewAttachment>;
  /** The container is made, or connected: the address is its own. Resolves when it can look up names. */
  bind(taskId: string, containerId: string): Promise<void>;
  /** Nothing came of it; unless there is a container all the same (its maker's answer was lost), the address is freed. */
  release(taskId: string): Promise<void>;
  /** The container may have been removed or disconnected: resolves when the addresses that it lost are free. */
  look(containerId: string): Promise<void>;
  /** The task that has the container's address on a network of the swarm, by its name or id. */
  taskOn(network: string, containerId: string): string | undefined;
}

export interface AttachmentsOptions extends AttachmentParts {
  readonly random: Random;
}

/** Whether the task is for a user's container. */
export function isAttachment(task: AssignedTask): boolean {
  return task.Spec.NetworkAttachmentSpec !== undefined;
}

export class Attachments implements ContainerAttachments {
  readonly #options: AttachmentsOptions;
  readonly #attachments = new Map<string, Attachment>();
  /** Tasks that `attach` waits for, and who is told when one has come. */
  readonly #awaited = new Map<string, (task: AssignedTask) => void>();
  /** Calls of managers under way: the task may be here before its id is known. */
  #asking = 0;
  readonly #end = new AbortController();
  /** What containers there are is known. */
  #known = false;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#options.containers.start({
      anyChanged: () => {
        this.#known = true;
        for (const attachment of this.#attachments.values()) void attachment.look();
      },
      changed: (containerId) => void this.look(containerId),
      started: (containerId) => {
        if (this.#of(containerId).length > 0) void this.#leadNames(containerId);
      },
    });
  }

  async stop(): Promise<void> {
    this.#end.abort(new ShoalError("Canceled", "the agent stops"));
    await this.#options.containers.stop();
    await Promise.all([...this.#attachments.values()].map((attachment) => attachment.end()));
  }

  get any(): boolean {
    return this.#attachments.size > 0 || this.#asking > 0;
  }

  /** A task that a manager has assigned, or that was known before the daemon's start. */
  update(task: AssignedTask, status: TaskStatus = task.Status): void {
    const known = this.#attachments.get(task.ID);
    if (known) known.update(task);
    else {
      const making = this.#awaited.has(task.ID) ? "yes" : this.#asking > 0 ? "perhaps" : "no";
      const attachment = new Attachment(task, status, making, {
        ...this.#options,
        known: () => this.#known,
        gone: (taskId) => this.#attachments.delete(taskId),
        signal: this.#end.signal,
      });
      this.#attachments.set(task.ID, attachment);
      void attachment.look();
    }
    this.#awaited.get(task.ID)?.(task);
  }

  /** The task is no longer assigned to this node. */
  remove(taskId: string): void {
    this.#attachments.get(taskId)?.remove();
  }

  /** Ids of the tasks that are assigned. */
  *taskIds(): Generator<string> {
    for (const [taskId, { removed }] of this.#attachments) if (!removed) yield taskId;
  }

  /** The last status of a task; undefined where there is none. */
  statusOf(taskId: string): TaskStatus | undefined {
    return this.#attachments.get(taskId)?.status;
  }

  /** Tells everything again: a new session's manager may have missed some of it. */
  reportAll(): void {
    for (const { task, status, removed } of this.#attachments.values()) {
      if (!removed && rank(status.State) >= rank("running")) this.#options.report(task, status);
    }
  }

  async attach(request: AttachmentRequest, signal: AbortSignal): Promise<NewAttachment> {
    const { clock, random, manager } = this.#options;
    // The container may have no id yet; what the task is asked with need only be nobody else's.
    const wanted = { ...request, containerId: request.containerId ?? newId(random) };
    const limit = new AbortController();
    try {
      const made = this.#make(wanted, AbortSignal.any([signal, limit.signal]));
      return await within(clock, attachWithinMs, made, () => {
        if (!manager.connection) throw new ShoalError("Unavailable", "this node has no connection to a manager");
        throw new ShoalError("DeadlineExceeded", tooLate);
      });
    } finally {
      limit.abort(new ShoalError("Canceled", "the container is given up"));
    }
  }

  async #make(wanted: AttachRequest, signal: AbortSignal): Promise<NewAttachment> {
    const { taskId, arrival } = await this.#ask(wanted, signal);
    try {
      const { networks, nameserver } = await this.#options.plane.attach(await arrival, signal);
      const [network] = networks;
      if (!network) throw new ShoalError("Internal", "the data plane has no network for the container");
      signal.throwIfAborted();
      return { taskId, network, nameserver };
    } catch (error) {
      await this.release(taskId);
      throw error;
    }
  }

  /** The task is claimed in the same turn in which its id is known. */
  async #ask(wanted: AttachRequest, signal: AbortSignal) {
    this.#asking++;
    try {
      const { manager } = this.#options;
      const { taskId } = await manager.call((connection) => connection.attach(wanted, signal), signal);
      const here = this.#attachments.get(taskId);
      if (here) here.making = "yes";
      const task = here ? Promise.resolve(here.task) : this.#arrival(taskId, signal);
      return { taskId, arrival: task };
    } finally {
      this.#asking--;
      if (this.#asking === 0) this.#claimed();
    }
  }

  /** Every call has been answered: what nobody has claimed by now is in nobody's making. */
  #claimed(): void {
    for (const attachment of this.#attachments.values()) {
      if (attachment.making !== "perhaps") continue;
      attachment.making = "no";
      void attachment.look();
    }
  }

  #arrival(taskId: string, signal: AbortSignal): Promise<AssignedTask> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAbort = () => {
        this.#awaited.delete(taskId);
        reject(signal.reason);
      };
      this.#awaited.set(taskId, (task) => {
        this.#awaited.delete(taskId);
        signal.removeEventListener("abort", onAbort);
        resolve(task);
      });
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  async bind(taskId: string, containerId: string): Promise<void> {
    await this.#attachments.get(taskId)?.bind(containerId);
    await this.#leadNames(containerId);
  }

  async release(taskId: string): Promise<void> {
    const attachment = this.#attachments.get(taskId);
    if (attachment) {
      attachment.making = "no";
      await attachment.look();
    } else await detachFrom(this.#options, taskId);
  }

  async look(containerId: string): Promise<void> {
    const attached = () => this.#of(containerId).filter(({ status }) => !isTerminal(status.State)).length;
    const before = attached();
    await Promise.all(this.#of(containerId).map((attachment) => attachment.look()));
    // Perhaps by another network than before, or by none.
    if (attached() < before) await this.#leadNames(containerId);
  }

  taskOn(network: string, containerId: string): string | undefined {
    for (const { task, status } of this.#of(containerId)) {
      const [on] = task.Networks;
      if (isTerminal(status.State)) continue;
      if (on?.Network.ID === network || on?.Network.Name === network) return task.ID;
    }
    return undefined;
  }

  /** By the first of its networks; the container's own server where it is on none. */
  async #leadNames(containerId: string): Promise<void> {
    const first = this.#of(containerId).find(({ status }) => !isTerminal(status.State));
    if (first) return await first.leadNames();
    try {
      await this.#options.containers.leaveNames(containerId);
    } catch (error) {
      const context = { containerId, error: messageOf(error) };
      this.#options.log.warn("a container still asks the swarm's name server", context);
    }
  }

  #of(containerId: string): Attachment[] {
    return [...this.#attachments.values()].filter((attachment) => attachment.containerId === containerId);
  }
}
