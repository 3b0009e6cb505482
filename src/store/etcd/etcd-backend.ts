/**
 * The backend of several managers: etcd, through this manager's own member.
 *
 * - A commit is one etcd transaction: every guard is a compare, and it is there for all managers or for none.
 * - Each transaction also writes this manager's marker, and depends on the marker being as its last one left it. So
 *   after a call whose outcome is not known, the marker tells whether it was written; and moving the marker on makes
 *   sure that it never will be, however late it arrives.
 * - Commits come back over one watch of the whole key space: every revision is an event there, so that a view that has
 *   reached a revision has everything before it. Own commits are told from memory, without being decoded.
 */
import { create } from "@bufbuild/protobuf";
import { Backoff } from "../../lib/backoff.ts";
import { type Clock, pause } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import type { StoredObject } from "../../model/types.ts";
import {
  type Backend,
  type BackendCommit,
  type Batch,
  type CommitResult,
  commitOf,
  type StoredRecord,
} from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import { type TableName, tableNames } from "../tables.ts";
import { type EtcdClient, EtcdFailure, noLeader, requestBytes, retried } from "./client.ts";
import { type Event, Event_Type, type KeyValue, type TxnRequest, WatchRequestSchema } from "./gen/etcd_pb.js";
import { endOf, headKey, keyOf, markerKey, objectPrefix, parseKey, placeOf } from "./keys.ts";
import { bytesOf, decodeHead, deleteOp, modIs, putOp, txn } from "./wire.ts";

/** How long a call waits before it is asked what became of it: a leader may have died with it. */
const attemptMs = 1_000;
/** How long a read or write waits for a leader before its caller is told that there is none. */
const noLeaderMs = 5_000;
/** How long a store that is being opened waits for a quorum before it goes by what the local member has. */
const freshLoadMs = 2_500;
/** How long the store of a member that has just joined may take to arrive. */
const arrivalMs = 30_000;
const pauseMs = 50;
const objectsPerPage = 2_000;
/** What a key, its compare and its framing cost beside the value, at most. */
const overheadBytes = 300;
const watchBackoff = { baseMs: 20, maxMs: 1_000 };

export interface EtcdBackendOptions {
  readonly client: EtcdClient;
  readonly nodeId: string;
  readonly cipher: ValueCipher;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Why this manager's own member cannot run, where that is so. */
  readonly trouble?: () => string | undefined;
}

interface Pending {
  readonly id: string;
  readonly batch: Batch;
  /** etcd's revision, once it is known to be written. */
  revision: number | undefined;
  readonly told: PromiseWithResolvers<number>;
}

interface Loaded {
  readonly revision: number;
  readonly records: readonly StoredRecord[];
}

type Ids = Record<TableName, Set<string>>;

/** All revisions in here are etcd's but where they leave: there the offset is added. */
export class EtcdBackend implements Backend {
  readonly #options: EtcdBackendOptions;
  readonly #closed = new AbortController();
  /** Names this run in the marker. */
  readonly #run: string;
  #commits = 0;
  #offset = 0;
  /** The newest revision that the listener has been told of. */
  #delivered = 0;
  /** Revision of this manager's marker; 0: there is none yet. */
  #marker = 0;
  #filled: Loaded | undefined;
  #pending: Pending | undefined;
  /** When the first call began that no leader has answered, if none has since. */
  #leaderlessSince: number | undefined;
  /** Every object's id, for what a compaction may hide: the id is the object's own string. */
  readonly #known: Ids;
  #listener: (commit: BackendCommit) => void = () => {};
  #lost: (error: unknown) => void = () => {};
  #reading: { readonly running: Promise<number>; next: Promise<number> | undefined } | undefined;
  #following: Promise<void> = Promise.resolve();

  constructor(options: EtcdBackendOptions) {
    this.#options = options;
    this.#run = newId(options.random);
    this.#known = Object.fromEntries(tableNames.map((name) => [name, new Set()])) as Ids;
  }

  /** The store was just written by this manager, so it need not be read for `load`. */
  filled(content: Loaded, offset: number): void {
    this.#offset = offset;
    this.#filled = { revision: content.revision - offset, records: content.records };
  }

  async load(): Promise<Loaded> {
    const { revision, records } = this.#filled ?? (await this.#snapshot());
    this.#filled = undefined;
    for (const { table, object } of records) this.#known[table].add(object.ID);
    this.#delivered = revision;
    return { revision: revision + this.#offset, records };
  }

  follow(listener: (commit: BackendCommit) => void, lost: (error: unknown) => void): void {
    this.#listener = listener;
    this.#lost = lost;
    this.#following = this.#follow();
  }

  async commit(batch: Batch): Promise<CommitResult> {
    this.#closed.signal.throwIfAborted();
    const id = `${this.#run}/${++this.#commits}`;
    const pending: Pending = { id, batch, revision: undefined, told: Promise.withResolvers() };
    const request = this.#transaction(batch, id);
    this.#pending = pending;
    // Whichever comes first: etcd's answer, or the watch that shows the commit.
    const written = this.#write(request, pending);
    const seen = pending.told.promise.then((revision) => ({ kind: "committed", revision }) as const);
    try {
      return await Promise.race([seen, written]);
    } finally {
      written.catch(() => {}); // the watch was faster than an answer that never came
      if (this.#pending === pending) this.#pending = undefined;
    }
  }

  /** A read that starts while another is under way waits for the one after that, which is for all who wait. */
  currentRevision(): Promise<number> {
    if (!this.#reading) {
      const running = this.#readRevision();
      const reading = { running, next: undefined };
      this.#reading = reading;
      const done = () => {
        if (this.#reading === reading) this.#reading = undefined;
      };
      running.then(done, done);
      return running;
    }
    const { running } = this.#reading;
    const again = () => {
      this.#reading = undefined;
      return this.currentRevision();
    };
    this.#reading.next ??= running.then(again, again);
    return this.#reading.next;
  }

  async close(): Promise<void> {
    this.#end(new ShoalError("Unavailable", "the store is closed"));
    await this.#following;
  }

  /** Ends it for good with this error: the member has been removed, or the data cannot be read. */
  fail(error: ShoalError): void {
    if (this.#closed.signal.aborted) return;
    this.#end(error);
    this.#lost(error);
  }

  #end(reason: ShoalError): void {
    this.#closed.abort(reason);
    this.#pending?.told.reject(reason);
  }

  // Reading

  /**
   * Tries `attempt` until there is a leader that answers it. Who comes when there has been none for long does not wait
   * as long again.
   */
  async #led<T>(attempt: () => Promise<T>): Promise<T> {
    const { clock } = this.#options;
    const startedAt = clock.now();
    const limitMs = Math.max(attemptMs, (this.#leaderlessSince ?? startedAt) + noLeaderMs - startedAt);
    const answer = await retried(
      clock,
      { limitMs, pauseMs, signal: this.#closed.signal },
      () =>
        attempt().catch((error: unknown) => {
          this.#leaderlessSince ??= startedAt;
          throw error;
        }),
      (last) => this.#unanswered(last),
    );
    this.#leaderlessSince = undefined;
    return answer;
  }

  #unanswered(cause: unknown): unknown {
    if (this.#closed.signal.aborted) return this.#closed.signal.reason;
    const trouble = this.#options.trouble?.();
    if (trouble === undefined) return noLeader(cause);
    return new ShoalError("Unavailable", `this manager's store cannot run: ${trouble}`, { cause });
  }

  async #readRevision(): Promise<number> {
    const { client } = this.#options;
    const read = { key: bytesOf(headKey), countOnly: true };
    const { header } = await this.#led(() => client.call(attemptMs, (options) => client.kv.range(read, options)));
    return Number(header!.revision) + this.#offset;
  }

  /** Everything at one revision: the newest where there is a quorum, else the newest that this member has. */
  async #snapshot(): Promise<{ revision: number; records: (StoredRecord & { revision: number })[] }> {
    const { log } = this.#options;
    for (;;) {
      const revision = await this.#readHead();
      try {
        return { revision, records: await this.#records(revision) };
      } catch (error) {
        if (!(error instanceof EtcdFailure && error.says("compacted"))) throw error;
        log.info("the store was compacted while it was read, it is read again");
      }
    }
  }

  /** Reads offset and marker; gives the revision at which they were read. */
  async #readHead(): Promise<number> {
    const { client, clock, log, nodeId } = this.#options;
    const signal = this.#closed.signal;
    const get = (key: string, serializable: boolean) =>
      client.call(attemptMs, (options) => client.kv.range({ key: bytesOf(key), serializable }, options));
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
    this.#offset = decodeHead(kvs[0].value).offset;
    const marker = await get(markerKey(nodeId), true);
    this.#marker = Number(marker.kvs[0]?.modRevision ?? 0);
    return Number(header!.revision);
  }

  async #records(revision: number): Promise<(StoredRecord & { revision: number })[]> {
    const { client } = this.#options;
    const records: (StoredRecord & { revision: number })[] = [];
    const rangeEnd = bytesOf(endOf(objectPrefix));
    let key = bytesOf(objectPrefix);
    for (;;) {
      const page = { key, rangeEnd, revision: BigInt(revision), limit: BigInt(objectsPerPage), serializable: true };
      const { kvs, more } = await client.call(noLeaderMs, (options) => client.kv.range(page, options));
      for (const entry of kvs) {
        const record = this.#decode(entry);
        if (record) records.push(record);
      }
      const last = kvs.at(-1);
      if (!more || !last) return records;
      key = Buffer.concat([last.key, Buffer.of(0)]);
    }
  }

  /** Undefined for what a newer version of us may have put there. */
  #decode({ key, value, modRevision }: KeyValue): (StoredRecord & { revision: number }) | undefined {
    const place = parseKey(Buffer.from(key).toString());
    if (!place) return undefined;
    const { table, id } = place;
    const object = JSON.parse(this.#options.cipher.open(value, placeOf(table, id)).toString());
    const revision = Number(modRevision);
    object.Version = { Index: revision + this.#offset };
    return { table, object, revision };
  }

  // Writing

  #transaction(batch: Batch, id: string): TxnRequest {
    const { nodeId, cipher } = this.#options;
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
    const marker = markerKey(nodeId);
    return txn(
      [
        ...batch.guards.map(({ table, id, revision }) =>
          modIs(keyOf(table, id), revision === 0 ? 0 : revision - this.#offset),
        ),
        modIs(marker, this.#marker),
      ],
      [...puts, ...batch.deletes.map(({ table, id }) => deleteOp(keyOf(table, id))), putOp(marker, bytesOf(id))],
    );
  }

  async #write(request: TxnRequest, pending: Pending): Promise<CommitResult> {
    const { client } = this.#options;
    const marker = this.#marker;
    try {
      const { succeeded, header } = await client.call(attemptMs, (options) => client.kv.txn(request, options));
      this.#leaderlessSince = undefined;
      // Every revision comes over the watch, so the one at which etcd refused will.
      if (!succeeded) return { kind: "conflict", revision: Number(header!.revision) + this.#offset };
      return await this.#written(pending, Number(header!.revision));
    } catch (error) {
      if (!(error instanceof EtcdFailure)) throw error;
      refuseWhatWasNotWritten(error);
      return await this.#findOut(pending, marker, error);
    }
  }

  /** The outcome of a transaction that depended on the marker's revision `marker`. */
  async #findOut(pending: Pending, marker: number, failure: EtcdFailure): Promise<CommitResult> {
    const { client, clock, nodeId, log } = this.#options;
    this.#leaderlessSince ??= clock.now() - attemptMs;
    log.info("the outcome of a write is not known, it is looked up", { error: messageOf(failure) });
    const key = markerKey(nodeId);
    const moveOn = txn([modIs(key, marker)], [putOp(key, bytesOf(`${pending.id}/never`))]);
    const written = await this.#led(async () => {
      const moved = await client.call(attemptMs, (options) => client.kv.txn(moveOn, options));
      if (moved.succeeded) {
        this.#marker = Math.max(this.#marker, Number(moved.header!.revision));
        return undefined;
      }
      const { kvs } = await client.call(attemptMs, (options) => client.kv.range({ key: bytesOf(key) }, options));
      const found = kvs[0];
      return found && Buffer.from(found.value).toString() === pending.id ? Number(found.modRevision) : undefined;
    });
    // Never written: as after a conflict, it may be tried again.
    return written === undefined ? { kind: "conflict" } : await this.#written(pending, written);
  }

  async #written(pending: Pending, revision: number): Promise<CommitResult> {
    pending.revision = revision;
    this.#marker = Math.max(this.#marker, revision);
    this.#deliverOwn();
    return { kind: "committed", revision: await pending.told.promise };
  }

  // Following

  #deliver(revision: number, writes: BackendCommit["writes"]): void {
    this.#delivered = revision;
    for (const { table, id, object } of writes) {
      if (!object) this.#known[table].delete(id);
      else if (!this.#known[table].has(id)) this.#known[table].add(object.ID);
    }
    this.#listener({ revision: revision + this.#offset, writes });
  }

  /** Tells of the own commit if everything before it has been told. */
  #deliverOwn(): void {
    const pending = this.#pending;
    if (pending?.revision === undefined || pending.revision > this.#delivered + 1) return;
    if (pending.revision > this.#delivered) this.#tellOwn(pending, pending.revision);
    // Else it was told of when everything was read anew.
    else pending.told.resolve(pending.revision + this.#offset);
  }

  #tellOwn(pending: Pending, revision: number): void {
    this.#pending = undefined;
    this.#deliver(revision, commitOf(pending.batch, revision).writes);
    pending.told.resolve(revision + this.#offset);
  }

  async #follow(): Promise<void> {
    const { clock, random, log } = this.#options;
    const backoff = new Backoff(watchBackoff, random);
    while (!this.#closed.signal.aborted) {
      const from = this.#delivered;
      try {
        await this.#watch();
      } catch (error) {
        if (this.#closed.signal.aborted) return;
        if (!(error instanceof EtcdFailure)) {
          log.error("the store cannot be followed any more", { error: messageOf(error) });
          this.fail(isShoalError(error) ? error : new ShoalError("Internal", "internal error", { cause: error }));
          return;
        }
        log.debug("the watch of the store has ended, it is begun again", { error: messageOf(error) });
      }
      if (this.#delivered !== from) backoff.reset();
      // Cut short when the backend is closed.
      await pause(clock, backoff.nextMs(), this.#closed.signal);
    }
  }

  /** Follows until the connection fails. Throws EtcdFailure where that is all, and anything else when it is lost. */
  async #watch(): Promise<void> {
    const { client } = this.#options;
    const signal = AbortSignal.any([this.#closed.signal, client.closed]);
    const request = create(WatchRequestSchema, {
      requestUnion: {
        case: "createRequest",
        // From the zero byte to the zero byte: everything.
        value: {
          key: Buffer.of(0),
          rangeEnd: Buffer.of(0),
          startRevision: BigInt(this.#delivered + 1),
          fragment: true,
        },
      },
    });
    let events: Event[] = [];
    const answers = client.watch.watch(onceUntil(request, signal), { signal })[Symbol.asyncIterator]();
    for (;;) {
      const next = await answers.next().catch((error: unknown) => {
        throw new EtcdFailure(error);
      });
      if (next.done) throw new EtcdFailure(new Error("etcd has ended the watch"));
      const answer = next.value;
      if (answer.canceled) {
        if (answer.compactRevision === 0n) throw new EtcdFailure(new Error(answer.cancelReason));
        await this.#catchUp();
        return;
      }
      events = events.length === 0 ? answer.events : events.concat(answer.events);
      if (answer.fragment) continue;
      this.#tell(events);
      events = [];
    }
  }

  /** Events in the order of revisions; those of one revision are one commit. */
  #tell(events: readonly Event[]): void {
    let start = 0;
    while (start < events.length) {
      const revision = events[start]!.kv!.modRevision;
      let end = start + 1;
      while (end < events.length && events[end]!.kv!.modRevision === revision) end++;
      this.#tellCommit(Number(revision), events.slice(start, end));
      start = end;
    }
    this.#deliverOwn();
  }

  #tellCommit(revision: number, events: readonly Event[]): void {
    const own = markerKey(this.#options.nodeId);
    const marker = events.find(({ kv }) => Buffer.from(kv!.key).toString() === own)?.kv;
    if (marker) this.#marker = Math.max(this.#marker, revision);
    if (revision <= this.#delivered) return;
    const pending = this.#pending;
    if (pending && marker && Buffer.from(marker.value).toString() === pending.id) {
      this.#tellOwn(pending, revision);
      return;
    }
    const writes = events.flatMap(({ type, kv }): BackendCommit["writes"] => {
      if (type === Event_Type.DELETE) {
        const place = parseKey(Buffer.from(kv!.key).toString());
        return place ? [{ ...place, object: undefined }] : [];
      }
      const record = this.#decode(kv!);
      return record ? [{ table: record.table, id: record.object.ID, object: record.object }] : [];
    });
    this.#deliver(revision, writes);
  }

  /**
   * What was compacted away cannot be watched: everything is read, and what differs is told. Revisions in between are
   * left out where later ones have overwritten them.
   */
  async #catchUp(): Promise<void> {
    this.#options.log.info("the store has moved on further than can be followed, it is read anew");
    const { revision, records } = await this.#snapshot();
    const gone = Object.fromEntries(tableNames.map((name) => [name, new Set(this.#known[name])])) as Ids;
    const commits = new Map<number, { table: TableName; id: string; object: StoredObject | undefined }[]>();
    for (const { table, object, revision: written } of records) {
      gone[table].delete(object.ID);
      if (written <= this.#delivered) continue;
      const writes = commits.get(written) ?? [];
      writes.push({ table, id: object.ID, object });
      commits.set(written, writes);
    }
    const deletes = tableNames.flatMap((table) => [...gone[table]].map((id) => ({ table, id, object: undefined })));
    commits.set(revision, [...deletes, ...(commits.get(revision) ?? [])]);
    for (const [written, writes] of [...commits].sort(([a], [b]) => a - b)) {
      if (written > this.#delivered) this.#deliver(written, writes);
    }
    this.#deliverOwn();
  }
}

/** The object as it is kept: its JSON without the version, sealed to its place. */
export function sealed(cipher: ValueCipher, table: TableName, object: StoredObject): Buffer {
  const { Version: _, ...rest } = object;
  return cipher.seal(Buffer.from(JSON.stringify(rest)), placeOf(table, object.ID));
}

/** Throws for the failures by which etcd says that it has not written and will not. */
function refuseWhatWasNotWritten(failure: EtcdFailure): void {
  if (failure.says("database space exceeded")) {
    throw new ShoalError("ResourceExhausted", "the store is full", { cause: failure });
  }
  if (failure.says("request is too large") || failure.says("too many operations")) {
    throw new ShoalError("ResourceExhausted", "a change is larger than the store takes at once", { cause: failure });
  }
}

/** The one request of a stream that stays open until the signal aborts. */
async function* onceUntil<T>(request: T, signal: AbortSignal): AsyncGenerator<T, void, void> {
  yield request;
  if (!signal.aborted) await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
}
