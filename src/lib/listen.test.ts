import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { listeningOnSocket } from "./listen.ts";

test("a socket that somebody answers on is theirs; one that is left from before is not", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-listen-"));
  const path = join(directory, "run", "shoal.sock");
  const [first, second] = [createServer(), createServer()];
  try {
    await listeningOnSocket(first, path, "it is taken");
    await assert.rejects(listeningOnSocket(second, path, "it is taken"), {
      code: "FailedPrecondition",
      message: "it is taken",
    });
    assert.ok(first.listening);
    await new Promise((resolve) => first.close(resolve));
    await writeFile(path, "");
    await listeningOnSocket(second, path, "it is taken");
    assert.ok(second.listening);
  } finally {
    for (const server of [first, second]) server.close();
    await rm(directory, { recursive: true });
  }
});
