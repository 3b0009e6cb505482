/** A user at a distance: asks one of the managers, and may never hear what became of it. */
import { sleep, within } from "../../src/lib/clock.ts";
import type { Dice } from "./dice.ts";
import type { Answer } from "./node.ts";
import type { World } from "./world.ts";

/** Undefined: no answer came, so nothing is known of the outcome. */
export type Outcome = Answer | undefined;

const patienceMs = 20_000;

export class Client {
  readonly #world: World;
  readonly #dice: Dice;

  constructor(world: World, dice: Dice) {
    this.#world = world;
    this.#dice = dice;
  }

  async ask(method: string, target: string, body?: unknown): Promise<Outcome> {
    const { timeline } = this.#world;
    const manager = this.#dice.pick(this.#world.managers);
    await sleep(timeline, this.#dice.between(0.1, 5));
    const outcome = await within<Outcome>(timeline, patienceMs, manager.request(method, target, body), () => undefined);
    await sleep(timeline, this.#dice.between(0.1, 5));
    return outcome;
  }
}
