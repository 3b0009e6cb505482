/**
 * The secrets and configs of tasks as files in their containers: made when a container is about to be created (and
 * again, should a reboot have taken them from one that has not started yet), gone when it has ended.
 *
 * Differs from Swarm: a task whose secret is not there waits and says so, instead of failing: it is on its way, because
 * after a restart of the agent the managers send all of them again. An owner that is not given is root.
 */
import { posix } from "node:path";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { expandPayload } from "../../model/expand-payload.ts";
import { type PayloadFile, type PayloadReference, payloadReferences } from "../../model/payload-references.ts";
import type { AssignedTask, Mount, NodeDescription } from "../../model/types.ts";
import type { Payloads } from "../payloads.ts";
import type { TaskFile, TaskFiles } from "./task-files.ts";

export interface TaskPayloadsOptions {
  readonly payloads: Pick<Payloads, "of">;
  readonly files: TaskFiles;
  readonly log: Logger;
}

type FileReference = PayloadReference & { readonly file: PayloadFile };

const folders = { secrets: "/run/secrets", configs: "/" } as const;
const words = { secrets: "secret", configs: "config" } as const;

export class TaskPayloads {
  readonly #options: TaskPayloadsOptions;
  /** Tasks that are being prepared: their files are there before their container is. */
  readonly #held = new Set<string>();
  /** Tasks that have files. */
  readonly #known = new Set<string>();
  /** What is done to the files of a task is done in order. */
  readonly #queues = new Map<string, Promise<void>>();

  constructor(options: TaskPayloadsOptions) {
    this.#options = options;
  }

  /** What the task's container is to mount; read-only, as it is for Swarm's. */
  mounts({ ID, Spec }: AssignedTask): Mount[] {
    return fileReferences(Spec.ContainerSpec).map(
      ({ table, file }, index): Mount => ({
        Type: "bind",
        Source: this.#options.files.path(ID, index),
        Target: posix.resolve(folders[table], file.Name ?? ""),
        ReadOnly: true,
      }),
    );
  }

  /**
   * Runs `work` (which makes the container, or starts it) with the task's files in place.
   * @param task as it was assigned: its templates not expanded
   * @throws ShoalError Unavailable while something has not come; InvalidArgument for a template that can't be expanded
   */
  async during<R>(task: AssignedTask, describe: () => Promise<NodeDescription>, work: () => Promise<R>): Promise<R> {
    const references = fileReferences(task.Spec.ContainerSpec);
    if (references.length === 0) return work();
    this.#held.add(task.ID);
    try {
      await this.#inOrder(task.ID, async () => {
        this.#known.add(task.ID);
        if (await this.#options.files.has(task.ID)) return;
        const isTemplated = references.some((reference) => this.#specOf(task, reference).Templating);
        const node = isTemplated ? await describe() : undefined;
        const files = references.map((reference) => this.#fileOf(task, reference, node));
        await this.#options.files.write(task.ID, files);
      });
      return await work();
    } finally {
      this.#held.delete(task.ID);
    }
  }

  /** The task's container has ended, or is gone. Never rejects; nothing happens while the task is being prepared. */
  async drop(taskId: string): Promise<void> {
    if (!this.#known.has(taskId)) return;
    await this.#inOrder(taskId, async () => {
      if (this.#held.has(taskId)) return;
      await this.#options.files.remove(taskId);
      this.#known.delete(taskId);
    }).catch((error) => {
      this.#options.log.warn("files of a task were not removed", { task: taskId, error: messageOf(error) });
    });
  }

  /** Removes what an earlier life of the node has left. Never rejects. */
  async keepOnly(isWanted: (taskId: string) => boolean): Promise<void> {
    try {
      for (const taskId of await this.#options.files.taskIds()) {
        this.#known.add(taskId);
        if (!isWanted(taskId)) await this.drop(taskId);
      }
    } catch (error) {
      this.#options.log.warn("files of earlier tasks were not removed", { error: messageOf(error) });
    }
  }

  clear(): Promise<void> {
    return this.#options.files.clear();
  }

  #specOf(task: AssignedTask, { table, id, name }: FileReference) {
    const spec = this.#options.payloads.of(task, table, id);
    if (spec) return spec;
    throw new ShoalError("Unavailable", `waiting for ${words[table]} ${name}, which no manager has sent yet`);
  }

  #fileOf(task: AssignedTask, reference: FileReference, node: NodeDescription | undefined): TaskFile {
    const { Mode: mode = 0, UID: uid, GID: gid } = reference.file;
    const data = this.#expanded(task, reference, node);
    return { data, uid: owner(uid, reference), gid: owner(gid, reference), mode: mode & 0o777 };
  }

  #expanded(task: AssignedTask, reference: FileReference, node: NodeDescription | undefined): Uint8Array {
    const { Data: data, Templating: templating } = this.#specOf(task, reference);
    const raw = (table: "secrets" | "configs", id: string) => {
      const spec = this.#options.payloads.of(task, table, id);
      return spec && Buffer.from(spec.Data, "base64");
    };
    const source = {
      task,
      node,
      secret: (id: string) => raw("secrets", id),
      config: (id: string) => raw("configs", id),
    };
    try {
      return expandPayload(Buffer.from(data, "base64"), templating, source).data;
    } catch (error) {
      if (!isShoalError(error)) throw error;
      const text = reference.table === "secrets" ? withoutContent(error.message) : error.message;
      const what = `failed to expand templated ${words[reference.table]} ${reference.id}`;
      throw new ShoalError(error.code, `${what}: ${text}`);
    }
  }

  #inOrder(taskId: string, work: () => Promise<void>): Promise<void> {
    const done = (this.#queues.get(taskId) ?? Promise.resolve()).then(work);
    const settled = done
      .catch(() => undefined) // its own caller hears of it
      .then(() => {
        if (this.#queues.get(taskId) === settled) this.#queues.delete(taskId);
      });
    this.#queues.set(taskId, settled);
    return done;
  }
}

function fileReferences(container: AssignedTask["Spec"]["ContainerSpec"]): FileReference[] {
  return payloadReferences(container).filter((reference): reference is FileReference => reference.file !== undefined);
}

function owner(id: string | undefined, { table, name }: FileReference): number {
  if (!id) return 0;
  // All that the kernel takes: the last number means "leave it as it is".
  if (/^\d{1,10}$/.test(id) && Number(id) < 2 ** 32 - 1) return Number(id);
  throw new ShoalError("InvalidArgument", `owner ${JSON.stringify(id)} of ${words[table]} ${name} is no number`);
}

/** Where in a template it went wrong, without the words of the template, which are secret. */
function withoutContent(text: string): string {
  const place = /^template: expansion(?::\d+)*/.exec(text)?.[0];
  return place === undefined ? text : `${place}: not shown, for it is secret`;
}
