/** What the containers of the simulated images do: each image is a fate. */
import type { Dice } from "./dice.ts";

export interface Fate {
  readonly pullMs: number;
  /** The registry doesn't have it, and takes as long to say so. */
  readonly missing?: true;
  /** Chance that the registry can't be reached at a pull. */
  readonly pullFails: number;
  readonly startMs: number;
  /** From TERM to its end; longer than the grace means KILL. */
  readonly stopMs: number;
  /** How it ends by itself; undefined: never. */
  readonly ends?: { readonly afterMs: number; readonly code: number };
  /** With a health check: what it says, and after how long. */
  readonly health?: { readonly afterMs: number; readonly healthy: boolean };
}

const plain = { pullMs: 200, pullFails: 0, startMs: 150, stopMs: 100 };

/** Fates by image name; the numbers vary from container to container. */
const fates: Readonly<Record<string, Fate>> = {
  good: plain,
  slow: { pullMs: 8_000, pullFails: 0, startMs: 3_000, stopMs: 6_000 },
  stubborn: { ...plain, stopMs: 600_000 },
  checked: { ...plain, health: { afterMs: 2_000, healthy: true } },
  unhealthy: { ...plain, health: { afterMs: 3_000, healthy: false } },
  crashing: { ...plain, ends: { afterMs: 10_000, code: 1 } },
  fragile: { ...plain, ends: { afterMs: 120_000, code: 137 } },
  finishing: { ...plain, ends: { afterMs: 60_000, code: 0 } },
  missing: { ...plain, pullMs: 5_000, missing: true },
  flaky: { ...plain, pullFails: 0.5 },
};

export const images = Object.keys(fates);

/** Images whose containers run on for ever when nothing else ends them. */
export const lastingImages: ReadonlySet<string> = new Set(["good", "slow", "stubborn", "checked", "flaky"]);

export function fateOf(image: string, dice: Dice): Fate {
  const fate = fates[image];
  if (!fate) throw new Error(`no image ${image}`);
  const vary = (ms: number) => ms * dice.between(0.5, 1.5);
  return {
    ...fate,
    pullMs: vary(fate.pullMs),
    startMs: vary(fate.startMs),
    stopMs: vary(fate.stopMs),
    ...(fate.ends && { ends: { ...fate.ends, afterMs: vary(fate.ends.afterMs) } }),
    ...(fate.health && { health: { ...fate.health, afterMs: vary(fate.health.afterMs) } }),
  };
}
