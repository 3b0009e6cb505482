/** What happened, line by line: the last lines of a failed run, a fingerprint of the whole, and all of it on demand. */
import { rfc3339 } from "../../src/lib/clock.ts";
import type { LogFields, Logger } from "../../src/lib/log.ts";
import type { Timeline } from "./timeline.ts";

const kept = 60;

export class Trace {
  readonly #timeline: Timeline;
  readonly #print: ((line: string) => void) | undefined;
  readonly #last: string[] = [];
  #lines = 0;
  #time = { at: -1, text: "" };
  /** FNV-1a of all lines. */
  #hash = 0x811c9dc5;

  /** @param print gets each line at once */
  constructor(timeline: Timeline, print?: (line: string) => void) {
    this.#timeline = timeline;
    this.#print = print;
  }

  /** @param who the node, or the part of the simulation */
  note(who: string, text: string): void {
    const now = this.#timeline.now();
    if (now !== this.#time.at) this.#time = { at: now, text: rfc3339(now).slice(11, 23) };
    const line = `${this.#time.text} ${who.padEnd(8)} ${text}`;
    this.#lines++;
    for (let index = 0; index < line.length; index++) {
      this.#hash = Math.imul(this.#hash ^ line.charCodeAt(index), 0x01000193) >>> 0;
    }
    this.#last[this.#lines % kept] = line;
    this.#print?.(line);
  }

  get lines(): number {
    return this.#lines;
  }

  /** The same for two runs exactly when all their lines were. */
  get fingerprint(): string {
    return `${this.#lines}-${this.#hash.toString(16)}`;
  }

  /** The newest lines, oldest first. */
  last(): readonly string[] {
    const start = this.#lines + 1;
    return Array.from({ length: kept }, (_, index) => this.#last[(start + index) % kept] ?? "").filter(Boolean);
  }

  /** A process's own log. Warnings and errors always; the rest only where everything is printed. */
  logger(who: string, errors: (text: string) => void): Logger {
    const write = (level: string) => (message: string, fields?: LogFields) =>
      this.note(who, `${level} ${message}${fields ? ` ${JSON.stringify(fields)}` : ""}`);
    const logger: Logger = {
      debug() {},
      info() {},
      warn: write("warn"),
      error: (message, fields) => {
        write("error")(message, fields);
        errors(`${message}${fields ? ` ${JSON.stringify(fields)}` : ""}`);
      },
      child: () => logger,
    };
    return logger;
  }
}
