import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { commandName, identify, isAlive, readPidFile, run, signal, tailOf, writePidFile } from "./process.ts";

const directory = mkdtempSync(join(tmpdir(), "shoal-process-"));
after(() => rmSync(directory, { recursive: true }));

test("a process is known by its pid and its start", () => {
  const self = identify(process.pid);
  assert.ok(self);
  assert.ok(isAlive(self));
  assert.match(commandName(self), /^node|^MainThread/);
  const file = join(directory, "self.pid");
  writePidFile(file, self);
  assert.deepEqual(readPidFile(file), self);
});

test("another process with the same pid is neither alive nor signalled", () => {
  const self = identify(process.pid)!;
  const earlier = { ...self, startTicks: "1" };
  assert.equal(isAlive(earlier), false);
  assert.equal(signal(earlier, "SIGKILL"), false);
});

test("a pid file that is missing or was cut short names no process", () => {
  const file = join(directory, "broken.pid");
  assert.equal(readPidFile(file), undefined);
  writeFileSync(file, "123");
  assert.equal(readPidFile(file), undefined);
});

test("a program that fails or hangs is an error that says so", async () => {
  assert.equal(await run("cat", [], { input: "text" }), "text");
  await assert.rejects(run("sh", ["-c", "echo broken >&2; exit 3"]), /broken/);
  await assert.rejects(run("sleep", ["10"], { limitMs: 50 }), /no end within 0.05 s/);
  await assert.rejects(run("/nonexistent/program", []), { code: "Internal" });
});

test("the tail of a log is its last lines", () => {
  const file = join(directory, "some.log");
  writeFileSync(file, "1\n2\n3\n");
  assert.match(tailOf(file, 2), /:\n2\n3$/);
  assert.match(tailOf(join(directory, "none.log")), /^\(no /);
});
