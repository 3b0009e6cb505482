/**
 * The store: every object in memory, indexed, and every write one optimistic transaction in the backend.
 *
 * - `view` is what is committed, always consistent within one turn of the event loop (never keep it over an `await`
 *   if you need one moment's truth).
 * - `update(change)` runs a synchronous, repeatable function on a transaction that sees the committed state and its
 *   own writes. Transactions that wait at the same time are committed together (group commit): each sees those before
 *   it, a thrown error takes back only its own writes, and nobody outside sees any of them until the backend has them
 *   for good.
 * - `watch(listener)` is told of each commit, in order, after it is visible.
 */
import type { Clock } from "../lib/clock.ts";
import { rfc3339 } from "../lib/clock.ts";
import { assert, ShoalError } from "../lib/errors.ts";
import { limits } from "../lib/limits.ts";
import type { StoredObject } from "../model/types.ts";
import type { Backend, BackendCommit, StoredRecord } from "./backend.ts";
import type { Table } from "./table.ts";
import { type TableName, type Tables, tableNames, tableOf } from "./tables.ts";
import { BaseView, type Fence, type HeardTimes, Transaction, type View } from "./view.ts";

export type { Fence, Transaction, View } from "./view.ts";

/** One object's change in a commit: created (no `before`), updated, or deleted (no `after`). */
export type Change = {
  [T in TableName]: {
    readonly table: T;
    readonly id: string;
    readonly before: Tables[T] | undefined;
    readonly after: Tables[T] | undefined;
  };
}[TableName];

export interface Commit {
  readonly revision: number;
  readonly changes: readonly Change[];
}

type AnyTable = Table<StoredObject>;

export interface UpdateOptions {
  readonly alone?: boolean;
  readonly fence?: Fence;
}

interface Waiting {
  readonly change: (tx: Transaction) => unknown;
  readonly alone: boolean;
  readonly fence: Fence | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

function emptyTables(): Record<TableName, AnyTable> {
  return Object.fromEntries(tableNames.map((name) => [name, tableOf(name)])) as Record<TableName, AnyTable>;
}

export class Store {
  readonly #backend: Backend;
  readonly #clock: Clock;
  readonly #tables = emptyTables();
  readonly #heard: HeardTimes = new WeakMap();
  readonly #view: CommittedView;
  readonly #watchers = new Set<(commit: Commit) => void>();
  #waiting: Waiting[] = [];
  /** Who waits for the view to reach a revision. */
  #behind: { revision: number; resolve: () => void; reject: (error: unknown) => void }[] = [];
  #committing = false;
  #closed = false;
  #lost: { readonly error: unknown } | undefined;
  #idle: (() => void) | undefined;

  private constructor(backend: Backend, clock: Clock) {
    this.#backend = backend;
    this.#clock = clock;
    this.#view = new CommittedView(this.#tables, this.#heard);
  }

  /** Loads everything from the backend. */
  static async open(backend: Backend, clock: Clock): Promise<Store> {
    const store = new Store(backend, clock);
    const { revision, records } = await backend.load();
    for (const { table, object } of records) store.#tables[table].set(object);
    store.#view.revision = revision;
    backend.follow(
      (commit) => store.#apply(commit),
      (error) => store.#lose(error),
    );
    return store;
  }

  /** The committed state. Its iterators are live: do not write while iterating over an await. */
  get view(): View {
    return this.#view;
  }

  /**
   * Runs `change` in a transaction and resolves to its result when the write is durable and visible.
   * `change` must be synchronous and repeatable: after a conflict it runs again. Throwing undoes it and rejects.
   * @param options.fence the lead under which it is written: it is refused with Aborted once another manager leads
   * @param options.alone its transaction is committed by itself, so that what it reads is exactly `view` (for code
   * that keeps an index of its own, fed by `watch`)
   */
  update<R>(change: (tx: Transaction) => R, options?: UpdateOptions): Promise<R> {
    if (this.#lost) return Promise.reject(this.#lost.error);
    if (this.#closed) return Promise.reject(new ShoalError("Unavailable", "the store is closed"));
    return new Promise<R>((resolve, reject) => {
      this.#waiting.push({
        change,
        alone: options?.alone ?? false,
        fence: options?.fence,
        resolve: resolve as (value: unknown) => void,
        reject,
      });
      if (!this.#committing) {
        this.#committing = true;
        // The turn's end, so that writes asked for together are committed together.
        queueMicrotask(() => void this.#commitWaiting());
      }
    });
  }

  /** Tells `listener` of each later commit, synchronously after it is visible. Returns the way to stop. */
  watch(listener: (commit: Commit) => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  /**
   * Resolves when `view` has every write that was answered, by any manager, before this call.
   * Unavailable where that can't be known: no quorum, or the backend is lost.
   */
  async caughtUp(): Promise<void> {
    const revision = await this.#backend.currentRevision();
    await this.#reached(revision);
  }

  /**
   * The same objects, now kept by another backend, where their last writes have other revisions (never older ones):
   * nothing else has changed, so nobody is told. Called in the turn in which that backend was loaded.
   */
  renumber({ revision, records }: { readonly revision: number; readonly records: Iterable<StoredRecord> }): void {
    for (const { table, object } of records) {
      const known = this.#tables[table].get(object.ID);
      assert(known, `${table} ${object.ID} has moved with the store`);
      const heardAt = this.#heard.get(known.Version);
      if (heardAt !== undefined) this.#heard.set(object.Version, heardAt);
      (known as { Version: { Index: number } }).Version = object.Version;
    }
    this.#view.revision = revision;
  }

  /** Resolves when `view` has at least this revision. */
  #reached(revision: number): Promise<void> {
    if (this.#lost) return Promise.reject(this.#lost.error);
    if (this.#view.revision >= revision) return Promise.resolve();
    return new Promise((resolve, reject) => this.#behind.push({ revision, resolve, reject }));
  }

  /** Commits what waits, refuses what comes later, and closes the backend. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#committing) await new Promise<void>((resolve) => (this.#idle = resolve));
    await this.#backend.close();
  }

  async #commitWaiting(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch();
      try {
        await this.#commitBatch(batch);
      } catch (error) {
        for (const waiting of batch) waiting.reject(error);
      }
    }
    this.#committing = false;
    this.#idle?.();
  }

  #takeBatch(): Waiting[] {
    if (this.#waiting[0]?.alone) return this.#waiting.splice(0, 1);
    let end = 0;
    while (end < this.#waiting.length && end < limits.transactionsPerCommit && !this.#waiting[end]?.alone) end++;
    return this.#waiting.splice(0, end);
  }

  async #commitBatch(batch: Waiting[]): Promise<void> {
    for (let attempt = 0; attempt < limits.commitAttempts; attempt++) {
      const now = rfc3339(this.#clock.now());
      const tx = new Transaction(this.#tables, this.#heard, this.#view.revision, now);
      const results: (() => void)[] = [];
      for (const waiting of batch) {
        const mark = tx.mark();
        try {
          if (waiting.fence) tx.requireLead(waiting.fence);
          const result = waiting.change(tx);
          assert(!(result instanceof Promise), "a transaction is synchronous");
          results.push(() => waiting.resolve(result));
        } catch (error) {
          tx.undoTo(mark);
          results.push(() => waiting.reject(error));
        }
      }
      if (tx.isEmpty) {
        for (const settle of results) settle();
        return;
      }
      const outcome = await this.#backend.commit(tx.toBatch());
      if (outcome.kind === "conflict") {
        // Another manager was faster: planned again on what it wrote.
        if (outcome.revision === undefined) await this.caughtUp();
        else await this.#reached(outcome.revision);
        continue;
      }
      await this.#reached(outcome.revision);
      for (const settle of results) settle();
      return;
    }
    throw new ShoalError("Aborted", "too many conflicting writes, try again");
  }

  #apply({ revision, writes }: BackendCommit): void {
    const changes: Change[] = [];
    const version = { Index: revision };
    this.#heard.set(version, this.#clock.now());
    for (const { table, id, object } of writes) {
      const before = this.#tables[table].get(id);
      if (object) {
        // Nobody else has seen the object yet: its version is set in place.
        (object as { Version: { Index: number } }).Version = version;
        this.#tables[table].set(object);
      } else this.#tables[table].delete(id);
      if (before || object) changes.push({ table, id, before, after: object } as Change);
    }
    this.#view.revision = revision;
    for (const watcher of this.#watchers) watcher({ revision, changes });
    if (this.#behind.length > 0) {
      const waiting = this.#behind;
      this.#behind = waiting.filter((wait) => wait.revision > revision);
      for (const wait of waiting) if (wait.revision <= revision) wait.resolve();
    }
  }

  #lose(error: unknown): void {
    this.#lost = { error };
    for (const wait of this.#behind) wait.reject(error);
    this.#behind = [];
  }
}

class CommittedView extends BaseView {
  revision = 0;
  readonly #tables: Record<TableName, AnyTable>;
  readonly #heard: HeardTimes;

  constructor(tables: Record<TableName, AnyTable>, heard: HeardTimes) {
    super();
    this.#tables = tables;
    this.#heard = heard;
  }

  override heardAt({ Version }: StoredObject): number | undefined {
    return this.#heard.get(Version);
  }

  override get<T extends TableName>(table: T, id: string): Tables[T] | undefined {
    return this.#tables[table].get(id) as Tables[T] | undefined;
  }

  override all<T extends TableName>(table: T): Iterable<Tables[T]> {
    return this.#tables[table].values() as Iterable<Tables[T]>;
  }

  override count(table: TableName): number {
    return this.#tables[table].size;
  }

  override find<T extends TableName>(table: T, index: string, key: string): Iterable<Tables[T]> {
    return this.#tables[table].find(index, key) as Iterable<Tables[T]>;
  }
}
