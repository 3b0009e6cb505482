/**
 * Where things are in etcd's key space, which is the store's alone:
 * - `/shoal/<table>/<id>`: the object's sealed JSON;
 * - `/shoal-meta/head`: written last when a store is filled, so a store without it is not one;
 * - `/shoal-meta/marker/<node>`: the last commit of a manager, written with it;
 * - `/shoal-meta/member/<node>`: the peer address of a member, known before it has ever started.
 *
 * The revision that the store counts by is etcd's plus an offset (in `head`), so that it does not go back when a
 * cluster moves here from LMDB.
 */
import { type TableName, tableNames } from "../tables.ts";

export const objectPrefix = "/shoal/";
const metaPrefix = "/shoal-meta/";
export const headKey = `${metaPrefix}head`;
export const memberPrefix = `${metaPrefix}member/`;

/** The smallest key after all that begin with `prefix`. */
export function endOf(prefix: string): string {
  const last = prefix.length - 1;
  return prefix.slice(0, last) + String.fromCharCode(prefix.charCodeAt(last) + 1);
}

/** Also what a sealed value is bound to, with or without etcd: the same as in LMDB. */
export function placeOf(table: TableName, id: string): string {
  return `${table}/${id}`;
}

export function keyOf(table: TableName, id: string): string {
  return `${objectPrefix}${table}/${id}`;
}

export function markerKey(nodeId: string): string {
  return `${metaPrefix}marker/${nodeId}`;
}

export function memberKey(nodeId: string): string {
  return `${memberPrefix}${nodeId}`;
}

const knownTables: ReadonlySet<string> = new Set(tableNames);

/** The table and id of an object's key; undefined for any other key. */
export function parseKey(key: string): { readonly table: TableName; readonly id: string } | undefined {
  if (!key.startsWith(objectPrefix)) return undefined;
  const slash = key.indexOf("/", objectPrefix.length);
  const table = key.slice(objectPrefix.length, slash);
  if (slash < 0 || !knownTables.has(table)) return undefined;
  return { table: table as TableName, id: key.slice(slash + 1) };
}
