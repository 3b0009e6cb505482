/** The node's keys on its disk, locked and not. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { newUnlockKey, parseUnlockKey } from "../ca/unlock-key.ts";
import { isShoalError, type StatusCode } from "../lib/errors.ts";
import { systemRandom } from "../lib/random.ts";
import { NodeKeys } from "./data-key.ts";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "shoal-keys-"));
  path = join(directory, "swarm", "data-key.json");
});
afterEach(() => rm(directory, { recursive: true }));

const dataKey = systemRandom.bytes(32);
const keysOf = () => new NodeKeys(path, systemRandom);

function failsWith(code: StatusCode, message: RegExp) {
  return (error: unknown) => isShoalError(error, code) && message.test(error.message);
}

async function made(): Promise<NodeKeys> {
  const keys = keysOf();
  keys.make();
  await keys.beManager(dataKey, undefined);
  return keys;
}

test("what one start has sealed, the next one opens", async () => {
  const sealed = (await made()).seal(Buffer.from("secret"), "place");
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const again = keysOf();
  assert.equal(await again.load(), "open");
  assert.deepEqual(again.dataKey, Buffer.from(dataKey));
  assert.equal(again.open(sealed, "place").toString(), "secret");
  assert.throws(() => again.open(sealed, "elsewhere"), failsWith("DataLoss", /./));
});

test("locked: only the unlock key opens it, and nothing of the keys is in the file", async () => {
  const keys = await made();
  const sealed = keys.seal(Buffer.from("secret"), "place");
  const [first, second] = [newUnlockKey(systemRandom), newUnlockKey(systemRandom)];
  await keys.protect(first);
  const content = await readFile(path, "utf8");
  const secrets = [
    Buffer.from(dataKey).toString("base64"),
    Buffer.from(dataKey).toString("hex"),
    first,
    first.slice(9),
  ];
  for (const secret of secrets) assert.ok(!content.includes(secret));
  const again = keysOf();
  assert.equal(await again.load(), "locked");
  await assert.rejects(again.unlock("x"), failsWith("InvalidArgument", /^invalid key string$/));
  await assert.rejects(again.unlock(second), failsWith("Unauthenticated", /^swarm could not be unlocked: invalid key/));
  await again.unlock(first);
  assert.equal(again.open(sealed, "place").toString(), "secret");
  await again.protect(first);
  assert.equal(await readFile(path, "utf8"), content, "already so: not written again");
  await again.protect(second);
  await assert.rejects(keysOf().unlock(first), failsWith("Unauthenticated", /./));
  await again.protect(undefined);
  assert.equal(await keysOf().load(), "open");
});

test("who becomes a worker has no data key, nothing to lock, and opens what it has sealed before", async () => {
  const key = newUnlockKey(systemRandom);
  const keys = await made();
  await keys.protect(key);
  assert.ok(keys.areManagers);
  const sealed = keys.seal(Buffer.from("secret"), "place");
  await keys.beWorker();
  const again = keysOf();
  assert.equal(await again.load(), "open");
  assert.ok(!again.areManagers);
  assert.throws(() => again.dataKey, failsWith("FailedPrecondition", /it is no manager/));
  assert.equal(again.open(sealed, "place").toString(), "secret");
});

test("a manager that enters a locked swarm is locked from the start: nothing is on its disk before", async () => {
  const key = newUnlockKey(systemRandom);
  const keys = keysOf();
  keys.make();
  keys.seal(Buffer.from("secret"), "place");
  await assert.rejects(stat(path), { code: "ENOENT" });
  await keys.beManager(dataKey, key);
  const again = keysOf();
  assert.equal(await again.load(), "locked");
  await again.unlock(key);
  assert.deepEqual(again.dataKey, Buffer.from(dataKey));
});

test("a missing or damaged file is told as such", async () => {
  await assert.rejects(keysOf().load(), failsWith("DataLoss", /cannot be read/));
  await made();
  for (const damage of [
    "{",
    "{}",
    '{"version":1,"seal":"none","keys":{"node":"eHg="}}',
    '{"version":1,"seal":"none"}',
  ]) {
    await writeFile(path, damage);
    await assert.rejects(keysOf().load(), failsWith("DataLoss", /data-key\.json/), damage);
  }
});

test("unlock keys have Swarm's form", () => {
  const key = newUnlockKey(systemRandom);
  assert.match(key, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
  assert.equal(parseUnlockKey(key).length, 32);
  for (const bad of ["", key.slice(1), `${key}=`, key.replace("-1-", "-2-"), `${key.slice(0, -1)}*`]) {
    assert.throws(() => parseUnlockKey(bad), failsWith("InvalidArgument", /^invalid key string$/));
  }
});
