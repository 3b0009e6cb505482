/**
 * The wire between hosts. A message takes a while, sometimes a long one (a lost packet is sent again); across a cut it
 * waits until the cut has healed, as TCP does; messages of one stream stay in order, those of different streams do not.
 */
import type { Timer } from "../../src/lib/clock.ts";
import type { Dice } from "./dice.ts";
import type { Timeline } from "./timeline.ts";

/** Messages of one flow arrive in the order in which they were sent. */
export interface Flow {
  arrivesAt: number;
  /** Waiting behind a cut, oldest first. */
  readonly held: (() => void)[];
}

export function newFlow(): Flow {
  return { arrivesAt: 0, held: [] };
}

interface Weather {
  /** Usual longest time of a message. */
  readonly delayMs: number;
  /** Chance that a packet is lost. */
  readonly loss: number;
}

const fine: Weather = { delayMs: 3, loss: 0 };
const retransmitMs = 200;

export class Network {
  readonly #timeline: Timeline;
  readonly #dice: Dice;
  /** Pairs that can't reach each other. */
  readonly #cuts = new Map<string, number>();
  readonly #weather = new Map<string, Weather>();
  /** What to try again when a cut has healed. */
  readonly #waiting = new Set<() => void>();

  constructor(timeline: Timeline, dice: Dice) {
    this.#timeline = timeline;
    this.#dice = dice;
  }

  isCut(a: string, b: string): boolean {
    return a !== b && this.#cuts.has(pair(a, b));
  }

  /** Cuts lie over each other: a pair is whole again when all of its cuts have been healed. */
  cut(a: string, b: string): void {
    this.#cuts.set(pair(a, b), (this.#cuts.get(pair(a, b)) ?? 0) + 1);
  }

  heal(a: string, b: string): void {
    const left = (this.#cuts.get(pair(a, b)) ?? 0) - 1;
    if (left > 0) this.#cuts.set(pair(a, b), left);
    else this.#cuts.delete(pair(a, b));
    this.#retryHeld();
  }

  healAll(): void {
    this.#cuts.clear();
    this.#weather.clear();
    this.#retryHeld();
  }

  /** Makes the host's messages slow, or lossy. */
  setWeather(host: string, weather: Weather | undefined): void {
    if (weather) this.#weather.set(host, weather);
    else this.#weather.delete(host);
  }

  /** Calls `deliver` when the message has arrived: perhaps never. */
  send(from: string, to: string, flow: Flow, deliver: () => void): void {
    const at = Math.max(flow.arrivesAt, this.#timeline.now() + this.delay(from, to));
    flow.arrivesAt = at;
    this.#timeline.after(at - this.#timeline.now(), () => this.#arrive(from, to, flow, deliver));
  }

  /** There and back, in one step where nothing is in the way: for what is sent every second. */
  roundTrip(from: string, to: string, done: () => void): void {
    const delayMs = this.delay(from, to) + this.delay(to, from);
    this.#timeline.after(delayMs, () => (this.isCut(from, to) ? this.whenReachable(from, to, done) : done()));
  }

  /** How long a message takes now, cuts aside. */
  delay(from: string, to: string): number {
    if (from === to) return 0;
    let delayMs = 0;
    for (const host of [from, to]) {
      const weather = this.#weather.get(host) ?? fine;
      delayMs += this.#dice.between(0.1, weather.delayMs);
      for (let wait = retransmitMs; weather.loss > 0 && this.#dice.chance(weather.loss); wait *= 2) delayMs += wait;
    }
    return delayMs;
  }

  /** Calls `run` when the hosts can reach each other again (soon, if they can now); the answer ends the wait. */
  whenReachable(a: string, b: string, run: () => void): Timer {
    let cancelled = false;
    const attempt = () => {
      if (cancelled) return;
      if (this.isCut(a, b)) this.#waiting.add(attempt);
      else run();
    };
    this.#timeline.after(this.delay(a, b), attempt);
    return {
      cancel: () => {
        cancelled = true;
        this.#waiting.delete(attempt);
      },
    };
  }

  #arrive(from: string, to: string, flow: Flow, deliver: () => void): void {
    if (flow.held.length === 0 && !this.isCut(from, to)) {
      deliver();
      return;
    }
    flow.held.push(deliver);
    if (flow.held.length > 1) return; // the first of them waits for all
    this.whenReachable(from, to, () => {
      for (let next = flow.held.shift(); next; next = flow.held.shift()) next();
    });
  }

  /** The sender tries again a while after the cut has healed. */
  #retryHeld(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const attempt of waiting) this.#timeline.after(this.#dice.between(0, 1000), attempt);
  }
}

function pair(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}
