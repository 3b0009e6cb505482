/** Writing a whole store into an empty etcd: when a cluster's second manager comes, or from a copy. */
import { assert } from "../../lib/errors.ts";
import type { StoredRecord } from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import type { EtcdClient } from "./client.ts";
import { sealed } from "./etcd-backend.ts";
import type { RequestOp } from "./gen/etcd_pb.js";
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

/** Writes all of it, and last what makes it a store. Throws where etcd then holds anything else. */
export async function fill(client: EtcdClient, cipher: ValueCipher, source: Source): Promise<void> {
  const inFlight = new Set<Promise<unknown>>();
  let ops: RequestOp[] = [];
  let bytes = 0;
  let count = 0;
  const send = async () => {
    const request = txn([], ops);
    ops = [];
    bytes = 0;
    const sending: Promise<unknown> = client.call(callMs, (options) => client.kv.txn(request, options));
    const sent = sending.finally(() => inFlight.delete(sent));
    inFlight.add(sent);
    if (inFlight.size >= transactionsInFlight) await Promise.race(inFlight);
  };
  try {
    for (const { table, object } of source.records) {
      const value = sealed(cipher, table, object);
      ops.push(putOp(keyOf(table, object.ID), value));
      bytes += value.length;
      count++;
      if (ops.length >= objectsPerTransaction || bytes >= bytesPerTransaction) await send();
    }
    if (ops.length > 0) await send();
  } finally {
    await Promise.all(inFlight);
  }
  const range = { key: bytesOf(objectPrefix), rangeEnd: bytesOf(endOf(objectPrefix)), countOnly: true };
  const stored = await client.call(callMs, (options) => client.kv.range(range, options));
  assert(Number(stored.count) === count, `etcd has ${stored.count} objects of the store's ${count}`);
  const head = txn([], [putOp(headKey, encodeHead(source.revision))]);
  await client.call(callMs, (options) => client.kv.txn(head, options));
}
