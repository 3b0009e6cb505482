/**
 * `npm run simulate`: many seeds, or one with its trace.
 *
 *   npm run simulate -- [--seeds 1000] [--first 1] [--hours H] [--managers M] [--jobs J] [--keep-going]
 *   npm run simulate -- --seed S [--hours H] [--managers M] [--trace]
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { type RunOptions, type RunResult, simulate } from "./run.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    first: { type: "string", default: "1" },
    seed: { type: "string" },
    hours: { type: "string" },
    managers: { type: "string" },
    jobs: { type: "string", default: String(Math.min(4, availableParallelism())) },
    trace: { type: "boolean", default: false },
    "keep-going": { type: "boolean", default: false },
  },
});

const options: RunOptions = {
  ...(values.hours !== undefined && { hours: number("hours", values.hours) }),
  ...(values.managers !== undefined && { managers: number("managers", values.managers) }),
};

if (values.seed !== undefined) await one(number("seed", values.seed));
else await many(number("first", values.first), number("seeds", values.seeds), number("jobs", values.jobs));

function number(name: string, text: string): number {
  const value = Number(text);
  if (text === "" || !(value >= 0)) throw new Error(`--${name}: ${text} is no number`);
  return value;
}

async function one(seed: number): Promise<void> {
  const startedAt = performance.now();
  const result = await simulate(seed, values.trace ? { ...options, print: (line) => console.log(line) } : options);
  report(result, !values.trace);
  const { managers, workers } = result.shape;
  const ms = Math.round(performance.now() - startedAt);
  const size = `${managers} managers, ${workers} workers, ${result.hours.toFixed(2)} h`;
  console.log(`seed ${seed}: ${size}, ${result.events} events, ${result.commits} commits, ${ms} ms`);
  console.log(`fingerprint ${result.fingerprint}`);
  process.exitCode = result.failure === undefined ? 0 : 1;
}

async function many(first: number, seeds: number, jobs: number): Promise<void> {
  const startedAt = performance.now();
  let hours = 0;
  let done = 0;
  let next = first;
  let shownAt = startedAt;
  const failed: RunResult[] = [];
  const take = () => (next < first + seeds && (failed.length === 0 || values["keep-going"]) ? next++ : undefined);
  const rate = () => `${Math.round((hours * 60_000) / (performance.now() - startedAt))} cluster-hours a minute`;
  const finished = (result: RunResult) => {
    done++;
    hours += result.hours;
    if (result.failure !== undefined) {
      failed.push(result);
      report(result, failed.length === 1);
    }
    if (performance.now() < shownAt + 5_000) return;
    shownAt = performance.now();
    console.log(`${done} of ${seeds} seeds, ${hours.toFixed(0)} cluster-hours, ${rate()}`);
  };
  await Promise.all(Array.from({ length: Math.max(1, jobs) }, () => work(take, finished)));
  console.log(`${done} seeds, ${hours.toFixed(1)} cluster-hours, ${rate()}: ${failed.length} failed`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}

/** One thread that runs seed after seed. */
function work(take: () => number | undefined, finished: (result: RunResult) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.ts", import.meta.url));
    const go = () => {
      const seed = take();
      if (seed === undefined) void worker.terminate().then(() => resolve());
      else worker.postMessage({ seed, options });
    };
    worker.on("message", (result: RunResult) => {
      finished(result);
      go();
    });
    worker.on("error", reject);
    go();
  });
}

function report({ seed, failure, last, shape }: RunResult, withTrace: boolean): void {
  if (failure === undefined) return;
  if (withTrace) console.log(last.join("\n"));
  console.log(`seed ${seed} FAILED: ${failure}`);
  const parameters = [
    `--seed ${seed}`,
    values.hours === undefined ? "" : ` --hours ${values.hours}`,
    values.managers === undefined ? "" : ` --managers ${shape.managers}`,
  ];
  console.log(`replay: npm run simulate -- ${parameters.join("")} --trace`);
}
