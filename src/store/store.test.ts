import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { systemClock } from "../lib/clock.ts";
import { FakeClock } from "../lib/fake-clock.ts";
import type { Backend, Batch, CommitResult } from "./backend.ts";
import { MemoryBackend } from "./memory.ts";
import { type Commit, Store } from "./store.ts";
import { leadLock } from "./view.ts";

const network = (ID: string, Name = ID) => ({ ID, Name, Labels: {}, Driver: "bridge", Predefined: false });
const open = (backend: Backend = new MemoryBackend()) => Store.open(backend, systemClock);

describe("store", () => {
  it("says when it heard of each object's last write, by its own clock, whatever the writer's says", async () => {
    const memory = new MemoryBackend();
    const writer = await Store.open(memory, new FakeClock(0));
    await writer.update((tx) => tx.create("networks", network("old")));
    const clock = new FakeClock(5_000);
    const store = await Store.open(memory, clock);
    const heardAt = (id: string) => store.view.heardAt(store.view.network(id)!);
    assert.equal(heardAt("old"), undefined, "it was there already");
    await writer.update((tx) => tx.create("networks", network("new")));
    clock.stall(1_000);
    await writer.update((tx) => tx.put("networks", tx.network("old")!));
    assert.deepEqual([heardAt("new"), heardAt("old")], [5_000, 6_000]);
    clock.stall(1_000);
    await store.update((tx) => {
      const before = tx.heardAt(tx.network("new")!);
      const after = tx.heardAt(tx.put("networks", tx.network("new")!));
      assert.deepEqual([before, after], [5_000, 7_000], "what is being written is written now");
    });
    assert.equal(heardAt("new"), 7_000);
  });

  it("refuses a fenced write once another manager leads, alone and in a commit with others", async () => {
    const store = await open();
    const lead = await store.update((tx) => tx.create("locks", { ID: leadLock, Holder: "m1" }));
    const fence = { nodeId: "m1", revision: lead.Version.Index };
    await store.update((tx) => tx.create("networks", network("n1")), { fence });
    const [taken, late, free] = await Promise.allSettled([
      store.update((tx) => tx.put("locks", { ...tx.get("locks", leadLock)!, Holder: "m2" })),
      store.update((tx) => tx.create("networks", network("n2")), { fence }),
      store.update((tx) => tx.create("networks", network("n3"))),
    ]);
    assert.deepEqual([taken?.status, late?.status, free?.status], ["fulfilled", "rejected", "fulfilled"]);
    await assert.rejects(
      store.update((tx) => tx.create("networks", network("n4")), { fence }),
      { code: "Aborted" },
    );
    assert.deepEqual(
      [...store.view.all("networks")].map(({ ID }) => ID),
      ["n1", "n3"],
    );
  });

  it("guards a fenced commit by the lead's row in the backend", async () => {
    const memory = new MemoryBackend();
    const batches: Batch[] = [];
    const store = await open({
      load: () => memory.load(),
      follow: (listener) => memory.follow(listener),
      commit: (batch) => {
        batches.push(batch);
        return memory.commit(batch);
      },
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    });
    await store.update((tx) => tx.create("locks", { ID: leadLock, Holder: "m1" }));
    await store.update((tx) => tx.create("networks", network("n1")), { fence: { nodeId: "m1", revision: 1 } });
    assert.deepEqual(batches[1]?.guards, [
      { table: "networks", id: "n1", revision: 0 },
      { table: "locks", id: leadLock, revision: 1 },
    ]);
  });

  it("waits for commits that the backend tells of late, and fails who waits when it can't be followed any more", async () => {
    const memory = new MemoryBackend();
    let tell = () => {};
    let lose = (_: unknown) => {};
    const store = await open({
      load: () => memory.load(),
      follow: (listener, lost) => {
        lose = lost;
        memory.follow((commit) => (tell = () => listener(commit)));
      },
      commit: (batch) => memory.commit(batch),
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    });
    let done = false;
    const write = store.update((tx) => tx.create("networks", network("n1"))).then(() => (done = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(done, false);
    const read = store.caughtUp();
    tell();
    await Promise.all([write, read]);
    assert.equal(store.view.get("networks", "n1")?.Version.Index, 1);
    const second = store.update((tx) => tx.create("networks", network("n2")));
    await new Promise((resolve) => setImmediate(resolve));
    lose(new Error("the watch broke"));
    await assert.rejects(second, /the watch broke/);
    await assert.rejects(store.caughtUp(), /the watch broke/);
  });

  it("shows a write to nobody before the backend has it", async () => {
    const memory = new MemoryBackend();
    let release = () => {};
    const held: Backend = {
      load: () => memory.load(),
      follow: (listener) => memory.follow(listener),
      commit: async (batch: Batch): Promise<CommitResult> => {
        await new Promise<void>((resolve) => (release = resolve));
        return memory.commit(batch);
      },
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    };
    const store = await open(held);
    const write = store.update((tx) => tx.create("networks", network("n1")));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(store.view.get("networks", "n1"), undefined);
    release();
    await write;
    assert.equal(store.view.get("networks", "n1")?.Version.Index, 1);
  });

  it("commits what waits together, takes back only the one that threw, and lets each see those before it", async () => {
    const store = await open();
    const commits: Commit[] = [];
    store.watch((commit) => commits.push(commit));
    const results = await Promise.allSettled([
      store.update((tx) => tx.create("networks", network("n1", "a"))),
      store.update((tx) => {
        tx.create("networks", network("n2", "b"));
        tx.put("networks", { ...tx.get("networks", "n1")!, Name: "changed" });
        throw new Error("no");
      }),
      store.update((tx) => tx.networkByName("a")?.ID),
      store.update((tx) => tx.create("networks", network("n3"))),
    ]);
    assert.deepEqual(
      results.map((result) => result.status),
      ["fulfilled", "rejected", "fulfilled", "fulfilled"],
    );
    assert.equal(results[2]?.status === "fulfilled" && results[2].value, "n1");
    assert.equal(commits.length, 1);
    assert.deepEqual(
      commits[0]?.changes.map((change) => change.id),
      ["n1", "n3"],
    );
    assert.equal(store.view.networkByName("changed"), undefined);
    assert.equal(store.view.networkByName("b"), undefined);
  });

  it("answers a stale version with Swarm's text, also when the newer one is in the same commit", async () => {
    const store = await open();
    await store.update((tx) => tx.create("networks", network("n1")));
    const rename = (name: string) =>
      store.update((tx) => {
        const current = tx.get("networks", "n1")!;
        tx.checkVersion(current, 1);
        tx.put("networks", { ...current, Name: name });
      });
    const [first, second] = await Promise.allSettled([rename("x"), rename("y")]);
    assert.equal(first?.status, "fulfilled");
    assert.equal(second?.status === "rejected" && second.reason.message, "update out of sequence");
    assert.equal(store.view.get("networks", "n1")?.Name, "x");
  });

  it("runs a transaction again after a conflict", async () => {
    const memory = new MemoryBackend();
    let conflicts = 2;
    const store = await open({
      load: () => memory.load(),
      follow: (listener) => memory.follow(listener),
      commit: async (batch) => (conflicts-- > 0 ? { kind: "conflict" } : memory.commit(batch)),
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    });
    let runs = 0;
    await store.update((tx) => {
      runs++;
      tx.create("networks", network("n1"));
    });
    assert.equal(runs, 3);
    assert.equal(store.view.count("networks"), 1);
  });

  it("finishes what was asked for before it closes, and refuses what comes after", async () => {
    const store = await open();
    const write = store.update((tx) => tx.create("networks", network("n1")));
    await store.close();
    await write;
    await assert.rejects(
      store.update((tx) => tx.delete("networks", "n1")),
      { code: "Unavailable" },
    );
  });

  it("always equals a plain map under random transactions, seen from inside, outside and by index", async () => {
    const id = fc.constantFrom("a", "b", "c", "d");
    const step = fc.record({
      kind: fc.constantFrom("create", "put", "delete"),
      id,
      name: fc.constantFrom("x", "y", "z"),
    });
    const transaction = fc.record({ steps: fc.array(step, { maxLength: 6 }), fails: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(transaction, { maxLength: 12 }), async (transactions) => {
        const store = await open();
        const model = new Map<string, string>();
        const check = (view: typeof store.view, expected: Map<string, string>) => {
          assert.equal(view.count("networks"), expected.size);
          assert.deepEqual(
            Object.fromEntries([...view.all("networks")].map((n) => [n.ID, n.Name])),
            Object.fromEntries(expected),
          );
          for (const name of ["x", "y", "z"]) {
            const one = view.networkByName(name);
            assert.equal(one !== undefined, [...expected.values()].includes(name));
            if (one) assert.equal(expected.get(one.ID), name);
          }
        };
        await Promise.all(
          transactions.map(({ steps, fails }) =>
            store
              .update((tx) => {
                const draft = new Map(model);
                for (const { kind, id, name } of steps) {
                  if (kind === "create" && !draft.has(id)) {
                    tx.create("networks", network(id, name));
                    draft.set(id, name);
                  } else if (kind === "put" && draft.has(id)) {
                    tx.put("networks", { ...tx.get("networks", id)!, Name: name });
                    draft.set(id, name);
                  } else if (kind === "delete") {
                    tx.delete("networks", id);
                    draft.delete(id);
                  }
                  check(tx, draft);
                }
                if (fails) throw new Error("taken back");
                model.clear();
                for (const entry of draft) model.set(...entry);
              })
              .catch((error) => assert.equal(error.message, "taken back")),
          ),
        );
        check(store.view, model);
      }),
      { numRuns: 200 },
    );
  });
});
