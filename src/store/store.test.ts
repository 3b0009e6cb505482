import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { systemClock } from "../lib/clock.ts";
import type { Backend, Batch, CommitResult } from "./backend.ts";
import { MemoryBackend } from "./memory.ts";
import { type Commit, Store } from "./store.ts";

const network = (ID: string, Name = ID) => ({ ID, Name, Labels: {}, Driver: "bridge", Predefined: false });
const open = (backend: Backend = new MemoryBackend()) => Store.open(backend, systemClock);

describe("store", () => {
  it("shows a write to nobody before the backend has it", async () => {
    const memory = new MemoryBackend();
    let release = () => {};
    const held: Backend = {
      load: () => memory.load(),
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
