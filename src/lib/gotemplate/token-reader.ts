/**
 * The tokens of a template, read one by one, and the messages of what is wrong with them: these name the line of the
 * furthest token that was looked at, as Go's do.
 */
import { isShoalError, ShoalError } from "../errors.ts";
import { type Budget, shortened, templateLimits } from "./budget.ts";
import { tokenize } from "./lexer.ts";
import { quoteText, unquote } from "./quote.ts";
import type { Token, TokenKind } from "./tokens.ts";

export class TokenReader {
  readonly #name: string;
  readonly #tokens: readonly Token[];
  #at = 0;
  #furthest = 0;
  #depth = 0;
  /** Line of the action that is being read; 0 outside. */
  actionLine = 0;

  /** @param name how messages call the template */
  constructor(name: string, text: string, budget: Budget) {
    this.#name = name;
    this.#tokens = tokenize(text, budget);
  }

  /** To come back to with `returnTo`. */
  get place(): number {
    return this.#at;
  }

  returnTo(place: number): void {
    this.#at = place;
  }

  peek(): Token {
    this.#furthest = Math.max(this.#furthest, this.#at);
    const token = this.#tokens[this.#at] ?? this.#tokens.at(-1);
    return token ?? { kind: "eof", text: "EOF", position: 0, line: 1 };
  }

  next(): Token {
    const token = this.peek();
    this.#at++;
    return token;
  }

  peekNonSpace(): Token {
    while (this.peek().kind === "space") this.#at++;
    return this.peek();
  }

  nextNonSpace(): Token {
    this.peekNonSpace();
    return this.next();
  }

  expect(kinds: readonly TokenKind[], context: string): Token {
    const token = this.nextNonSpace();
    if (!kinds.includes(token.kind)) throw this.unexpected(token, context);
    return token;
  }

  isKeyword(token: Token, ...words: string[]): boolean {
    return token.kind === "keyword" && words.includes(token.text);
  }

  fault(message: string): ShoalError {
    const line = (this.#tokens[this.#furthest] ?? this.#tokens.at(-1))?.line ?? 1;
    return new ShoalError("InvalidArgument", `template: ${this.#name}:${line}: ${shortened(message)}`);
  }

  unexpected(token: Token, context: string): ShoalError {
    if (token.kind !== "error") return this.fault(`unexpected ${describe(token)} in ${context}`);
    if (this.actionLine === 0 || this.actionLine === token.line) return this.fault(token.text);
    const started = `started at ${this.#name}:${this.actionLine}`;
    return this.fault(`${token.text}${token.text.endsWith(" action") ? "" : " in action"} ${started}`);
  }

  /** Reads a literal; its fault gets the place. */
  literal<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (!isShoalError(error)) throw error;
      throw this.fault(error.message);
    }
  }

  /** @throws when it is too deep; `read` is done one level deeper */
  deeper<T>(read: () => T): T {
    if (this.#depth >= templateLimits.depth) throw this.fault("max expression depth exceeded");
    this.#depth++;
    const result = read();
    this.#depth--;
    return result;
  }

  /** The text of a string literal. */
  literalName(token: Token): string {
    return this.literal(() => unquote(token.text));
  }
}

/** A token as messages name it. */
function describe({ kind, text }: Token): string {
  if (kind === "eof") return "EOF";
  if (kind === "keyword" || kind === "dot" || kind === "nil") return `<${text}>`;
  const characters = [...text];
  return characters.length > 10 ? `${quoteText(characters.slice(0, 10).join(""))}...` : quoteText(text);
}
