/**
 * A replica whose place can change while the store is in use: a cluster that gets its second manager moves from LMDB
 * into etcd. Nearly all of it is copied while it is in use; writes wait for the rest, and none is lost or written twice.
 *
 * Invariant: at any moment one place takes writes. A write that waits is tried in the new place with the versions that
 * its objects had in the old one: it conflicts, and is planned anew from what is there.
 */
import { assert } from "../lib/errors.ts";
import type { Backend, BackendCommit, Batch, CommitResult, StoredRecord } from "./backend.ts";
import type { Election, Replica, ReplicaMember } from "./replica.ts";
import type { Store } from "./store.ts";
import { type TableName, tableNames } from "./tables.ts";
import type { Fence } from "./view.ts";

class MovableBackend implements Backend {
  place: Backend;
  /** While the place changes; writes wait for it. */
  moving: Promise<void> | undefined;
  #writing: Promise<unknown> = Promise.resolve();
  #listener: ((commit: BackendCommit) => void) | undefined;
  #lost: (error: unknown) => void = () => {};

  constructor(place: Backend) {
    this.place = place;
  }

  load(): Promise<{ readonly revision: number; readonly records: Iterable<StoredRecord> }> {
    return this.place.load();
  }

  follow(listener: (commit: BackendCommit) => void, lost: (error: unknown) => void): void {
    this.#listener = listener;
    this.#lost = lost;
    this.place.follow(listener, lost);
  }

  /** The new place from now on, in the turn in which it was loaded. */
  settle(place: Backend): void {
    assert(this.#listener, "a store that moves is open");
    this.place = place;
    place.follow(this.#listener, this.#lost);
  }

  async commit(batch: Batch): Promise<CommitResult> {
    while (this.moving) await this.moving; // and on to the write in the same turn
    const committing = this.place.commit(batch);
    this.#writing = committing.catch(() => undefined); // its caller hears of it
    return await committing;
  }

  /** Resolves when no write is under way. */
  async still(): Promise<void> {
    await this.#writing;
  }

  currentRevision(): Promise<number> {
    return this.place.currentRevision();
  }

  close(): Promise<void> {
    return this.place.close();
  }
}

class MovableElection implements Election {
  readonly #listeners = new Set<(fence: Fence | undefined) => void>();
  #inner: Election;
  #unwatch: () => void;

  constructor(inner: Election) {
    this.#inner = inner;
    this.#unwatch = inner.watch((fence) => this.#tell(fence));
  }

  get fence(): Fence | undefined {
    return this.#inner.fence;
  }

  watch(listener: (fence: Fence | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  resign(): Promise<void> {
    return this.#inner.resign();
  }

  stop(): Promise<void> {
    this.#unwatch();
    return this.#inner.stop();
  }

  async replace(inner: Election): Promise<void> {
    await this.stop();
    this.#inner = inner;
    this.#unwatch = inner.watch((fence) => this.#tell(fence));
    this.#tell(inner.fence);
  }

  #tell(fence: Fence | undefined): void {
    for (const listener of this.#listeners) listener(fence);
  }
}

/** A new, empty place that a store is copied into. */
export interface Destination {
  /** Writes these objects over what it has of them; one that is undefined is gone. Resolves when it has them. */
  copy(writes: BackendCommit["writes"]): Promise<void>;
  /**
   * Makes it a store that can be loaded, whose revisions go on from this one. Rejects where it has not exactly these
   * objects.
   */
  finish(content: { readonly revision: number; readonly records: Iterable<StoredRecord> }): Promise<void>;
}

/** So few changes are copied in a moment: writes may wait for them. */
const fewChanges = 500;
/** Copying what has changed in the meantime takes less time than what it was the meantime of; if not, writes wait. */
const roundsAtMost = 8;

export class MovableReplica<R extends Replica = Replica> implements Replica {
  readonly #backend: MovableBackend;
  #place: R;
  #election: MovableElection | undefined;

  constructor(place: R) {
    this.#place = place;
    this.#backend = new MovableBackend(place.backend);
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** Where it is now. */
  get place(): R {
    return this.#place;
  }

  async elect(store: Store): Promise<Election> {
    this.#election = new MovableElection(await this.#place.elect(store));
    return this.#election;
  }

  members(): Promise<readonly ReplicaMember[]> {
    return this.#place.members();
  }

  stop(): Promise<void> {
    return this.#place.stop();
  }

  /**
   * Moves to `next`, which is empty. Writes go on while it is filled, and wait only for the last of it. When it rejects,
   * everything is as it was, and `next` is the caller's to remove.
   * @param settle makes it the place that the next start opens; called when it has everything
   */
  async move(store: Store, next: R & Destination, settle: () => Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const backend = this.#backend;
    const before = this.#place;
    const changed = new ChangedObjects(store);
    try {
      await next.copy(everythingIn(store).map(({ table, object }) => ({ table, id: object.ID, object })));
      for (let round = 0; changed.size > fewChanges && round < roundsAtMost; round++) await next.copy(changed.take());
      backend.moving = promise;
      await backend.still();
      await next.copy(changed.take());
      await next.finish({ revision: store.view.revision, records: everythingIn(store) });
      await settle();
      const loaded = await next.backend.load();
      backend.settle(next.backend);
      store.renumber(loaded);
      this.#place = next;
    } finally {
      changed.stop();
      backend.moving = undefined;
      resolve();
    }
    await this.#election?.replace(await next.elect(store));
    await before.backend.close();
    await before.stop();
  }
}

/** A copy of the list: it stays what it is while the store is written to. */
function everythingIn({ view }: Store): StoredRecord[] {
  return tableNames.flatMap((table: TableName) => [...view.all(table)].map((object) => ({ table, object })));
}

/** What was changed since it was last taken. */
class ChangedObjects {
  readonly #store: Store;
  readonly #places = new Map<string, { readonly table: TableName; readonly id: string }>();
  readonly stop: () => void;

  constructor(store: Store) {
    this.#store = store;
    this.stop = store.watch(({ changes }) => {
      for (const { table, id } of changes) this.#places.set(`${table}/${id}`, { table, id });
    });
  }

  get size(): number {
    return this.#places.size;
  }

  /** As they are now. */
  take(): BackendCommit["writes"] {
    const places = [...this.#places.values()];
    this.#places.clear();
    return places.map(({ table, id }) => ({ table, id, object: this.#store.view.get(table, id) }));
  }
}
