/**
 * Copying a store into an empty etcd, object by object, while it is still written to where it was: when a cluster's
 * second manager comes. What is there is not a store before its head is written, which is the last of all writes.
 */
import { assert } from "../../lib/errors.ts";
import type { BackendCommit, StoredRecord } from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import type { EtcdClient } from "./client.ts";
import type { RequestOp } from "./gen/etcd_pb.js";
import { endOf, headKey, keyOf, objectPrefix } from "./keys.ts";
import { sealed } from "./records.ts";
import { bytesOf, deleteOp, encodeHead, putOp, txn } from "./wire.ts";

const objectsPerTransaction = 1_000;
const bytesPerTransaction = 2 * 1024 * 1024;
/** While etcd writes some, the next are sealed. */
const transactionsInFlight = 4;
const callMs = 20_000;

export interface Source {
  /** The revision that the store counts on from. */
  readonly revision: number;
  readonly records: Iterable<StoredRecord>;
}

/** What etcd then has: the objects with their new revisions (the store's, not etcd's). */
export interface Filled {
  readonly revision: number;
  readonly records: readonly StoredRecord[];
}

export class Filling {
  readonly #client: EtcdClient;
  readonly #cipher: ValueCipher;
  /** etcd's revision of each key that is there. */
  readonly #written = new Map<string, number>();

  constructor(client: EtcdClient, cipher: ValueCipher) {
    this.#client = client;
    this.#cipher = cipher;
  }

  /** Writes each object over what was copied of it before; each at most once in a call. */
  async copy(writes: BackendCommit["writes"]): Promise<void> {
    const inFlight = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    let keys: string[] = [];
    let ops: RequestOp[] = [];
    let bytes = 0;
    const send = async () => {
      const writing = this.#write(keys, ops)
        .catch((error: unknown) => {
          failure ??= { error };
        })
        .finally(() => inFlight.delete(writing));
      inFlight.add(writing);
      [keys, ops, bytes] = [[], [], 0];
      if (inFlight.size >= transactionsInFlight) await Promise.race(inFlight);
    };
    for (const { table, id, object } of writes) {
      if (failure) break;
      const key = keyOf(table, id);
      if (object) {
        const value = sealed(this.#cipher, table, object);
        bytes += value.length;
        ops.push(putOp(key, value));
        keys.push(key);
      } else {
        ops.push(deleteOp(key));
        this.#written.delete(key);
      }
      if (ops.length >= objectsPerTransaction || bytes >= bytesPerTransaction) await send();
    }
    if (ops.length > 0) await send();
    await Promise.all(inFlight);
    if (failure) throw failure.error;
  }

  /** Makes it a store, which has these objects. Throws where etcd has any other, or not all of them. */
  async finish({ revision: offset, records }: Source): Promise<Filled> {
    const content: StoredRecord[] = [];
    for (const { table, object } of records) {
      const written = this.#written.get(keyOf(table, object.ID));
      assert(written !== undefined, `${table} ${object.ID} has not been copied`);
      content.push({ table, object: { ...object, Version: { Index: written + offset } } });
    }
    const range = { key: bytesOf(objectPrefix), rangeEnd: bytesOf(endOf(objectPrefix)), countOnly: true };
    const { count } = await this.#client.call(callMs, (options) => this.#client.kv.range(range, options));
    assert(Number(count) === content.length, `etcd has ${count} of the store's ${content.length} objects`);
    const head = txn([], [putOp(headKey, encodeHead(offset))]);
    const { header } = await this.#client.call(callMs, (options) => this.#client.kv.txn(head, options));
    return { revision: Number(header!.revision) + offset, records: content };
  }

  async #write(keys: readonly string[], ops: RequestOp[]): Promise<void> {
    const request = txn([], ops);
    const { header } = await this.#client.call(callMs, (options) => this.#client.kv.txn(request, options));
    for (const key of keys) this.#written.set(key, Number(header!.revision));
  }
}
