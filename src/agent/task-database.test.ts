import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { seededRandom } from "../lib/random.ts";
import type { TaskStatus } from "../model/types.ts";
import { ValueCipher } from "../store/encryption.ts";
import { fakeTask } from "./fake-manager.ts";
import { MemoryTaskDatabase, openTaskDatabase, withheld } from "./task-database.ts";

const status: TaskStatus = { Timestamp: "2026-01-01T00:00:00.000Z", State: "running", Message: "started" };
const sealer = new ValueCipher(seededRandom(1).bytes(32), seededRandom(2));
const secret = "c2VjcmV0LWNyZWRlbnRpYWxz";

test("what was put is there after a reopen, without credentials", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-tasks-"));
  try {
    const database = openTaskDatabase(directory, sealer);
    assert.deepEqual(database.load(), []);
    database.put({ task: fakeTask("a", { RegistryAuth: secret }), status: { ...status, State: "accepted" } });
    database.put({ task: fakeTask("a", { RegistryAuth: secret }), status });
    database.put({ task: fakeTask("b"), status });
    database.delete("b");
    await database.close();
    const again = openTaskDatabase(directory, sealer);
    assert.deepEqual(again.load(), [{ task: fakeTask("a", { RegistryAuth: withheld }), status }]);
    again.clear();
    assert.deepEqual(again.load(), []);
    await again.close();
    const onDisk = await readFile(join(directory, "data.mdb"));
    for (const text of [secret, "ContainerSpec"]) assert.ok(!onDisk.includes(text), text);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("the one in memory keeps the same promises", () => {
  const database = new MemoryTaskDatabase();
  database.put({ task: fakeTask("a", { RegistryAuth: secret }), status });
  database.put({ task: fakeTask("b"), status });
  database.delete("b");
  assert.deepEqual(database.load(), [{ task: fakeTask("a", { RegistryAuth: withheld }), status }]);
  database.clear();
  assert.deepEqual(database.load(), []);
});
