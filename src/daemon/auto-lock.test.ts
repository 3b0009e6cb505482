/** Two managers' files follow the unlock key in the store that they share. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { newUnlockKey } from "../ca/unlock-key.ts";
import { FakeClock } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { systemRandom } from "../lib/random.ts";
import { MemoryBackend } from "../store/memory.ts";
import { Store } from "../store/store.ts";
import { AutoLock } from "./auto-lock.ts";
import { NodeKeys } from "./data-key.ts";

test("every manager seals its own disk when the key is set, rotated, and taken away", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-lock-"));
  try {
    const store = await Store.open(new MemoryBackend(), new FakeClock());
    await store.update((tx) =>
      tx.create("cluster", {
        ID: "c",
        Spec: {},
        RootCA: { Certificate: "", Key: "", JoinTokens: { Worker: "", Manager: "" } },
        DefaultAddrPool: [],
        SubnetSize: 24,
        DataPathPort: 4789,
        RemovedNodes: {},
      }),
    );
    const paths = ["one", "two"].map((name) => join(directory, name, "data-key.json"));
    const locks: AutoLock[] = [];
    for (const path of paths) {
      const keys = new NodeKeys(path, systemRandom);
      keys.make();
      await keys.beManager(systemRandom.bytes(32), undefined);
      locks.push(new AutoLock(store, keys, silentLogger));
    }
    const [first, second] = [newUnlockKey(systemRandom), newUnlockKey(systemRandom)];
    for (const UnlockKey of [first, second, undefined, first]) {
      await store.update((tx) => {
        const { UnlockKey: _, ...rest } = tx.cluster()!;
        tx.put("cluster", { ...rest, ...(UnlockKey && { UnlockKey }) });
      });
      await Promise.all(locks.map((lock) => lock.sealed()));
      for (const path of paths) {
        const keys = new NodeKeys(path, systemRandom);
        assert.equal(await keys.load(), UnlockKey ? "locked" : "open");
        if (UnlockKey) await keys.unlock(UnlockKey);
      }
    }
    await Promise.all(locks.map((lock) => lock.stop()));
  } finally {
    await rm(directory, { recursive: true });
  }
});
