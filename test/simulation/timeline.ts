/**
 * Virtual time. One queue of events for the whole cluster, run in the order of their times (and, within a millisecond,
 * in the order in which they were set). Between two events every promise that can settle does: nothing depends on how
 * fast the machine is, so the same seed always gives the same run.
 */
import type { Clock, Timer } from "../../src/lib/clock.ts";

interface Entry {
  readonly at: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** Events between two turns of Node's own loop, in which it reports rejections that nobody handled. */
const eventsPerTurn = 2048;

export class Timeline implements Clock {
  #now: number;
  #order = 0;
  #events = 0;
  /** A binary min-heap by (at, order). Cancelled entries stay until they come up. */
  readonly #heap: Entry[] = [];

  /** @param startAt milliseconds since the epoch */
  constructor(startAt = Date.UTC(2026, 0, 1)) {
    this.#now = startAt;
  }

  now(): number {
    return this.#now;
  }

  /** How many events have run. */
  get events(): number {
    return this.#events;
  }

  after(delayMs: number, run: () => void): Timer {
    const entry: Entry = { at: Math.ceil(this.#now + Math.max(0, delayMs)), order: this.#order++, run };
    this.#push(entry);
    return {
      cancel: () => {
        entry.run = undefined;
      },
    };
  }

  /** Runs everything until `end` (milliseconds since the epoch), or until `isDone` says so. Rejects with what an event throws. */
  run(end: number, isDone: () => boolean = () => false): Promise<void> {
    return new Promise((resolve, reject) => {
      const settled = () => process.nextTick(step);
      const step = () => {
        try {
          if (isDone()) return resolve();
          const entry = this.#pop(end);
          if (!entry) {
            this.#now = Math.max(this.#now, end);
            return resolve();
          }
          this.#now = entry.at;
          this.#events++;
          entry.run?.();
        } catch (error) {
          return reject(error);
        }
        // A tick asked for in a microtask comes after all microtasks, also those that they ask for.
        if (this.#events % eventsPerTurn === 0) setImmediate(step);
        else void Promise.resolve().then(settled);
      };
      setImmediate(step);
    });
  }

  /** The first entry that was not cancelled, if it is due by `end`. */
  #pop(end: number): Entry | undefined {
    for (let top = this.#heap[0]; top; top = this.#heap[0]) {
      if (top.run && top.at > end) return undefined;
      this.#removeTop();
      if (top.run) return top;
    }
    return undefined;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let position = heap.length;
    while (position > 0) {
      const parent = (position - 1) >> 1;
      if (isBefore(heap[parent]!, entry)) break;
      heap[position] = heap[parent]!;
      position = parent;
    }
    heap[position] = entry;
  }

  #removeTop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const size = heap.length;
    if (size === 0) return;
    let position = 0;
    for (;;) {
      let child = 2 * position + 1;
      if (child >= size) break;
      if (child + 1 < size && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (isBefore(last, heap[child]!)) break;
      heap[position] = heap[child]!;
      position = child;
    }
    heap[position] = last;
  }
}

function isBefore(left: Entry, right: Entry): boolean {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}

/**
 * One life of a process. When it is killed, nothing that it set ever runs: what it waits for never comes, and what was
 * only in its memory is gone with it.
 */
export class Life {
  readonly clock: Clock;
  readonly #timeline: Timeline;
  readonly #ends = new Set<() => void>();
  /** What waits for a process that hangs. */
  #held: (() => void)[] | undefined;
  #alive = true;

  /** @param skewMs how far its clock is off */
  constructor(timeline: Timeline, skewMs = 0) {
    this.#timeline = timeline;
    this.clock = {
      now: () => timeline.now() + skewMs,
      after: (delayMs, run) => {
        let isSet = true;
        const timer = timeline.after(delayMs, () =>
          this.enter(() => {
            if (isSet) run();
          }),
        );
        return {
          cancel: () => {
            isSet = false;
            timer.cancel();
          },
        };
      },
    };
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Something for the process to do: now, or when it goes on, or never. */
  enter(run: () => void): void {
    if (!this.#alive) return;
    if (this.#held) this.#held.push(run);
    else run();
  }

  /** It stands still, as one that is stopped or starved. */
  hang(): void {
    this.#held ??= [];
  }

  /** It goes on, with all that has come meanwhile. */
  goOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const run of held) this.#timeline.after(0, () => this.enter(run));
  }

  /** Calls `run` when it is killed: for what the kernel does then, not the process. */
  onEnd(run: () => void): () => void {
    this.#ends.add(run);
    return () => this.#ends.delete(run);
  }

  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const run of this.#ends) run();
    this.#ends.clear();
  }
}
