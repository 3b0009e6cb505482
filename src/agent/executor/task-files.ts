/**
 * The files of this node's tasks that must not be on a disk: one directory per task, below one per node, in memory
 * (a tmpfs) that the agent and its Engine both see. The Engine mounts them into containers one by one.
 *
 * Invariant: a task's directory is there with all its files or not at all, and nothing is written where a tmpfs is not.
 */
import { chmod, chown, mkdir, readdir, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";

export interface TaskFile {
  readonly data: Uint8Array;
  readonly uid: number;
  readonly gid: number;
  /** Permissions: 0o444 ... */
  readonly mode: number;
}

export interface TaskFiles {
  /** Where the task's file of that number is, once it is there. */
  path(taskId: string, index: number): string;
  has(taskId: string): Promise<boolean>;
  /** In place of what was there. Unavailable where they can't be kept in memory. */
  write(taskId: string, files: readonly TaskFile[]): Promise<void>;
  /** Repeatable. */
  remove(taskId: string): Promise<void>;
  /** Tasks of this node that have files. The first call comes before any `write`. */
  taskIds(): Promise<readonly string[]>;
  /** All of this node. */
  clear(): Promise<void>;
}

export interface TmpfsOptions {
  /** Of all nodes of this machine. */
  readonly directory: string;
  readonly nodeId: string;
  /** Mounts a tmpfs there; called only where there is none. */
  readonly mount: (directory: string) => Promise<void>;
}

/** What statfs says of a tmpfs. */
const tmpfsType = 0x01021994;

export class TmpfsTaskFiles implements TaskFiles {
  readonly #options: TmpfsOptions;
  readonly #own: string;
  /** What a crash has left half written is gone. */
  #isClean = false;

  constructor(options: TmpfsOptions) {
    this.#options = options;
    this.#own = join(options.directory, options.nodeId);
  }

  path(taskId: string, index: number): string {
    return join(this.#own, taskId, String(index));
  }

  async has(taskId: string): Promise<boolean> {
    return !(await isMissing(stat(join(this.#own, taskId))));
  }

  async write(taskId: string, files: readonly TaskFile[]): Promise<void> {
    await this.#requireTmpfs();
    const unfinished = join(this.#own, `${unfinishedMark}${taskId}`);
    await rm(unfinished, { recursive: true, force: true });
    try {
      await mkdir(unfinished, { recursive: true, mode: 0o700 });
      for (const [index, { data, uid, gid, mode }] of files.entries()) {
        const path = join(unfinished, String(index));
        await writeFile(path, data, { mode: 0o600, flag: "wx" });
        await chown(path, uid, gid);
        await chmod(path, mode);
      }
      await this.remove(taskId);
      await rename(unfinished, join(this.#own, taskId));
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true });
      throw new ShoalError("Unavailable", `the task's files can't be kept in memory: ${messageOf(error)}`);
    }
  }

  async remove(taskId: string): Promise<void> {
    await rm(join(this.#own, taskId), { recursive: true, force: true });
  }

  async taskIds(): Promise<readonly string[]> {
    const reading = readdir(this.#own);
    const names = (await isMissing(reading)) ? [] : await reading;
    if (!this.#isClean) {
      this.#isClean = true;
      const unfinished = names.filter((name) => name.startsWith(unfinishedMark));
      for (const name of unfinished) await rm(join(this.#own, name), { recursive: true, force: true });
    }
    return names.filter((name) => !name.startsWith(unfinishedMark));
  }

  async clear(): Promise<void> {
    await rm(this.#own, { recursive: true, force: true });
  }

  async #requireTmpfs(): Promise<void> {
    const { directory, mount } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (await isTmpfs(directory)) return;
    let failure: string | undefined;
    try {
      await mount(directory);
    } catch (error) {
      if (!isShoalError(error)) throw error;
      failure = messageOf(error);
    }
    if (await isTmpfs(directory)) return;
    const why = failure === undefined ? "" : `: ${failure}`;
    throw new ShoalError("Unavailable", `${directory} is not in memory (no tmpfs), so no secrets are put there${why}`);
  }
}

/** A directory that is still being filled. */
const unfinishedMark = ".";

async function isTmpfs(directory: string): Promise<boolean> {
  return (await statfs(directory)).type === tmpfsType;
}

async function isMissing(looking: Promise<unknown>): Promise<boolean> {
  try {
    await looking;
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return true;
    throw error;
  }
}
