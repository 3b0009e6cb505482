/**
 * What the agent knows of its tasks, kept over a restart: so that tasks that ended are not started again, and what
 * runs is looked after also while no manager can be reached. It holds no secrets: neither the credentials of a
 * registry nor the contents of secrets.
 */
import { open, type RootDatabase } from "lmdb";
import type { AssignedTask, TaskStatus } from "../model/types.ts";

export interface TaskRecord {
  readonly task: AssignedTask;
  /** The last status that was made on this node. */
  readonly status: TaskStatus;
}

export interface TaskDatabase {
  load(): readonly TaskRecord[];
  /** Effective at once, on disk a moment later. A write that is lost is made good by the next look at the Engine. */
  put(record: TaskRecord): void;
  delete(taskId: string): void;
  clear(): void;
  /** Resolves when everything is on disk. */
  close(): Promise<void>;
}

/** A database for tests and the simulation: lives as long as the object. */
export class MemoryTaskDatabase implements TaskDatabase {
  readonly #records = new Map<string, TaskRecord>();

  load(): readonly TaskRecord[] {
    return [...this.#records.values()];
  }

  put(record: TaskRecord): void {
    this.#records.set(record.task.ID, withoutCredentials(record));
  }

  delete(taskId: string): void {
    this.#records.delete(taskId);
  }

  clear(): void {
    this.#records.clear();
  }

  async close(): Promise<void> {}
}

/** @param directory is made when it is missing */
export function openTaskDatabase(directory: string): TaskDatabase {
  return new LmdbTaskDatabase(directory);
}

class LmdbTaskDatabase implements TaskDatabase {
  readonly #database: RootDatabase<TaskRecord, string>;

  constructor(directory: string) {
    this.#database = open<TaskRecord, string>({ path: directory, encoding: "json", noSubdir: false });
  }

  load(): readonly TaskRecord[] {
    return [...this.#database.getRange()].map(({ value }) => value);
  }

  put(record: TaskRecord): void {
    void this.#database.put(record.task.ID, withoutCredentials(record));
  }

  delete(taskId: string): void {
    void this.#database.remove(taskId);
  }

  clear(): void {
    this.#database.clearSync();
  }

  async close(): Promise<void> {
    await this.#database.flushed;
    await this.#database.close();
  }
}

function withoutCredentials({ task, status }: TaskRecord): TaskRecord {
  const { RegistryAuth: _, ...kept } = task;
  return { task: kept, status };
}
