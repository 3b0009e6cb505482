/**
 * Which nodes still beat. A beat costs an assignment, not a timer: a timer that finds its node has beaten since sets
 * itself for the rest. A timer that comes late says that we ourselves were held up: the beats of that time are yet to
 * be read, so the node gets a moment more.
 */
import type { Clock, Timer } from "../../lib/clock.ts";

/** More than any turn of a manager that works. */
const lateMs = 1_000;
const secondChanceMs = 2_000;

interface Watched {
  deadline: number;
  timer: Timer;
  timerAt: number;
}

export class Liveness {
  readonly #clock: Clock;
  readonly #onLost: (nodeId: string) => void;
  readonly #watched = new Map<string, Watched>();

  /** @param onLost called once for a node whose grace has passed; it is then no longer watched */
  constructor(clock: Clock, onLost: (nodeId: string) => void) {
    this.#clock = clock;
    this.#onLost = onLost;
  }

  /** The node lives: it is lost unless it beats again within `graceMs`. */
  beat(nodeId: string, graceMs: number): void {
    const deadline = this.#clock.now() + graceMs;
    const watched = this.#watched.get(nodeId);
    if (watched && watched.timerAt <= deadline) {
      watched.deadline = deadline;
      return;
    }
    watched?.timer.cancel();
    this.#watched.set(nodeId, { deadline, timerAt: deadline, timer: this.#arm(nodeId, graceMs) });
  }

  forget(nodeId: string): void {
    this.#watched.get(nodeId)?.timer.cancel();
    this.#watched.delete(nodeId);
  }

  stop(): void {
    for (const { timer } of this.#watched.values()) timer.cancel();
    this.#watched.clear();
  }

  #arm(nodeId: string, delayMs: number): Timer {
    return this.#clock.after(delayMs, () => {
      const watched = this.#watched.get(nodeId);
      if (!watched) return;
      const now = this.#clock.now();
      if (now - watched.timerAt > lateMs) watched.deadline = Math.max(watched.deadline, now + secondChanceMs);
      const leftMs = watched.deadline - now;
      if (leftMs > 0) {
        watched.timerAt = watched.deadline;
        watched.timer = this.#arm(nodeId, leftMs);
        return;
      }
      this.#watched.delete(nodeId);
      this.#onLost(nodeId);
    });
  }
}
