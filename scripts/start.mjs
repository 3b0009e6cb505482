#!/usr/bin/env node
// `npm start`: set-up, then a playground with the sample service. `npm start -- down` removes the playground.
// Plain JavaScript for the machine's own Node 20.
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { setUp } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [command = "up", ...rest] = process.argv.slice(2);
if (rest.length > 0 || !["up", "down"].includes(command)) {
  console.error("usage: npm start, or npm start -- down");
  process.exit(2);
}
setUp();
const args = command === "up" ? ["up", "--sample"] : [command];
const result = spawnSync(join(root, "bin/shoal"), ["playground", ...args], { stdio: "inherit" });
if (result.error) console.error(`shoal: bin/shoal cannot be started: ${result.error.message}`);
process.exit(result.status ?? 1);
