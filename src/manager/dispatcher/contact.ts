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

export class Contact {
  readonly #clock: Clock;
  readonly #ask: () => Promise<void>;
  readonly #onChange: (inTouch: boolean) => void;
  #timer: Timer | undefined;
  #failures = 0;
  #answeredAt = 0;
  #inTouch = true;
  #watching = false;

  /** @param ask resolves when there is a quorum */
  constructor(clock: Clock, ask: () => Promise<void>, onChange: (inTouch: boolean) => void) {
    this.#clock = clock;
    this.#ask = ask;
    this.#onChange = onChange;
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
    this.#timer = this.#clock.after(askEveryMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    try {
      await within(this.#clock, answerWithinMs, this.#ask(), () => {
        throw new ShoalError("DeadlineExceeded", "the store does not answer");
      });
      this.#answered();
    } catch {
      // Why is not for here to say: every read and write of the same time tells it to its own caller.
      this.#failures++;
    }
    if (!this.#watching) return;
    if (this.#failures === 0) this.#become(true);
    const silentMs = this.#clock.now() - this.#answeredAt;
    if (this.#failures >= leastFailures && silentMs >= lostAfterMs) this.#become(false);
    this.#arm();
  }

  #answered(): void {
    this.#failures = 0;
    this.#answeredAt = this.#clock.now();
  }

  #become(inTouch: boolean): void {
    if (inTouch === this.#inTouch) return;
    this.#inTouch = inTouch;
    this.#onChange(inTouch);
  }
}
