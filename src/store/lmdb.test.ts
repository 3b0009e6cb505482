import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { systemRandom } from "../lib/random.ts";
import { ValueCipher } from "./encryption.ts";
import { LmdbBackend } from "./lmdb.ts";
import { Store } from "./store.ts";

const key = systemRandom.bytes(32);
let directory: string;
before(() => (directory = mkdtempSync(join(tmpdir(), "shoal-lmdb-"))));
after(() => rmSync(directory, { recursive: true }));

const network = (ID: string, Name = ID) => ({ ID, Name, Labels: {}, Driver: "bridge", Predefined: false });
const openStore = (name: string, withKey = key) =>
  Store.open(
    new LmdbBackend({ directory: join(directory, name), cipher: new ValueCipher(withKey, systemRandom) }),
    systemClock,
  );

describe("lmdb backend", () => {
  it("has every acknowledged write after it was opened again, with its version", async () => {
    const first = await openStore("again");
    await first.update((tx) => tx.create("networks", network("n1")));
    await first.update((tx) => tx.create("networks", network("n2")));
    await first.update((tx) => tx.put("networks", { ...tx.get("networks", "n1")!, Name: "renamed" }));
    await first.update((tx) => tx.delete("networks", "n2"));
    const { revision } = first.view;
    const n1 = first.view.get("networks", "n1");
    await first.close();

    const second = await openStore("again");
    assert.equal(second.view.revision, revision);
    assert.deepEqual(second.view.get("networks", "n1"), n1);
    assert.equal(second.view.networkByName("renamed")?.ID, "n1");
    assert.equal(second.view.get("networks", "n2"), undefined);
    await second.close();
  });

  it("keeps no value in clear on the disk", async () => {
    const store = await openStore("clear");
    await store.update((tx) => tx.create("networks", network("n1", "a-very-recognisable-name")));
    await store.close();
    for (const file of readdirSync(join(directory, "clear"))) {
      assert.ok(!readFileSync(join(directory, "clear", file)).includes("a-very-recognisable-name"), file);
    }
  });

  it("refuses another cluster's key with DataLoss", async () => {
    const store = await openStore("key");
    await store.update((tx) => tx.create("networks", network("n1")));
    await store.close();
    await assert.rejects(openStore("key", systemRandom.bytes(32)), { code: "DataLoss" });
  });

  it("answers a guard on an outdated revision with a conflict and writes nothing", async () => {
    const backend = new LmdbBackend({
      directory: join(directory, "guard"),
      cipher: new ValueCipher(key, systemRandom),
    });
    await backend.load();
    const object = { ...network("n1"), Version: { Index: 0 }, CreatedAt: "", UpdatedAt: "" };
    const put = { puts: [{ table: "networks", object }], deletes: [] } as const;
    const guard = (revision: number) => ({ ...put, guards: [{ table: "networks", id: "n1", revision }] as const });
    assert.deepEqual(await backend.commit(guard(0)), { kind: "committed", revision: 1 });
    assert.deepEqual(await backend.commit(guard(0)), { kind: "conflict" });
    assert.equal(await backend.currentRevision(), 1);
    assert.deepEqual(await backend.commit(guard(1)), { kind: "committed", revision: 2 });
    await backend.close();
  });
});
