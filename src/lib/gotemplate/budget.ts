/**
 * What templates may use up. They come from users and are expanded inside the daemon, so that each has to end soon,
 * whatever it is: every step, and every piece of text that is handled, is paid for. Go's engine has no such limit.
 */
import { ShoalError } from "../errors.ts";

export const templateLimits = {
  /** Tokens read and nodes evaluated, over all templates of one budget: a few tenths of a second at most. */
  steps: 200_000,
  /** Characters handled that cost as much as a step. */
  charactersPerStep: 64,
  /** Characters of one text: output, or what a function answers. Above the largest config (1,000 KiB). */
  characters: 2 * 1024 * 1024,
  /** Characters of a template's part, or a value, in a message. */
  shown: 500,
  /** Pipelines, control structures and templates inside each other, for the stack's sake (Go: 10,000, 100,000). */
  depth: 200,
} as const;

/** One budget may serve many templates: a spec can hold thousands of them. */
export class Budget {
  #steps: number;

  constructor(steps: number = templateLimits.steps) {
    this.#steps = steps;
  }

  /**
   * Pays for one step and the characters that it handles.
   * @throws ShoalError InvalidArgument when nothing is left
   */
  spend(characters = 0): void {
    this.#steps -= 1 + Math.floor(characters / templateLimits.charactersPerStep);
    if (this.#steps < 0) throw new ShoalError("InvalidArgument", "the template takes too many steps");
  }
}

/** @throws ShoalError InvalidArgument for a text that no template may make */
export function checkLength(characters: number): void {
  if (characters > templateLimits.characters) {
    throw new ShoalError("InvalidArgument", "the template makes a text that is too long");
  }
}

/** What a message shows of a text that may be megabytes long. */
export function shortened(text: string): string {
  return text.length > templateLimits.shown ? `${text.slice(0, templateLimits.shown)}...` : text;
}
