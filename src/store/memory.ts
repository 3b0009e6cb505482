/**
 * A backend without a disk: for tests, the simulation and benchmarks. It outlives the stores that are opened on it,
 * and all of them see each commit at once.
 */
import type { StoredObject } from "../model/types.ts";
import {
  type Backend,
  type BackendCommit,
  type Batch,
  type CommitResult,
  commitOf,
  type StoredRecord,
} from "./backend.ts";
import type { TableName } from "./tables.ts";

export class MemoryBackend implements Backend {
  #revision = 0;
  readonly #records = new Map<string, StoredRecord & { revision: number }>();
  readonly #listeners: ((commit: BackendCommit) => void)[] = [];

  async load() {
    return { revision: this.#revision, records: [...this.#records.values()] };
  }

  follow(listener: (commit: BackendCommit) => void): void {
    this.#listeners.push(listener);
  }

  async commit(batch: Batch): Promise<CommitResult> {
    for (const guard of batch.guards) {
      const current = this.#records.get(key(guard.table, guard.id))?.revision ?? 0;
      if (current !== guard.revision) return { kind: "conflict" };
    }
    const revision = ++this.#revision;
    for (const { table, object } of batch.puts) {
      this.#records.set(key(table, object.ID), { table, object, revision });
    }
    for (const { table, id } of batch.deletes) this.#records.delete(key(table, id));
    const commit = commitOf(batch, revision);
    for (const listener of this.#listeners) listener(commit);
    return { kind: "committed", revision };
  }

  async currentRevision(): Promise<number> {
    return this.#revision;
  }

  async close(): Promise<void> {}
}

function key(table: TableName, id: StoredObject["ID"]): string {
  return `${table}/${id}`;
}
