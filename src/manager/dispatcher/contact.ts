/**
 * Whether this manager is still in touch with the others: asked of the store, which knows whether there is a quorum.
 * A manager that has lost it for longer than any change of the leader takes must let its agents go: it can't write
 * what they report, and the others will soon take them for dead.
 */
import { type Clock, type Timer, within } from "../../lib/clock.ts";
import { ShoalError } from "../../lib/errors.ts";

const askEveryMs = 1_000;
const answerWithinMs = 2_000;
/** An election takes two seconds; agents must not be let go for one. */
const lostAfterMs = 5_000;
/** A manager that was itself held up asks once more. */
const leastFailures = 2;

export interface ContactOptions {
  readonly clock: Clock;
  /** Resolves when there is a quorum. */
  readonly ask: () => Promise<void>;
  readonly onChange: (inTouch: boolean) => void;
  /** In touch now, and for long it was not: noticed at the time, or slept through. Before `onChange`. */
  readonly onGap: () => void;
}

export class Contact {
  readonly #options: ContactOptions;
  #timer: Timer | undefined;
  #failures = 0;
  #answeredAt = 0;
  #inTouch = true;
  #watching = false;

  constructor(options: ContactOptions) {
    this.#options = options;
  }

  get inTouch(): boolean {
    return this.#inTouch;
  }

  /** Watches, or (with one manager there is nobody to be in touch with) doesn't. */
  set(watching: boolean): void {
    if (watching === this.#watching) return;
    this.#watching = watching;
    this.#timer?.cancel();
    this.#answered();
    if (watching) this.#arm();
    else this.#become(true);
  }

  #arm(): void {
    this.#timer = this.#options.clock.after(askEveryMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { clock, ask, onGap } = this.#options;
    try {
      await within(clock, answerWithinMs, ask(), () => {
        throw new ShoalError("DeadlineExceeded", "the store does not answer");
      });
      if (this.#watching && this.#silentMs >= lostAfterMs) onGap();
      this.#answered();
    } catch {
      // Why is not for here to say: every read and write of the same time tells it to its own caller.
      this.#failures++;
    }
    if (!this.#watching) return;
    if (this.#failures === 0) this.#become(true);
    if (this.#failures >= leastFailures && this.#silentMs >= lostAfterMs) this.#become(false);
    this.#arm();
  }

  get #silentMs(): number {
    return this.#options.clock.now() - this.#answeredAt;
  }

  #answered(): void {
    this.#failures = 0;
    this.#answeredAt = this.#options.clock.now();
  }

  #become(inTouch: boolean): void {
    if (inTouch === this.#inTouch) return;
    this.#inTouch = inTouch;
    this.#options.onChange(inTouch);
  }
}
