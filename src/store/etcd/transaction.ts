/** A commit of the store as one etcd transaction. */
import { ShoalError } from "../../lib/errors.ts";
import type { Batch } from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import { type EtcdFailure, requestBytes } from "./client.ts";
import type { TxnRequest } from "./gen/etcd_pb.js";
import { keyOf, markerKey } from "./keys.ts";
import { sealed } from "./records.ts";
import { bytesOf, deleteOp, modIs, putOp, txn } from "./wire.ts";

/** What a key, its compare and its framing cost beside the value, at most. */
const overheadBytes = 300;

/** The marker of a manager: what its next transaction leaves there, and the revision at which it must find it. */
export interface Marker {
  readonly nodeId: string;
  readonly found: number;
  readonly left: string;
}

/**
 * Every guard is a compare, as is the marker. ResourceExhausted where it is more than etcd takes at once.
 * @param offset between etcd's revisions and the store's, in which the guards are
 */
export function transactionOf(batch: Batch, marker: Marker, cipher: ValueCipher, offset: number): TxnRequest {
  let bytes = 0;
  const puts = batch.puts.map(({ table, object }) => {
    const value = sealed(cipher, table, object);
    bytes += value.length + overheadBytes;
    return putOp(keyOf(table, object.ID), value);
  });
  bytes += (batch.deletes.length + batch.guards.length) * overheadBytes;
  if (bytes > requestBytes) {
    throw new ShoalError("ResourceExhausted", `a change of ${bytes} bytes is more than the store takes at once`);
  }
  const guards = batch.guards.map(({ table, id, revision }) =>
    modIs(keyOf(table, id), revision === 0 ? 0 : revision - offset),
  );
  const deletes = batch.deletes.map(({ table, id }) => deleteOp(keyOf(table, id)));
  const key = markerKey(marker.nodeId);
  return txn([...guards, modIs(key, marker.found)], [...puts, ...deletes, putOp(key, bytesOf(marker.left))]);
}

/** Throws for the failures by which etcd says that it has not written and will not. */
export function refuseWhatWasNotWritten(failure: EtcdFailure): void {
  if (failure.says("database space exceeded")) {
    throw new ShoalError("ResourceExhausted", "the store is full", { cause: failure });
  }
  if (failure.says("request is too large") || failure.says("too many operations")) {
    throw new ShoalError("ResourceExhausted", "a change is larger than the store takes at once", { cause: failure });
  }
}
