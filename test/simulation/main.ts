/**
 * `npm run simulate`: many seeds, or one with its trace.
 *
 *   npm run simulate -- [--seeds 1000] [--first 1] [--hours H] [--managers M] [--jobs J] [--keep-going]
 *   npm run simulate -- --seed S [--hours H] [--managers M] [--trace]
 *
 * --hours is the virtual time with users and faults in each run; then comes peace, until everything has come right.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { replay, runSeeds } from "./pool.ts";
import { type RunOptions, type RunResult, simulate } from "./run.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "100" },
    first: { type: "string", default: "1" },
    seed: { type: "string" },
    hours: { type: "string" },
    managers: { type: "string" },
    jobs: { type: "string", default: String(Math.min(8, availableParallelism())) },
    trace: { type: "boolean", default: false },
    "keep-going": { type: "boolean", default: false },
  },
});

const progressEveryMs = 5_000;

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
  let shownAt = startedAt;
  let hours = 0;
  let done = 0;
  let failed = 0;
  const so = () => {
    const perMinute = Math.round((hours * 60_000) / (performance.now() - startedAt));
    return `${done} of ${seeds} seeds, ${hours.toFixed(0)} cluster-hours, ${perMinute} a minute, ${failed} failed`;
  };
  const finished = (result: RunResult): boolean => {
    done++;
    hours += result.hours;
    if (result.failure !== undefined) report(result, ++failed === 1);
    if (performance.now() > shownAt + progressEveryMs) {
      shownAt = performance.now();
      console.log(so());
    }
    return failed === 0 || values["keep-going"];
  };
  await runSeeds({ first, seeds, jobs, run: options, finished });
  console.log(so());
  process.exitCode = failed === 0 ? 0 : 1;
}

function report(result: RunResult, withTrace: boolean): void {
  if (result.failure === undefined) return;
  if (withTrace) console.log(result.last.join("\n"));
  console.log(`seed ${result.seed} FAILED: ${result.failure}`);
  console.log(`replay: ${replay(result, options)}`);
}
