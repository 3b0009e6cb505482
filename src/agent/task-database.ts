/**
 * What the agent knows of its tasks, kept over a restart: so that tasks that ended are not started again, and what
 * runs is looked after also while no manager can be reached. It holds no secrets: neither the credentials of a
 * registry nor the contents of secrets. What it holds is sealed: people put passwords into environments.
 */
import { open, type RootDatabase } from "lmdb";
import type { Sealer } from "../lib/seal.ts";
import type { AssignedTask, TaskStatus } from "../model/types.ts";

/** Stands for a registry's credentials that are not in the database: they come again with the next session. */
export const withheld = "";

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

/**
 * @param directory is made when it is missing
 * @param sealer of the node; what another one has sealed is DataLoss
 */
export function openTaskDatabase(directory: string, sealer: Sealer): TaskDatabase {
  return new LmdbTaskDatabase(directory, sealer);
}

class LmdbTaskDatabase implements TaskDatabase {
  readonly #database: RootDatabase<Buffer, string>;
  readonly #sealer: Sealer;

  constructor(directory: string, sealer: Sealer) {
    this.#database = open<Buffer, string>({
      path: directory,
      encoding: "binary",
      noSubdir: false,
      // With it, a write that fails would also reject promises that lmdb keeps to itself, and end the daemon.
      eventTurnBatching: false,
    });
    this.#sealer = sealer;
  }

  load(): readonly TaskRecord[] {
    return [...this.#database.getRange()].map(({ key, value }) =>
      JSON.parse(this.#sealer.open(value, placeOf(key)).toString()),
    );
  }

  put(record: TaskRecord): void {
    const { ID } = record.task;
    const plain = Buffer.from(JSON.stringify(withoutCredentials(record)));
    mayBeLost(this.#database.put(ID, this.#sealer.seal(plain, placeOf(ID))));
  }

  delete(taskId: string): void {
    mayBeLost(this.#database.remove(taskId));
  }

  clear(): void {
    this.#database.clearSync();
  }

  async close(): Promise<void> {
    await this.#database.flushed;
    await this.#database.close();
  }
}

/** On a full disk, say: the next look at the Engine makes good for it. */
function mayBeLost(written: Promise<boolean>): void {
  written.catch((error: { readonly commitError?: Promise<unknown> }) => {
    error.commitError?.catch(() => undefined); // the same once more
  });
}

function placeOf(taskId: string): string {
  return `task/${taskId}`;
}

function withoutCredentials({ task, status }: TaskRecord): TaskRecord {
  if (task.RegistryAuth === undefined) return { task, status };
  return { task: { ...task, RegistryAuth: withheld }, status };
}
