/**
 * A replica whose place can change while the store is in use: a cluster that gets its second manager moves from LMDB
 * into etcd. Reads go on, writes wait, and none is lost or written twice.
 *
 * Invariant: at any moment one place takes writes. A write that waits is tried in the new place with the versions that
 * its objects had in the old one: it conflicts, and is planned anew from what is there.
 */
import { assert } from "../lib/errors.ts";
import type { Backend, BackendCommit, Batch, CommitResult, StoredRecord } from "./backend.ts";
import type { Election, Replica, ReplicaMember } from "./replica.ts";
import type { Store } from "./store.ts";
import type { Fence } from "./view.ts";

class MovableBackend implements Backend {
  place: Backend;
  /** Pending while the place changes; writes wait for it. */
  moving: Promise<void> = Promise.resolve();
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
    await this.moving;
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
   * Moves to `next`. Writes wait from here on until it resolves; when it rejects, everything is as it was, and `next`
   * is the caller's to remove.
   * @param fill puts what the store has into the new place, and makes it the one that the next start opens
   */
  async move(store: Store, next: R, fill: () => Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const backend = this.#backend;
    const before = this.#place;
    backend.moving = promise;
    try {
      await backend.still();
      await fill();
      const loaded = await next.backend.load();
      backend.settle(next.backend);
      store.renumber(loaded);
      this.#place = next;
    } finally {
      resolve();
    }
    await this.#election?.replace(await next.elect(store));
    await before.backend.close();
    await before.stop();
  }
}
