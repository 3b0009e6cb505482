import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import type { Network, StoredObject } from "../model/types.ts";
import type { BackendCommit, StoredRecord } from "./backend.ts";
import { MemoryBackend } from "./memory.ts";
import { type Destination, MovableReplica } from "./movable.ts";
import { type Replica, SingleReplica } from "./replica.ts";
import { Store } from "./store.ts";
import type { Draft } from "./view.ts";

function network(ID: string): Draft<Network> {
  return { ID, Name: ID, Labels: {}, Driver: "host", Predefined: false };
}

async function afterTurns(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await Promise.resolve();
}

async function opened(backend = new MemoryBackend()) {
  const replica = new MovableReplica<Replica>(new SingleReplica(backend, "m1"));
  const store = await Store.open(replica.backend, new FakeClock());
  const election = await replica.elect(store);
  await store.update((tx) => tx.create("networks", network("before")));
  return { replica, store, election };
}

/** A new place, far ahead in its own revisions; `onCopy` is called before it takes each part. */
class NewPlace extends SingleReplica implements Destination {
  readonly parts: number[] = [];
  readonly #objects = new Map<string, StoredRecord>();
  readonly #onCopy: (part: number) => Promise<void>;

  constructor(onCopy: (part: number) => Promise<void> = async () => {}) {
    super(new MemoryBackend(), "m1");
    this.#onCopy = onCopy;
  }

  async copy(writes: BackendCommit["writes"]): Promise<void> {
    await this.#onCopy(this.parts.length);
    this.parts.push(writes.length);
    for (const { table, id, object } of writes) {
      if (object) this.#objects.set(`${table}/${id}`, { table, object });
      else this.#objects.delete(`${table}/${id}`);
    }
  }

  async finish({ records }: { readonly records: Iterable<StoredRecord> }): Promise<void> {
    const wanted = [...records].map(({ object }) => object);
    const has = [...this.#objects.values()].map(({ object }) => object);
    const byId = (left: StoredObject, right: StoredObject) => (left.ID < right.ID ? -1 : 1);
    assert.deepEqual(has.toSorted(byId), wanted.toSorted(byId));
    // What a store that is open on it does: objects get their version when they are written.
    this.backend.follow(
      ({ revision, writes }) => {
        for (const { object } of writes) (object as { Version: { Index: number } }).Version = { Index: revision };
      },
      () => {},
    );
    for (let ahead = 0; ahead < 2_000; ahead++) await this.backend.commit({ puts: [], deletes: [], guards: [] });
    const puts = [...this.#objects.values()].map(({ table, object }) => ({ table, object: { ...object } }));
    await this.backend.commit({ puts, deletes: [], guards: [] });
  }
}

async function networksIn({ backend }: Replica): Promise<string[]> {
  const { records } = await backend.load();
  return [...records].filter(({ table }) => table === "networks").map(({ object }) => object.ID);
}

const nothing = async () => {};

test("writes go on while the store is copied, and wait only for the last of it; each is there once", async () => {
  const { replica, store } = await opened();
  const seen: string[] = [];
  store.watch(({ changes }) => seen.push(...changes.filter(({ table }) => table === "networks").map(({ id }) => id)));
  const place = new NewPlace(async (part) => {
    if (part > 0) return;
    await store.update((tx) => tx.create("networks", network("while-copied")));
    await store.update((tx) => tx.create("networks", network("short-lived")));
    await store.update((tx) => tx.delete("networks", "short-lived"));
    await store.update((tx) => tx.delete("networks", "before"));
  });
  let waiting: Promise<unknown> = Promise.resolve();
  await replica.move(store, place, async () => {
    waiting = store.update((tx) => tx.create("networks", network("waited")));
    await afterTurns(20);
    assert.equal(store.view.networkByName("waited"), undefined);
  });
  await waiting;
  await store.update((tx) => tx.put("networks", { ...tx.get("networks", "waited")!, Labels: { moved: "yes" } }));
  assert.deepEqual(seen, ["while-copied", "short-lived", "short-lived", "before", "waited", "waited"]);
  assert.deepEqual((await networksIn(place)).toSorted(), ["waited", "while-copied"]);
});

test("much that was changed in the meantime is copied before writes wait", async () => {
  const { replica, store } = await opened();
  const many = Array.from({ length: 2_000 }, (_, index) => `n${index}`);
  const place = new NewPlace(async (part) => {
    if (part === 0) await store.update((tx) => many.map((id) => tx.create("networks", network(id))).length);
    if (part === 1) await store.update((tx) => tx.create("networks", network("last")));
  });
  await replica.move(store, place, nothing);
  assert.deepEqual(place.parts, [2, many.length, 1]);
  assert.equal((await networksIn(place)).length, many.length + 2);
});

test("a write that begins in the very turn in which writes begin to wait is not lost", async () => {
  for (let turns = 0; turns < 30; turns++) {
    const backend = new MemoryBackend();
    const commit = backend.commit.bind(backend);
    backend.commit = async (batch) => {
      await afterTurns(50);
      return await commit(batch);
    };
    const { replica, store } = await opened(backend);
    const begun = Promise.withResolvers<{ readonly writing: Promise<unknown> }>();
    const place = new NewPlace(async (part) => {
      if (part > 0) return;
      const copying = afterTurns(20);
      void afterTurns(turns).then(() => {
        begun.resolve({ writing: store.update((tx) => tx.create("networks", network("at-once"))) });
      });
      await copying;
    });
    await replica.move(store, place, nothing);
    await (await begun.promise).writing;
    assert.deepEqual((await networksIn(place)).toSorted(), ["at-once", "before"], `${turns} turns`);
  }
});

test("versions are those of the new place, none older than before", async () => {
  const { replica, store } = await opened();
  const before = store.view.get("networks", "before")!.Version.Index;
  await replica.move(store, new NewPlace(), nothing);
  const after = store.view.get("networks", "before")!.Version.Index;
  assert.ok(after > before, `${after} after ${before}`);
  assert.ok(store.view.revision >= after);
});

test("whoever led leads on with a new lead, and the old one writes nothing", async () => {
  const { replica, store, election } = await opened();
  const old = election.fence!;
  const leads: (number | undefined)[] = [];
  election.watch((fence) => leads.push(fence?.revision));
  await replica.move(store, new NewPlace(), nothing);
  assert.deepEqual(leads, [election.fence?.revision]);
  assert.notEqual(election.fence?.revision, old.revision);
  const late = store.update((tx) => tx.create("networks", network("late")), { fence: old });
  await assert.rejects(late, { code: "Aborted" });
});

test("a move that fails at any point leaves everything where it was", async () => {
  const noRoom = () => Promise.reject(new Error("no room"));
  const failing: [NewPlace, () => Promise<void>][] = [
    [new NewPlace(noRoom), nothing],
    [new NewPlace((part) => (part > 0 ? noRoom() : nothing())), nothing],
    [new NewPlace(), noRoom],
  ];
  for (const [place, settle] of failing) {
    const { replica, store } = await opened();
    await assert.rejects(replica.move(store, place, settle), /no room/);
    await store.update((tx) => tx.create("networks", network("after")));
    assert.notEqual(replica.place, place);
    assert.ok(store.view.networkByName("after"));
  }
});
