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
import { Backoff } from "../../lib/backoff.ts";
import { type Clock, pause } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import {
  type Backend,
  type BackendCommit,
  type Batch,
  type CommitResult,
  commitOf,
  type StoredRecord,
} from "../backend.ts";
import type { ValueCipher } from "../encryption.ts";
import { missedCommits, noIds } from "./catch-up.ts";
import { type EtcdClient, EtcdFailure } from "./client.ts";
import { Event_Type, type TxnRequest } from "./gen/etcd_pb.js";
import { headKey, markerKey, parseKey } from "./keys.ts";
import { attemptMs, Leadership } from "./leadership.ts";
import { type EtcdRecord, opened } from "./records.ts";
import { SharedRead } from "./shared-read.ts";
import { readSnapshot } from "./snapshot.ts";
import { refuseWhatWasNotWritten, transactionOf } from "./transaction.ts";
import { commitsFrom, compacted, type EtcdCommit } from "./watch.ts";
import { bytesOf, modIs, putOp, txn } from "./wire.ts";

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
  readonly #leadership: Leadership;
  /** Every object's id, for what a compaction may hide: the id is the object's own string. */
  readonly #known = noIds();
  #listener: (commit: BackendCommit) => void = () => {};
  #lost: (error: unknown) => void = () => {};
  readonly #revisions = new SharedRead(() => this.#readRevision());
  #following: Promise<void> = Promise.resolve();

  constructor(options: EtcdBackendOptions) {
    this.#options = options;
    const { clock, trouble } = options;
    this.#leadership = new Leadership({ clock, trouble, closed: this.#closed.signal });
    this.#run = newId(options.random);
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
    const marker = { nodeId: this.#options.nodeId, found: this.#marker, left: id };
    const request = transactionOf(batch, marker, this.#options.cipher, this.#offset);
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

  currentRevision(): Promise<number> {
    return this.#revisions.read();
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

  async #readRevision(): Promise<number> {
    const { client } = this.#options;
    const read = { key: bytesOf(headKey), countOnly: true };
    const { header } = await this.#leadership.led(() =>
      client.call(attemptMs, (options) => client.kv.range(read, options)),
    );
    return Number(header!.revision) + this.#offset;
  }

  /** Everything there is; what it says of offset and marker counts from here on. */
  async #snapshot(): Promise<Loaded & { readonly records: readonly EtcdRecord[] }> {
    const { revision, offset, marker, records } = await readSnapshot(this.#options, this.#closed.signal);
    this.#offset = offset;
    this.#marker = marker;
    return { revision, records };
  }

  // Writing

  async #write(request: TxnRequest, pending: Pending): Promise<CommitResult> {
    const { client } = this.#options;
    const marker = this.#marker;
    try {
      const { succeeded, header } = await client.call(attemptMs, (options) => client.kv.txn(request, options));
      this.#leadership.answered();
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
    const { client, nodeId, log } = this.#options;
    this.#leadership.unanswered();
    log.info("the outcome of a write is not known, it is looked up", { error: messageOf(failure) });
    const key = markerKey(nodeId);
    const moveOn = txn([modIs(key, marker)], [putOp(key, bytesOf(`${pending.id}/never`))]);
    const written = await this.#leadership.led(async () => {
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
    for await (const commits of commitsFrom(this.#options.client, this.#delivered + 1, this.#closed.signal)) {
      if (commits === compacted) return await this.#catchUp();
      for (const commit of commits) this.#tellCommit(commit);
      this.#deliverOwn();
    }
  }

  #tellCommit({ revision, events }: EtcdCommit): void {
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
      const record = opened(this.#options.cipher, this.#offset, kv!);
      return record ? [{ table: record.table, id: record.object.ID, object: record.object }] : [];
    });
    this.#deliver(revision, writes);
  }

  /** What was compacted away cannot be watched: everything is read, and what differs is told. */
  async #catchUp(): Promise<void> {
    this.#options.log.info("the store has moved on further than can be followed, it is read anew");
    const { revision, records } = await this.#snapshot();
    for (const commit of missedCommits(this.#known, this.#delivered, { revision, records })) {
      this.#deliver(commit.revision, commit.writes);
    }
    this.#deliverOwn();
  }
}
