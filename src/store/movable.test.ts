import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import type { Network } from "../model/types.ts";
import { MemoryBackend } from "./memory.ts";
import { MovableReplica } from "./movable.ts";
import { SingleReplica } from "./replica.ts";
import { Store } from "./store.ts";
import type { Draft } from "./view.ts";

function network(ID: string): Draft<Network> {
  return { ID, Name: ID, Labels: {}, Driver: "host", Predefined: false };
}

async function opened() {
  const replica = new MovableReplica(new SingleReplica(new MemoryBackend(), "m1"));
  const store = await Store.open(replica.backend, new FakeClock());
  const election = await replica.elect(store);
  await store.update((tx) => tx.create("networks", network("before")));
  return { replica, store, election };
}

/** A new place, far ahead in its own revisions, and the way to put the store into it. */
function newPlace(store: Store) {
  const backend = new MemoryBackend();
  // What a store that is open on it does: objects get their version when they are written.
  backend.follow(({ revision, writes }) => {
    for (const { object } of writes) (object as { Version: { Index: number } }).Version = { Index: revision };
  });
  const fill = async () => {
    for (let ahead = 0; ahead < 100; ahead++) {
      await backend.commit({ puts: [], deletes: [], guards: [] });
    }
    for (const table of ["locks", "networks"] as const) {
      const puts = [...store.view.all(table)].map((object) => ({ table, object: { ...object } }));
      await backend.commit({ puts, deletes: [], guards: [] });
    }
  };
  return { place: new SingleReplica(backend, "m1"), fill };
}

test("writes wait while the store moves, and each is there once, in the new place", async () => {
  const { replica, store } = await opened();
  const { place, fill } = newPlace(store);
  let waiting: Promise<unknown> = Promise.resolve();
  const seen: string[] = [];
  store.watch(({ changes }) => seen.push(...changes.filter(({ table }) => table === "networks").map(({ id }) => id)));
  await replica.move(store, place, async () => {
    await fill();
    waiting = store.update((tx) => tx.create("networks", network("meanwhile")));
    assert.equal(store.view.networkByName("meanwhile"), undefined);
  });
  await waiting;
  await store.update((tx) => tx.put("networks", { ...tx.get("networks", "before")!, Labels: { moved: "yes" } }));
  assert.deepEqual(seen, ["meanwhile", "before"]);
  const { records } = await place.backend.load();
  const names = [...records].filter(({ table }) => table === "networks").map(({ object }) => object.ID);
  assert.deepEqual(names.sort(), ["before", "meanwhile"]);
});

test("versions are those of the new place, none older than before", async () => {
  const { replica, store } = await opened();
  const { place, fill } = newPlace(store);
  const before = store.view.get("networks", "before")!.Version.Index;
  await replica.move(store, place, fill);
  const after = store.view.get("networks", "before")!.Version.Index;
  assert.ok(after > before, `${after} after ${before}`);
  assert.ok(store.view.revision >= after);
});

test("whoever led leads on with a new lead, and the old one writes nothing", async () => {
  const { replica, store, election } = await opened();
  const { place, fill } = newPlace(store);
  const old = election.fence!;
  const leads: (number | undefined)[] = [];
  election.watch((fence) => leads.push(fence?.revision));
  await replica.move(store, place, fill);
  assert.deepEqual(leads, [election.fence?.revision]);
  assert.notEqual(election.fence?.revision, old.revision);
  const late = store.update((tx) => tx.create("networks", network("late")), { fence: old });
  await assert.rejects(late, { code: "Aborted" });
});

test("a move that fails leaves everything where it was", async () => {
  const { replica, store } = await opened();
  const { place } = newPlace(store);
  const failed = replica.move(store, place, () => Promise.reject(new Error("no room")));
  await assert.rejects(failed, /no room/);
  await store.update((tx) => tx.create("networks", network("after")));
  assert.notEqual(replica.place, place);
  assert.ok(store.view.networkByName("after"));
});
