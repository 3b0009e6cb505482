/** Go's literals of strings and characters: written (strconv.Quote and its kin) and read (strconv.Unquote). */
import { ShoalError } from "../errors.ts";
import { escapedByte, fromBytes, toBytes } from "./bytes.ts";

const replacement = "\uFFFD";
const written: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
};
const read: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
};

/** A letter, a digit or an underscore, of any script. */
export function isLetterOrDigit(character: string): boolean {
  return character <= "\x7f" ? /^\w$/.test(character) : /^[\p{L}\p{Nd}]$/u.test(character);
}

/** What Go shows as it is: letters, marks, numbers, punctuation, symbols and the ASCII space. */
export function isPrintable(character: string): boolean {
  return /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u.test(character);
}

/** `U+0029 ')'`, as of the verb `%#U`. */
export function unicodePoint(character: string): string {
  const known = escapedByte(character) === undefined ? character : replacement;
  const code = (known.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return `U+${code}${isPrintable(known) ? ` '${known}'` : ""}`;
}

/** In double quotes, what can't be shown as escapes; with `ascii` also whatever is not ASCII. */
export function quoteText(text: string, { ascii = false } = {}): string {
  if (/^[ !#-[\]-~]*$/.test(text)) return `"${text}"`; // nothing to escape: nearly all there are
  let result = "";
  for (const character of text) result += writeCharacter(character, '"', ascii);
  return `"${result}"`;
}

/** In single quotes. */
export function quoteCharacter(character: string, { ascii = false } = {}): string {
  return `'${writeCharacter(character, "'", ascii)}'`;
}

function writeCharacter(character: string, quote: string, ascii: boolean): string {
  const byte = escapedByte(character);
  if (byte !== undefined) return `\\x${byte.toString(16)}`;
  if (character === quote) return `\\${quote}`;
  const known = written[character];
  if (known !== undefined) return known;
  const code = character.codePointAt(0) ?? 0;
  if (isPrintable(character) && (!ascii || code < 0x80)) return character;
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\U${code.toString(16).padStart(8, "0")}`;
}

/** Whether a text can stand in backquotes as it is. */
export function canBackquote(text: string): boolean {
  return text.isWellFormed() && [...text].every((one) => one === "\t" || (one >= " " && !"`\x7f\uFEFF".includes(one)));
}

/**
 * The text of a string literal, in double quotes or backquotes.
 * @throws ShoalError InvalidArgument "invalid syntax"
 */
export function unquote(literal: string): string {
  const inner = literal.slice(1, -1);
  if (literal.startsWith("`")) return inner.replaceAll("\r", "");
  let result = "";
  for (let at = 0; at < inner.length; ) {
    const { text, size } = readCharacter(inner, at, '"');
    result += text;
    at += size;
  }
  return fromBytes(toBytes(result)); // bytes given one by one may be UTF-8 together
}

/**
 * The code point of a character literal in single quotes.
 * @throws ShoalError InvalidArgument as Go's text
 */
export function unquoteCharacter(literal: string): number {
  const { text, size } = readCharacter(literal, 1, "'");
  if (literal.slice(1 + size) !== "'") {
    throw new ShoalError("InvalidArgument", `malformed character constant: ${literal}`);
  }
  return escapedByte(text) ?? text.codePointAt(0) ?? 0;
}

function readCharacter(text: string, at: number, quote: string): { text: string; size: number } {
  const character = String.fromCodePoint(text.codePointAt(at) ?? 0);
  if (character === quote || character === "\n") throw invalid();
  if (character !== "\\") return { text: character, size: character.length };
  const letter = text[at + 1] ?? "";
  if (letter === quote) return { text: letter, size: 2 };
  const plain = read[letter];
  if (plain !== undefined) return { text: plain, size: 2 };
  const digits = /^(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))/.exec(
    text.slice(at + 1, at + 10),
  );
  if (!digits) throw invalid();
  const [whole, byte, short, long, octal] = digits;
  const code = octal ? Number.parseInt(octal, 8) : Number.parseInt(byte ?? short ?? long ?? "", 16);
  const isByte = (byte ?? octal) !== undefined;
  if (isByte ? code > 0xff : code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) throw invalid();
  const escaped = isByte && code >= 0x80 ? String.fromCharCode(0xdc00 + code) : String.fromCodePoint(code);
  return { text: escaped, size: 1 + whole.length };
}

function invalid(): ShoalError {
  return new ShoalError("InvalidArgument", "invalid syntax");
}
