import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ShoalError } from "../../lib/errors.ts";
import { type TaskFile, TmpfsTaskFiles } from "./task-files.ts";

const tmpfsType = 0x01021994;
/** In memory on every Linux machine. */
const memory = "/dev/shm";

function file(text: string, mode = 0o444): TaskFile {
  return { data: Buffer.from(text), uid: process.getuid!(), gid: process.getgid!(), mode };
}

const refusing = () => Promise.reject(new ShoalError("Internal", "mount: not permitted"));

test("files are in memory, with their mode, and go with their task", async () => {
  assert.equal((await statfs(memory)).type, tmpfsType);
  const directory = await mkdtemp(join(memory, "shoal-test-"));
  try {
    const files = new TmpfsTaskFiles({ directory: join(directory, "tasks"), nodeId: "n1", mount: refusing });
    assert.deepEqual([await files.has("t1"), await files.taskIds()], [false, []]);
    await files.write("t1", [file("one"), file("two", 0o400)]);
    await files.write("t2", [file("")]);
    assert.equal(await readFile(files.path("t1", 0), "utf8"), "one");
    assert.equal((await stat(files.path("t1", 0))).mode & 0o7777, 0o444);
    assert.equal((await stat(files.path("t1", 1))).mode & 0o7777, 0o400);
    assert.equal((await stat(join(directory, "tasks"))).mode & 0o7777, 0o700);
    assert.deepEqual([await files.has("t1"), [...(await files.taskIds())].sort()], [true, ["t1", "t2"]]);
    await files.write("t1", [file("again")]);
    assert.equal(await readFile(files.path("t1", 0), "utf8"), "again");
    await assert.rejects(stat(files.path("t1", 1)));
    await files.remove("t1");
    await files.remove("t1");
    assert.deepEqual(await files.taskIds(), ["t2"]);
    await files.clear();
    await files.clear();
    assert.deepEqual(await files.taskIds(), []);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("nodes of one machine do not see each other's", async () => {
  const directory = await mkdtemp(join(memory, "shoal-test-"));
  try {
    const [one, two] = ["n1", "n2"].map((nodeId) => new TmpfsTaskFiles({ directory, nodeId, mount: refusing }));
    await one!.write("t1", [file("one")]);
    assert.deepEqual(await two!.taskIds(), []);
    await two!.clear();
    assert.deepEqual(await one!.taskIds(), ["t1"]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("what a crash has left half written is removed at the first look, and only then", async () => {
  const directory = await mkdtemp(join(memory, "shoal-test-"));
  const open = () => new TmpfsTaskFiles({ directory, nodeId: "n1", mount: refusing });
  const half = join(directory, "n1", ".t1");
  try {
    await mkdir(half, { recursive: true });
    const files = open();
    assert.deepEqual(await files.taskIds(), []);
    await assert.rejects(stat(half), { code: "ENOENT" });
    await mkdir(half);
    assert.deepEqual(await files.taskIds(), []);
    await stat(half); // it is being written
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("what fails half way leaves nothing", async () => {
  const directory = await mkdtemp(join(memory, "shoal-test-"));
  try {
    const files = new TmpfsTaskFiles({ directory, nodeId: "n1", mount: refusing });
    const bad = { ...file("two"), uid: -2 };
    await assert.rejects(files.write("t1", [file("one"), bad]), { code: "Unavailable" });
    assert.deepEqual([await files.has("t1"), await files.taskIds()], [false, []]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("where there is no tmpfs one is mounted; without it nothing is written", async () => {
  const notInMemory = "/proc/sys"; // on every Linux machine, and never a tmpfs
  const mounted: string[] = [];
  const mount = async (directory: string) => {
    mounted.push(directory);
  };
  const files = (how: typeof mount) => new TmpfsTaskFiles({ directory: notInMemory, nodeId: "n1", mount: how });
  await assert.rejects(files(mount).write("t1", [file("one")]), {
    code: "Unavailable",
    message: "/proc/sys is not in memory (no tmpfs), so no secrets are put there",
  });
  assert.deepEqual(mounted, [notInMemory]);
  await assert.rejects(files(refusing).write("t1", [file("one")]), /no secrets are put there: mount: not permitted/);
});
