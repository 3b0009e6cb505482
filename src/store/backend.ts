/**
 * Where the store's objects are kept. A backend takes whole objects and gives them back; how they are encoded and
 * encrypted is its own affair. Each commit has a revision, larger than the one before.
 */
import type { StoredObject } from "../model/types.ts";
import type { TableName } from "./tables.ts";

/** An object as it comes from a backend, with the revision of its last write in `Version.Index`. */
export interface StoredRecord {
  readonly table: TableName;
  readonly object: StoredObject;
}

export interface Batch {
  readonly puts: readonly { readonly table: TableName; readonly object: StoredObject }[];
  readonly deletes: readonly { readonly table: TableName; readonly id: string }[];
  /** Each must still be at this revision (0: must not exist), else the whole batch is a conflict. */
  readonly guards: readonly { readonly table: TableName; readonly id: string; readonly revision: number }[];
}

export type CommitResult =
  | { readonly kind: "committed"; readonly revision: number }
  /** `revision`: what was in the way has been written by then, where the backend knows it. */
  | { readonly kind: "conflict"; readonly revision?: number };

/** What one commit wrote. `object` undefined: deleted. */
export interface BackendCommit {
  readonly revision: number;
  readonly writes: readonly {
    readonly table: TableName;
    readonly id: string;
    readonly object: StoredObject | undefined;
  }[];
}

export interface Backend {
  /** Everything that is stored, and its revision. Called once, before anything else. */
  load(): Promise<{ readonly revision: number; readonly records: Iterable<StoredRecord> }>;
  /**
   * From now on tells `listener` of each commit after the one that was loaded, by this manager or another, each once
   * and in the order of revisions. Called once, in the turn in which `load` resolved. Objects come without their
   * version (it is the commit's revision), and are the listener's to complete.
   * @param lost told once if commits can't be followed any more; the backend is of no use from then on
   */
  follow(listener: (commit: BackendCommit) => void, lost: (error: unknown) => void): void;
  /**
   * Writes all or nothing, and resolves when it is durable and the listener has been told of it. Never called while
   * another commit of this manager is under way. When it rejects, nothing is known of the write's outcome.
   */
  commit(batch: Batch): Promise<CommitResult>;
  /**
   * The newest revision that any manager has committed: what a read has to wait for.
   * Unavailable where that can't be known (no quorum).
   */
  currentRevision(): Promise<number>;
  close(): Promise<void>;
}

/** A batch as the listener of its own manager is told of it. */
export function commitOf(batch: Batch, revision: number): BackendCommit {
  const puts = batch.puts.map(({ table, object }) => ({ table, id: object.ID, object }));
  const deletes = batch.deletes.map(({ table, id }) => ({ table, id, object: undefined }));
  return { revision, writes: [...puts, ...deletes] };
}
