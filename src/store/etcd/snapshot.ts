/** Reading the whole store from etcd, at one revision. */
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ValueCipher } from "../encryption.ts";
import { type EtcdClient, EtcdFailure, retried } from "./client.ts";
import { endOf, headKey, markerKey, objectPrefix } from "./keys.ts";
import { type EtcdRecord, opened } from "./records.ts";
import { bytesOf, decodeHead } from "./wire.ts";

/** How long a store that is being opened waits for a quorum before it goes by what the local member has. */
const freshLoadMs = 2_500;
/** How long the store of a member that has just joined may take to arrive. */
const arrivalMs = 30_000;
const headMs = 1_000;
const pageMs = 5_000;
const pauseMs = 50;
const objectsPerPage = 2_000;

export interface SnapshotOptions {
  readonly client: EtcdClient;
  readonly cipher: ValueCipher;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Head {
  /** etcd's, at which all of it was read. */
  readonly revision: number;
  /** What the store's revisions are ahead of etcd's. */
  readonly offset: number;
  /** etcd's revision of the node's marker; 0: there is none yet. */
  readonly marker: number;
}

export interface Snapshot extends Head {
  readonly records: readonly EtcdRecord[];
}

/**
 * Everything at one revision: the newest where there is a quorum, else the newest that this member has.
 * DataLoss where etcd holds no store, or one that can't be read.
 */
export async function readSnapshot(options: SnapshotOptions, signal: AbortSignal): Promise<Snapshot> {
  for (;;) {
    const head = await readHead(options, signal);
    try {
      return { ...head, records: await readRecords(options, head) };
    } catch (error) {
      if (!(error instanceof EtcdFailure && error.says("compacted"))) throw error;
      options.log.info("the store was compacted while it was read, it is read again");
    }
  }
}

async function readHead({ client, nodeId, clock, log }: SnapshotOptions, signal: AbortSignal): Promise<Head> {
  const get = (key: string, serializable: boolean) =>
    client.call(headMs, (options) => client.kv.range({ key: bytesOf(key), serializable }, options));
  const fresh = await retried(
    clock,
    { limitMs: freshLoadMs, pauseMs, signal },
    () => get(headKey, false),
    (last) => last,
  ).catch((error) => {
    log.warn("the store is opened without a quorum, with what this manager has", { error: messageOf(error) });
  });
  const { header, kvs } =
    fresh ??
    (await retried(
      clock,
      { limitMs: arrivalMs, pauseMs, signal },
      async () => {
        const answer = await get(headKey, true);
        if (answer.kvs.length === 0) throw new ShoalError("Unavailable", "the store has not arrived yet");
        return answer;
      },
      (last) => new ShoalError("Unavailable", "the store cannot be read", { cause: last }),
    ));
  if (!kvs[0]) throw new ShoalError("DataLoss", "etcd holds no store: it was never filled");
  const marker = await get(markerKey(nodeId), true);
  return {
    revision: Number(header!.revision),
    offset: decodeHead(kvs[0].value).offset,
    marker: Number(marker.kvs[0]?.modRevision ?? 0),
  };
}

async function readRecords({ client, cipher }: SnapshotOptions, { revision, offset }: Head): Promise<EtcdRecord[]> {
  const records: EtcdRecord[] = [];
  const rangeEnd = bytesOf(endOf(objectPrefix));
  let key = bytesOf(objectPrefix);
  for (;;) {
    const page = { key, rangeEnd, revision: BigInt(revision), limit: BigInt(objectsPerPage), serializable: true };
    const { kvs, more } = await client.call(pageMs, (options) => client.kv.range(page, options));
    for (const entry of kvs) {
      const record = opened(cipher, offset, entry);
      if (record) records.push(record);
    }
    const last = kvs.at(-1);
    if (!more || !last) return records;
    key = Buffer.concat([last.key, Buffer.of(0)]);
  }
}
