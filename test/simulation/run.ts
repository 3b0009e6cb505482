/** One run: a swarm, its users and its faults for a while, then peace, and everything must come right. */
import { messageOf } from "../../src/lib/errors.ts";
import { Dice } from "./dice.ts";
import { Faults } from "./faults.ts";
import { Workload } from "./workload.ts";
import { type Shape, World } from "./world.ts";

export interface RunOptions {
  /** Of virtual time with faults. */
  readonly hours?: number;
  readonly managers?: number;
  /** Gets each line of the trace. */
  readonly print?: (line: string) => void;
}

export interface RunResult {
  readonly seed: number;
  readonly shape: Shape;
  /** What was wrong; undefined: nothing. */
  readonly failure: string | undefined;
  /** The last lines of the trace. */
  readonly last: readonly string[];
  readonly fingerprint: string;
  readonly hours: number;
  readonly events: number;
  readonly commits: number;
}

const hourMs = 3_600_000;
const defaultHours = 0.5;
/** From the last fault until everything is right: rolling updates of slow images take their time. */
const convergeWithinMs = 20 * 60_000;
const looksEveryMs = 1_000;
const watchedMs = 5 * 60_000;
/** What a stopping task may still write once its successor runs. */
const restMs = 2 * 60_000;

export async function simulate(seed: number, options: RunOptions = {}): Promise<RunResult> {
  const shape = shapeOf(seed, options.managers);
  const world = await World.create(seed, shape, options.print);
  const start = world.timeline.now();
  let failure: string | undefined;
  try {
    await live(world, (options.hours ?? defaultHours) * hourMs);
  } catch (error) {
    failure = messageOf(error);
  }
  return {
    seed,
    shape,
    failure,
    last: world.trace.last(),
    fingerprint: world.trace.fingerprint,
    hours: (world.timeline.now() - start) / hourMs,
    events: world.timeline.events,
    commits: world.shared.revision,
  };
}

async function live(world: World, faultyMs: number): Promise<void> {
  const workload = new Workload(world);
  const faults = new Faults(world);
  world.start();
  workload.start();
  faults.start();
  await world.run(faultyMs);
  workload.stop();
  faults.stop();
  await world.run(convergeWithinMs, () => workload.isIdle);
  let calm = false;
  void workload.calm().then(() => (calm = true));
  await world.run(convergeWithinMs, () => calm);
  await converge(world);
  await world.run(restMs);
  world.pending("finally");
  await world.run(watchedMs);
  const finding = world.pending("eventually") ?? world.pending("finally");
  if (finding) throw new Error(finding);
}

async function converge(world: World): Promise<void> {
  const end = world.timeline.now() + convergeWithinMs;
  for (;;) {
    await world.run(looksEveryMs);
    const finding = world.pending("eventually");
    if (!finding) return;
    if (world.timeline.now() >= end) throw new Error(finding);
  }
}

function shapeOf(seed: number, managers: number | undefined): Shape {
  const dice = new Dice(seed, "shape");
  const drawn = dice.pick([1, 1, 3, 3, 5, 2]);
  return {
    managers: managers ?? drawn,
    workers: dice.integer(1, 4),
    heartbeatMs: dice.pick([5_000, 5_000, 2_000, 10_000]),
    historyLimit: dice.pick([5, 5, 1, 0]),
    skewMs: dice.pick([0, 0, 500, 3_600_000]),
    managerSkewMs: dice.pick([0, 10, 500, 3_600_000]),
  };
}
