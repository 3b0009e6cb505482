/** Writing a whole store into an empty etcd: when a cluster's second manager comes, or from a copy. */
import { assert } from "../../lib/errors.ts";
import type { StoredRecord } from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import type { EtcdClient } from "./client.ts";
import { sealed } from "./etcd-backend.ts";
import type { RequestOp, TxnRequest } from "./gen/etcd_pb.js";
import { endOf, headKey, keyOf, objectPrefix } from "./keys.ts";
import { bytesOf, encodeHead, putOp, txn } from "./wire.ts";

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

/** Writes all of it, and last what makes it a store. Throws where etcd then holds anything else. */
export async function fill(client: EtcdClient, cipher: ValueCipher, source: Source): Promise<Filled> {
  const records: StoredRecord[] = [];
  const inFlight = new Set<Promise<unknown>>();
  let batch: StoredRecord[] = [];
  let ops: RequestOp[] = [];
  let bytes = 0;
  const write = async (sent: readonly StoredRecord[], request: TxnRequest) => {
    const { header } = await client.call(callMs, (options) => client.kv.txn(request, options));
    const Version = { Index: Number(header!.revision) + source.revision };
    for (const { table, object } of sent) records.push({ table, object: { ...object, Version } });
  };
  const send = async () => {
    const writing = write(batch, txn([], ops)).finally(() => inFlight.delete(writing));
    inFlight.add(writing);
    [batch, ops, bytes] = [[], [], 0];
    if (inFlight.size >= transactionsInFlight) await Promise.race(inFlight);
  };
  try {
    for (const record of source.records) {
      const value = sealed(cipher, record.table, record.object);
      batch.push(record);
      ops.push(putOp(keyOf(record.table, record.object.ID), value));
      bytes += value.length;
      if (batch.length >= objectsPerTransaction || bytes >= bytesPerTransaction) await send();
    }
    if (batch.length > 0) await send();
  } finally {
    await Promise.all(inFlight);
  }
  const range = { key: bytesOf(objectPrefix), rangeEnd: bytesOf(endOf(objectPrefix)), countOnly: true };
  const stored = await client.call(callMs, (options) => client.kv.range(range, options));
  assert(Number(stored.count) === records.length, `etcd has ${stored.count} of the store's ${records.length} objects`);
  const head = txn([], [putOp(headKey, encodeHead(source.revision))]);
  const { header } = await client.call(callMs, (options) => client.kv.txn(head, options));
  return { revision: Number(header!.revision) + source.revision, records };
}
