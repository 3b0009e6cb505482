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

export type CommitResult = { readonly kind: "committed"; readonly revision: number } | { readonly kind: "conflict" };

export interface Backend {
  /** Everything that is stored, and the current revision. Called once, before any commit. */
  load(): Promise<{ readonly revision: number; readonly records: Iterable<StoredRecord> }>;
  /**
   * Writes all or nothing, and resolves when it is durable. Never called while another commit is under way.
   * `object.Version` in a put is not yet set: a put's version is the revision that this resolves to.
   */
  commit(batch: Batch): Promise<CommitResult>;
  /** The newest revision that any manager has committed: what a read has to wait for. */
  currentRevision(): Promise<number>;
  close(): Promise<void>;
}
