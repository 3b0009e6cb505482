/**
 * The backend of a single manager: an LMDB environment in the data directory. A commit is one LMDB transaction, on
 * disk when it resolves (overlappingSync is off for that). Values are the object's JSON without its Version, sealed;
 * in front of each stands the revision of its last write, in clear, as does the newest revision under `meta`.
 */
import { open, type RootDatabase } from "lmdb";
import { ShoalError } from "../lib/errors.ts";
import type { StoredObject } from "../model/types.ts";
import {
  type Backend,
  type BackendCommit,
  type Batch,
  type CommitResult,
  commitOf,
  type StoredRecord,
} from "./backend.ts";
import type { ValueCipher } from "./encryption.ts";
import { type TableName, tableNames } from "./tables.ts";

const revisionBytes = 8;
const metaKey = "meta";
const format = 1;

export interface LmdbOptions {
  /** Directory of the environment; created when missing. */
  readonly directory: string;
  readonly cipher: ValueCipher;
}

export class LmdbBackend implements Backend {
  readonly #database: RootDatabase<Buffer, string>;
  readonly #cipher: ValueCipher;
  #revision = 0;
  #listener: (commit: BackendCommit) => void = () => {};

  /** Opens (or creates) the environment. DataLoss where it is there but cannot be read. */
  constructor(options: LmdbOptions) {
    this.#cipher = options.cipher;
    try {
      this.#database = open<Buffer, string>({
        path: options.directory,
        encoding: "binary",
        overlappingSync: false,
        // Each commit is a batch of its own. With it, a commit that fails would also reject promises that lmdb keeps to
        // itself, and end the daemon.
        eventTurnBatching: false,
      });
    } catch (cause) {
      throw new ShoalError("DataLoss", `the store in ${options.directory} cannot be opened`, { cause });
    }
  }

  async load() {
    const meta = this.#database.get(metaKey);
    if (meta) {
      const { format: found, revision } = readMeta(meta);
      if (found !== format)
        throw new ShoalError("DataLoss", `the store has format ${found}, this version reads ${format}`);
      this.#revision = revision;
    }
    const records: StoredRecord[] = [];
    for (const table of tableNames) {
      for (const { key, value } of this.#database.getRange({ start: `${table}/`, end: `${table}0` })) {
        records.push({ table, object: this.#decode(key, value) });
      }
    }
    return { revision: this.#revision, records };
  }

  follow(listener: (commit: BackendCommit) => void): void {
    this.#listener = listener;
  }

  async commit(batch: Batch): Promise<CommitResult> {
    for (const { table, id, revision } of batch.guards) {
      const value = this.#database.get(keyOf(table, id));
      if ((value ? readRevision(value) : 0) !== revision) return { kind: "conflict" };
    }
    const revision = this.#revision + 1;
    const puts = batch.puts.map(({ table, object }) => {
      const key = keyOf(table, object.ID);
      return { key, value: this.#encode(key, object, revision) };
    });
    const meta = Buffer.from(JSON.stringify({ format, revision }));
    try {
      // `batch` writes everything asked for inside it in one LMDB transaction, on the writer's thread.
      await this.#database.batch(() => {
        for (const { key, value } of puts) toldOnce(this.#database.put(key, value));
        for (const { table, id } of batch.deletes) toldOnce(this.#database.remove(keyOf(table, id)));
        toldOnce(this.#database.put(metaKey, meta));
      });
    } catch (cause) {
      toldOnce((cause as { commitError?: Promise<unknown> }).commitError);
      throw new ShoalError("Unavailable", "the store cannot be written (is the disk full?)", { cause });
    }
    this.#revision = revision;
    this.#listener(commitOf(batch, revision));
    return { kind: "committed", revision };
  }

  async currentRevision(): Promise<number> {
    return this.#revision;
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  #encode(key: string, object: StoredObject, revision: number): Buffer {
    const { Version: _, ...rest } = object;
    const head = Buffer.alloc(revisionBytes);
    head.writeBigUInt64BE(BigInt(revision));
    return Buffer.concat([head, this.#cipher.seal(Buffer.from(JSON.stringify(rest)), key)]);
  }

  #decode(key: string, value: Buffer): StoredObject {
    const object = JSON.parse(this.#cipher.open(value.subarray(revisionBytes), key).toString());
    object.Version = { Index: readRevision(value) };
    return object;
  }
}

function keyOf(table: TableName, id: string): string {
  return `${table}/${id}`;
}

/** One of lmdb's many promises of one commit, which all fail with it: the commit's own is the one that is listened to. */
function toldOnce(promise: Promise<unknown> | undefined): void {
  promise?.catch(() => undefined);
}

function readRevision(value: Buffer): number {
  return Number(value.readBigUInt64BE(0));
}

function readMeta(value: Buffer): { format: number; revision: number } {
  try {
    return JSON.parse(value.toString());
  } catch (cause) {
    throw new ShoalError("DataLoss", "the store's head is damaged", { cause });
  }
}
