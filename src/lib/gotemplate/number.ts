/** Go's number literals. One text may be an int, a uint, a float and a complex number at once, as Go's constants are. */
import { ShoalError } from "../errors.ts";
import { quoteText, unquoteCharacter } from "./quote.ts";
import type { Token } from "./tokens.ts";
import { GoComplex, type Value } from "./value.ts";

/** The value of a number where nothing says which type it should have; `overflow` when it fits no int. */
export type Constant = { readonly value: Value } | { readonly overflow: true };

/** More than any number has that fits somewhere; text can be megabytes long. */
const mostDigits = 500;
const leastInt = -(2n ** 63n);
const largestInt = 2n ** 63n - 1n;
const largestUint = 2n ** 64n - 1n;

/** @throws ShoalError InvalidArgument with Go's text for what is no number */
export function constantOf({ kind, text }: Token): Constant {
  if (kind === "character constant") return { value: BigInt(unquoteCharacter(text)) };
  if (kind === "complex") return { value: complex(text) };
  if (text.endsWith("i")) {
    const imaginary = float(text.slice(0, -1));
    if (imaginary !== undefined) return { value: new GoComplex(0, imaginary) };
  }
  const whole = integer(text);
  if (whole !== undefined && whole >= leastInt && whole <= largestInt) return { value: whole };
  if (whole !== undefined && whole > 0 && whole <= largestUint && /^[0-9]/.test(text)) return { overflow: true };
  const real = float(text);
  if (real === undefined) throw invalid(`illegal number syntax: ${quoteText(text)}`);
  if (!/[.eEpP]/.test(text)) throw invalid(`integer overflow: ${quoteText(text)}`);
  return { value: real };
}

function complex(text: string): GoComplex {
  const middle = text.slice(1, -1).search(/(?<![eEpP])[-+]/) + 1;
  const real = float(text.slice(0, middle));
  const imaginary = float(text.slice(middle, -1));
  if (middle === 0 || real === undefined || imaginary === undefined)
    throw invalid("syntax error scanning complex number");
  return new GoComplex(real, imaginary);
}

/** Decimal, or with the prefix 0x, 0o, 0b or 0; underscores between digits. Undefined for what is none. */
function integer(text: string): bigint | undefined {
  const [, sign = "", digits = ""] = /^([-+]?)(.*)$/s.exec(text) ?? [];
  const isInteger =
    /^(?:0|[1-9](?:_?[0-9])*|0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])+)$/.test(digits);
  if (!isInteger || digits.length > mostDigits) return undefined;
  const plain = digits.replaceAll("_", "").replace(/^0(?=[0-7])/, "0o");
  return sign === "-" ? -BigInt(plain) : BigInt(plain);
}

/** A finite decimal or hexadecimal number; undefined for what is none. */
function float(text: string): number | undefined {
  const hexadecimal = /^([-+]?)0[xX]([0-9a-fA-F_]*)\.?([0-9a-fA-F_]*)[pP]([-+]?[0-9]+)$/.exec(text);
  const value = hexadecimal ? hexadecimalFloat(hexadecimal) : decimalFloat(text);
  return value !== undefined && Number.isFinite(value) ? value : undefined;
}

function decimalFloat(text: string): number | undefined {
  const isDecimal =
    /^[-+]?(?:[0-9](?:_?[0-9])*\.?(?:[0-9](?:_?[0-9])*)?|\.[0-9](?:_?[0-9])*)(?:[eE][-+]?[0-9](?:_?[0-9])*)?$/;
  return isDecimal.test(text) ? Number(text.replaceAll("_", "")) : undefined;
}

function hexadecimalFloat([, sign, whole = "", fraction = "", exponent = ""]: RegExpExecArray): number | undefined {
  const digits = (whole + fraction).replaceAll("_", "");
  if (digits === "") return undefined;
  const power = Number(exponent) - 4 * fraction.replaceAll("_", "").length;
  const value = Number(BigInt(`0x${digits}`)) * 2 ** power;
  return sign === "-" ? -value : value;
}

function invalid(message: string): ShoalError {
  return new ShoalError("InvalidArgument", message);
}
