/**
 * A list of small numbers (node slots) that only grows at its end and forgets its beginning. Each reader remembers how
 * far it has read; one that comes too late is told so, and looks at everything instead.
 */

/** Entries that are kept at least: below this, reading anew costs nothing. */
const fewEntries = 1024;

export class Journal {
  #entries: number[] = [];
  #start = 0;

  /** The position after the newest entry. */
  get end(): number {
    return this.#start + this.#entries.length;
  }

  push(entry: number): void {
    this.#entries.push(entry);
  }

  /** Forgets the older half once there are many more entries than `enough` (how much reading everything costs). */
  trim(enough: number): void {
    const most = Math.max(fewEntries, 2 * enough);
    if (this.#entries.length <= most) return;
    this.#start += this.#entries.length - most / 2;
    this.#entries = this.#entries.slice(-most / 2);
  }

  /** What was pushed since a position; undefined where some of it is forgotten. */
  since(position: number): readonly number[] | undefined {
    if (position < this.#start) return undefined;
    return position === this.end ? [] : this.#entries.slice(position - this.#start);
  }
}
