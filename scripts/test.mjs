#!/usr/bin/env node
// `npm test`: set-up, then every layer of tests. A layer that fails does not keep the next from running; what failed is
// said again at the end, after everything else. Plain JavaScript for the machine's own Node 20.
import { spawn } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { setUp } from "./setup.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const minuteMs = 60_000;
/** Together under an hour. Each is several times what the layer takes, so only something that hangs meets it. */
const layers = [
  { name: "check", limitMs: 3 * minuteMs },
  { name: "test:unit", limitMs: 5 * minuteMs },
  { name: "test:simulation", limitMs: 6 * minuteMs },
  { name: "test:cluster", limitMs: 32 * minuteMs },
  { name: "test:clients", limitMs: 14 * minuteMs },
];
/** Lines of a failed layer that are said again. */
const repeatedLines = 80;

/** Runs `npm run NAME`; its output as it comes, and what of it tells of failures. */
function runLayer({ name, limitMs }) {
  return new Promise((resolve) => {
    // A process group of its own, so that a layer that hangs can be ended with all that it started.
    const child = spawn("npm", ["run", "--silent", name], {
      cwd: root,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let lines = [""];
    const counts = { pass: 0, fail: 0 };
    const collect = (stream, chunk) => {
      stream.write(chunk);
      const parts = chunk.toString().split("\n");
      lines[lines.length - 1] += parts[0];
      lines.push(...parts.slice(1));
      for (const line of lines.slice(-parts.length, -1)) {
        const [, what, count] = /^\S+ (pass|fail) (\d+)$/.exec(line) ?? [];
        if (what) counts[what] += Number(count);
      }
      // The spec reporter lists what failed after this line; before it, only the end is of interest.
      if (!lines.some((line) => line.includes("failing tests:"))) lines = lines.slice(-repeatedLines);
    };
    child.stdout.on("data", (chunk) => collect(process.stdout, chunk));
    child.stderr.on("data", (chunk) => collect(process.stderr, chunk));
    const timer = setTimeout(() => {
      lines.push(`${name} did not end within ${limitMs / minuteMs} minutes`);
      process.kill(-child.pid, "SIGKILL");
    }, limitMs);
    child.on("error", (error) => lines.push(`npm cannot be started: ${error.message}`));
    child.on("close", (status) => {
      clearTimeout(timer);
      const start = lines.findIndex((line) => line.includes("failing tests:"));
      resolve({
        name,
        counts,
        passed: status === 0,
        failures: lines.slice(Math.max(start, 0)).slice(0, repeatedLines),
      });
    });
  });
}

setUp();
const failed = [];
const totals = { pass: 0, fail: 0 };
for (const layer of layers) {
  console.log(`\n=== ${layer.name}`);
  const startedAt = Date.now();
  const result = await runLayer(layer);
  console.log(
    `=== ${layer.name} ${result.passed ? "passed" : "FAILED"} (${Math.round((Date.now() - startedAt) / 1000)} s)`,
  );
  totals.pass += result.counts.pass;
  totals.fail += result.counts.fail;
  if (!result.passed) failed.push(result);
}
for (const { name, failures } of failed) console.log(`\n=== FAILED: ${name}\n${failures.join("\n")}`);
console.log(`\n${totals.pass} passed, ${totals.fail} failed`);
console.log(
  failed.length === 0 ? "All layers passed." : `FAILED: ${failed.map(({ name }) => name).join(", ")} (details above)`,
);
process.exitCode = failed.length === 0 ? 0 : 1;
