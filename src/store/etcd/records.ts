/** Objects as they are kept in etcd: their JSON without the version, sealed to their place. */
import type { StoredObject } from "../../model/types.ts";
import type { StoredRecord } from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import type { TableName } from "../tables.ts";
import type { KeyValue } from "./gen/etcd_pb.js";
import { parseKey, placeOf } from "./keys.ts";

/** With etcd's revision of its last write. */
export type EtcdRecord = StoredRecord & { readonly revision: number };

export function sealed(cipher: ValueCipher, table: TableName, object: StoredObject): Buffer {
  const { Version: _, ...rest } = object;
  return cipher.seal(Buffer.from(JSON.stringify(rest)), placeOf(table, object.ID));
}

/**
 * Undefined for what a newer version of us may have put there.
 * @param offset between etcd's revisions and the store's, in which the object's version is
 */
export function opened(cipher: ValueCipher, offset: number, entry: KeyValue): EtcdRecord | undefined {
  const place = parseKey(Buffer.from(entry.key).toString());
  if (!place) return undefined;
  const { table, id } = place;
  const object = JSON.parse(cipher.open(entry.value, placeOf(table, id)).toString());
  const revision = Number(entry.modRevision);
  object.Version = { Index: revision + offset };
  return { table, object, revision };
}
