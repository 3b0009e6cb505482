/** Runs many seeds on several threads. */
import { Worker } from "node:worker_threads";
import type { RunOptions, RunResult } from "./run.ts";

export interface PoolOptions {
  readonly first: number;
  readonly seeds: number;
  readonly jobs: number;
  readonly run: RunOptions;
  /** Told of each result as it comes. False: no further seed is begun. */
  readonly finished: (result: RunResult) => boolean;
}

/** Resolves when all have been run, or none is to be begun any more. */
export async function runSeeds({ first, seeds, jobs, run, finished }: PoolOptions): Promise<void> {
  let next = first;
  let end = first + seeds;
  const work = () =>
    new Promise<void>((resolve, reject) => {
      const worker = new Worker(new URL("./worker.ts", import.meta.url));
      const go = () => {
        if (next >= end) void worker.terminate().then(() => resolve());
        else worker.postMessage({ seed: next++, options: run });
      };
      worker.on("message", (result: RunResult) => {
        if (!finished(result)) end = next;
        go();
      });
      worker.on("error", reject);
      go();
    });
  await Promise.all(Array.from({ length: Math.max(1, Math.min(jobs, seeds)) }, work));
}

/** How to see the run again. */
export function replay({ seed }: RunResult, { hours, managers }: RunOptions): string {
  const parameters = [`--seed ${seed}`];
  if (hours !== undefined) parameters.push(`--hours ${hours}`);
  if (managers !== undefined) parameters.push(`--managers ${managers}`);
  return `npm run simulate -- ${parameters.join(" ")} --trace`;
}
