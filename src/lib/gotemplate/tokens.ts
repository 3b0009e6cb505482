/** The tokens of a template, as Go's text/template has them. */

export type TokenKind =
  | "error" // what is wrong; the last token
  | "eof"
  | "text"
  | "left delimiter"
  | "right delimiter"
  | "space"
  | "keyword"
  | "identifier"
  | "field" // with its dot
  | "variable" // with its dollar
  | "dot"
  | "nil"
  | "bool"
  | "number"
  | "complex"
  | "character constant"
  | "string"
  | "raw string"
  | "left paren"
  | "right paren"
  | "pipe"
  | "declare"
  | "assign"
  | "char"; // any other printable ASCII character

export interface Token {
  readonly kind: TokenKind;
  /** As it was written; of an error its message. */
  readonly text: string;
  /** Where it begins in the template's text. */
  readonly position: number;
  /** Counted from 1. */
  readonly line: number;
}

/** The words that begin a control structure or end one; none of them can be a function's name. */
export const keywords: ReadonlySet<string> = new Set([
  "block",
  "break",
  "continue",
  "define",
  "else",
  "end",
  "if",
  "range",
  "template",
  "with",
]);
