/** A thread of `main.ts`: runs the seeds that it is told, one after another. */
import { parentPort } from "node:worker_threads";
import { type RunOptions, simulate } from "./run.ts";

// The stacks of thousands of expected errors cost more than anything else: a replay of the seed has them.
Error.stackTraceLimit = 0;

parentPort?.on("message", async ({ seed, options }: { seed: number; options: RunOptions }) => {
  parentPort?.postMessage(await simulate(seed, options));
});
