/**
 * Cuts a template into tokens. Faults become a last token of the kind "error", with Go's text, so that the parser can
 * say where it was when it met it. The grammar is that of Go 1.24: newlines may stand inside of actions.
 */

import type { Budget } from "./budget.ts";
import { isLetterOrDigit, quoteText, unicodePoint } from "./quote.ts";
import { keywords, type Token, type TokenKind } from "./tokens.ts";

const leftDelimiter = "{{";
const rightDelimiter = "}}";
const space = " \t\r\n";

/**
 * The tokens of a whole template; the last is "eof" or "error".
 * @throws ShoalError InvalidArgument when they are more than the budget allows
 */
export function tokenize(text: string, budget: Budget): readonly Token[] {
  return new Lexer(text, budget).run();
}

class Fault extends Error {}

class Lexer {
  readonly #text: string;
  readonly #budget: Budget;
  readonly #tokens: Token[] = [];
  #start = 0;
  #at = 0;
  #line = 1;
  #parens = 0;

  constructor(text: string, budget: Budget) {
    this.#text = text;
    this.#budget = budget;
  }

  run(): readonly Token[] {
    try {
      while (this.#plain()) this.#action();
      this.#emit("eof");
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#tokens.push({ kind: "error", text: error.message, position: this.#start, line: this.#line });
    }
    return this.#tokens;
  }

  /** Text up to the next action. @returns whether there is one */
  #plain(): boolean {
    const found = this.#text.indexOf(leftDelimiter, this.#at);
    const end = found < 0 ? this.#text.length : found;
    const trims = found >= 0 && this.#trimsBefore(found + leftDelimiter.length);
    this.#at = end;
    while (trims && this.#at > this.#start && space.includes(this.#text[this.#at - 1] ?? "x")) this.#at--;
    if (this.#at > this.#start) this.#emit("text");
    this.#at = end;
    this.#skip();
    return found >= 0;
  }

  /** From the left delimiter through the right one; a comment leaves no token. */
  #action(): void {
    this.#at += leftDelimiter.length;
    const marker = this.#trimsBefore(this.#at) ? 2 : 0;
    if (this.#text.startsWith("/*", this.#at + marker)) {
      this.#at += marker;
      this.#skip();
      this.#comment();
      return;
    }
    this.#emit("left delimiter");
    this.#at += marker;
    this.#skip();
    this.#parens = 0;
    while (!this.#atRightDelimiter()) this.#inside();
    if (this.#parens > 0) throw new Fault("unclosed left paren");
    this.#closeAction("right delimiter");
  }

  #comment(): void {
    const end = this.#text.indexOf("*/", this.#at);
    if (end < 0) throw new Fault("unclosed comment");
    this.#at = end + 2;
    if (!this.#atRightDelimiter()) throw new Fault("comment ends before closing delimiter");
    this.#skip();
    this.#closeAction(undefined);
  }

  #closeAction(kind: TokenKind | undefined): void {
    const trims = !this.#text.startsWith(rightDelimiter, this.#at);
    if (trims) {
      this.#at += 2;
      this.#skip();
    }
    this.#at += rightDelimiter.length;
    if (kind) this.#emit(kind);
    else this.#skip();
    if (trims) while (this.#peek() !== "" && space.includes(this.#peek())) this.#at++;
    this.#skip();
  }

  /** One token inside of an action. */
  #inside(): void {
    const character = this.#next();
    if (character === "") throw new Fault("unclosed action");
    if (space.includes(character)) this.#spaces();
    else if (character === "=") this.#emit("assign");
    else if (character === ":") {
      if (this.#next() !== "=") throw new Fault("expected :=");
      this.#emit("declare");
    } else if (character === "|") this.#emit("pipe");
    else if (character === '"') this.#quoted('"', "string", "unterminated quoted string");
    else if (character === "'") this.#quoted("'", "character constant", "unterminated character constant");
    else if (character === "`") this.#raw();
    else if (character === "$") this.#name("variable", "variable");
    else if (character === "." && !/[0-9]/.test(this.#peek())) this.#name("field", "dot");
    else if (/[-+.0-9]/.test(character)) this.#number();
    else if (isLetterOrDigit(character)) this.#word();
    else if (character === "(") {
      this.#emit("left paren");
      this.#parens++;
    } else if (character === ")") {
      if (--this.#parens < 0) throw new Fault("unexpected right paren");
      this.#emit("right paren");
    } else if (/^[!-~]$/.test(character)) this.#emit("char");
    else throw new Fault(`unrecognized character in action: ${unicodePoint(character)}`);
  }

  #spaces(): void {
    while (this.#peek() !== "" && space.includes(this.#peek())) this.#at++;
    // The last space belongs to a trim marker.
    if (this.#text.startsWith(`-${rightDelimiter}`, this.#at)) this.#at--;
    if (this.#at > this.#start) this.#emit("space");
  }

  #quoted(quote: string, kind: TokenKind, fault: string): void {
    for (;;) {
      let character = this.#next();
      if (character === quote) break;
      const escaped = character === "\\";
      if (escaped) character = this.#next();
      if (character === "" || character === "\n") throw new Fault(fault);
    }
    this.#emit(kind);
  }

  #raw(): void {
    const end = this.#text.indexOf("`", this.#at);
    if (end < 0) throw new Fault("unterminated raw quoted string");
    this.#at = end + 1;
    this.#emit("raw string");
  }

  /** A field or variable, whose first character has been read; that one alone is of the other kind. */
  #name(kind: TokenKind, alone: TokenKind): void {
    const isAlone = this.#atTerminator();
    if (!isAlone) this.#letters();
    this.#emit(isAlone ? alone : kind);
  }

  #word(): void {
    this.#letters();
    const word = this.#text.slice(this.#start, this.#at);
    if (keywords.has(word)) this.#emit("keyword");
    else if (word === "nil") this.#emit("nil");
    else if (word === "true" || word === "false") this.#emit("bool");
    else this.#emit("identifier");
  }

  #letters(): void {
    while (isLetterOrDigit(this.#peek())) this.#next();
    if (!this.#atTerminator()) throw new Fault(`bad character ${unicodePoint(this.#peek())}`);
  }

  #number(): void {
    this.#at = this.#start;
    if (!this.#scanNumber()) throw this.#badNumber();
    const isComplex = /[-+]/.test(this.#peek()); // 1+2i, without spaces
    if (isComplex && (!this.#scanNumber() || this.#text[this.#at - 1] !== "i")) throw this.#badNumber();
    this.#emit(isComplex ? "complex" : "number");
  }

  #badNumber(): Fault {
    return new Fault(`bad number syntax: ${quoteText(this.#text.slice(this.#start, this.#at))}`);
  }

  /** Not exact: what is no number gets through here, and is refused when its value is taken. */
  #scanNumber(): boolean {
    const number =
      /[-+]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][-+]?[0-9_]*)?|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?|[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9_]*)?)i?/y;
    number.lastIndex = this.#at;
    this.#at += number.exec(this.#text)?.[0].length ?? 0;
    if (!isLetterOrDigit(this.#peek())) return true;
    this.#next();
    return false;
  }

  /** Whether a name may end here: `.X.Y` is two, `$x+2` is none. */
  #atTerminator(): boolean {
    const character = this.#peek();
    return character === "" || " \t\r\n.,|:)(".includes(character) || this.#text.startsWith(rightDelimiter, this.#at);
  }

  #atRightDelimiter(): boolean {
    if (this.#text.startsWith(rightDelimiter, this.#at)) return true;
    return (
      space.includes(this.#text[this.#at] ?? "x") && this.#text.startsWith(`-${rightDelimiter}`, this.#at + 1) === true
    );
  }

  /** A minus and a space: text before the action loses its spaces. */
  #trimsBefore(at: number): boolean {
    return this.#text[at] === "-" && space.includes(this.#text[at + 1] ?? "x");
  }

  #peek(): string {
    const code = this.#text.codePointAt(this.#at);
    return code === undefined ? "" : String.fromCodePoint(code);
  }

  /** The next character (a whole code point), "" at the end. */
  #next(): string {
    const character = this.#peek();
    this.#at += character.length;
    return character;
  }

  #emit(kind: TokenKind): void {
    this.#budget.spend(this.#at - this.#start);
    const text = this.#text.slice(this.#start, this.#at);
    this.#tokens.push({ kind, text: kind === "eof" ? "EOF" : text, position: this.#start, line: this.#line });
    this.#skip();
  }

  /** What was read since the last token is none. */
  #skip(): void {
    for (let at = this.#start; at < this.#at; at++) if (this.#text[at] === "\n") this.#line++;
    this.#start = this.#at;
  }
}
