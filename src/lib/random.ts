/** Randomness, handed in: real in the daemon, from a seed in the simulation. */
import { randomBytes } from "node:crypto";

export interface Random {
  /** `count` fresh bytes, fit for secrets when the source is the system's. */
  bytes(count: number): Uint8Array;
  /** Uniform in [0, 1). Never for secrets. */
  float(): number;
}

export const systemRandom: Random = {
  bytes: (count) => randomBytes(count),
  float: () => Math.random(),
};

/** A repeatable source (splitmix32) for tests and the simulation. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
  return {
    bytes: (count) => Uint8Array.from({ length: count }, () => next() & 0xff),
    float: () => next() / 2 ** 32,
  };
}

/** A number in [lowest, highest), for jitter. */
export function between(random: Random, lowest: number, highest: number): number {
  return lowest + random.float() * (highest - lowest);
}
