/**
 * What a watch has missed: the difference between what was known and what is there. Revisions in between are left out
 * where later ones have overwritten them.
 */
import type { BackendCommit } from "../backend.ts";
import { type TableName, tableNames } from "../tables.ts";
import type { EtcdRecord } from "./records.ts";

/** The ids of all objects that were told of. */
export type Ids = Readonly<Record<TableName, Set<string>>>;

export function noIds(): Ids {
  return Object.fromEntries(tableNames.map((name) => [name, new Set<string>()])) as Record<TableName, Set<string>>;
}

/**
 * In the order of revisions (etcd's), all newer than `after`; the deletes, whose revisions are not known, in the last.
 * @param present everything that there is at a revision
 */
export function missedCommits(
  known: Ids,
  after: number,
  present: { readonly revision: number; readonly records: readonly EtcdRecord[] },
): BackendCommit[] {
  const gone = noIds();
  for (const table of tableNames) for (const id of known[table]) gone[table].add(id);
  const commits = new Map<number, BackendCommit["writes"][number][]>();
  for (const { table, object, revision } of present.records) {
    gone[table].delete(object.ID);
    if (revision <= after) continue;
    const writes = commits.get(revision) ?? [];
    writes.push({ table, id: object.ID, object });
    commits.set(revision, writes);
  }
  const deletes = tableNames.flatMap((table) => [...gone[table]].map((id) => ({ table, id, object: undefined })));
  commits.set(present.revision, [...deletes, ...(commits.get(present.revision) ?? [])]);
  return [...commits]
    .filter(([revision]) => revision > after)
    .sort(([left], [right]) => left - right)
    .map(([revision, writes]) => ({ revision, writes }));
}
