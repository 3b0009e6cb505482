/**
 * Each file in the folders beside this one is a scenario: it must bring about what stands in it. See README.md.
 *
 * After a change that is meant, `REWRITE_SCENARIOS=1 npm run test:unit` writes what happens now into the files, and the
 * difference is there to be looked at.
 */
import assert from "node:assert/strict";
import { globSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { perform } from "./testing/scenario.ts";

const folder = import.meta.dirname;
const files = globSync("*/*.txt", { cwd: folder }).toSorted();

for (const file of files) {
  test(file.replace(/\.txt$/, ""), async () => {
    const path = join(folder, file);
    const text = readFileSync(path, "utf8");
    const performed = await perform(text);
    if (process.env.REWRITE_SCENARIOS === "1") writeFileSync(path, performed);
    else assert.equal(performed, text);
  });
}

test("there are scenarios", () => assert.ok(files.length > 0));
