/** Choices from a seed. Each part of the simulation has dice of its own, so that one more throw in one changes no other. */
import { type Random, seededRandom } from "../../src/lib/random.ts";

export class Dice {
  readonly random: Random;

  /** @param name whose dice they are */
  constructor(seed: number, name: string) {
    let mixed = seed >>> 0;
    for (const character of name) mixed = (Math.imul(mixed ^ character.charCodeAt(0), 0x01000193) + 0x9e3779b9) >>> 0;
    this.random = seededRandom(mixed);
  }

  chance(probability: number): boolean {
    return this.random.float() < probability;
  }

  /** In [lowest, highest). */
  between(lowest: number, highest: number): number {
    return lowest + this.random.float() * (highest - lowest);
  }

  /** A whole number in [lowest, highest]. */
  integer(lowest: number, highest: number): number {
    return lowest + Math.floor(this.random.float() * (highest - lowest + 1));
  }

  /** Mostly short, sometimes long: a number between the two whose logarithm is uniform. */
  spread(lowest: number, highest: number): number {
    return lowest * (highest / lowest) ** this.random.float();
  }

  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.random.float() * items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }

  maybe<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.random.float() * items.length)];
  }
}
