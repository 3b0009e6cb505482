/**
 * Go's fmt verbs, for the values that templates have. What is wrong in a format becomes text of the result, as in Go:
 * `%!d(string=x)`, `%!d(MISSING)`, `%!(EXTRA int=1)`.
 */
import { checkLength } from "./budget.ts";
import { toBytes } from "./bytes.ts";
import { formatFloat } from "./float.ts";
import { canBackquote, quoteCharacter, quoteText, unicodePoint } from "./quote.ts";
import { GoByte, GoComplex, GoList, GoMap, type GoStruct, pointee, typeName, type Value } from "./value.ts";

/** What stands between the percent sign and the verb. */
export interface Flags {
  minus?: boolean;
  plus?: boolean;
  sharp?: boolean;
  space?: boolean;
  zero?: boolean;
  width?: number;
  precision?: number;
  /** `%+v`: structs with the names of their fields. */
  named?: boolean;
  /** `%#v`: as Go source. */
  goSyntax?: boolean;
}

/**
 * A value by one verb.
 * @throws ShoalError InvalidArgument when the text becomes too long
 */
export function formatValue(value: Value, verb: string, flags: Flags = {}): string {
  const { sharp = false, plus = false } = flags;
  const own = verb === "v" ? { ...flags, goSyntax: sharp, named: plus, sharp: false, plus: false } : flags;
  const text = new Formatter(own).value(value, verb);
  checkLength(text.length);
  return text;
}

class Formatter {
  readonly #flags: Flags;
  /** Characters of all parts so far: a map's entries may each be padded to a million. */
  #made = 0;

  constructor(flags: Flags) {
    this.#flags = flags;
  }

  value(value: Value, verb: string): string {
    if (verb === "T") return this.#padded(value === undefined ? "<nil>" : this.#cut(typeName(value)));
    switch (typeof value) {
      case "undefined":
        return verb === "v" ? this.#padded("<nil>") : `%!${verb}(<nil>)`;
      case "string":
        return this.#string(value, verb) ?? this.#bad(value, verb);
      case "boolean":
        return "tv".includes(verb) ? this.#padded(String(value)) : this.#bad(value, verb);
      case "bigint":
        return this.#integer(value, verb) ?? this.#bad(value, verb);
      case "number":
        return this.#float(value, verb) ?? this.#bad(value, verb);
      default:
        return this.#object(value, verb);
    }
  }

  #object(value: GoByte | GoComplex | GoMap | GoList | GoStruct, verb: string): string {
    if (value instanceof GoByte) {
      if (this.#flags.goSyntax) return this.#digits(BigInt(value.byte), 16, this.#flags, "0x");
      return this.#integer(BigInt(value.byte), verb) ?? this.#bad(value, verb);
    }
    if (value instanceof GoComplex) return this.#complex(value, verb) ?? this.#bad(value, verb);
    // An address, which has no meaning: Go prints one.
    if (verb === "p") return this.#bad(value, verb);
    const { goSyntax, named } = this.#flags;
    const inner = (item: Value): string => this.value(item, verb);
    if (value instanceof GoMap) {
      const entries = [...value.entries].map(([key, item]) => `${inner(key)}:${inner(item)}`);
      return goSyntax ? `${typeName(value)}{${entries.join(", ")}}` : `map[${entries.join(" ")}]`;
    }
    if (value instanceof GoList) {
      const items = value.items.map(inner);
      return goSyntax ? `${typeName(value)}{${items.join(", ")}}` : `[${items.join(" ")}]`;
    }
    if (value.isPointer) return `&${this.value(pointee(value), verb)}`;
    const fields = [...value.fields].map(([name, item]) =>
      goSyntax || named ? `${name}:${inner(item)}` : inner(item),
    );
    return goSyntax ? `${typeName(value)}{${fields.join(", ")}}` : `{${fields.join(" ")}}`;
  }

  #bad(value: Value, verb: string): string {
    return `%!${verb}(${typeName(value)}=${this.value(value, "v")})`;
  }

  #string(text: string, verb: string): string | undefined {
    switch (verb) {
      case "v":
        return this.#flags.goSyntax ? this.#quoted(text) : this.#padded(this.#cut(text));
      case "s":
        return this.#padded(this.#cut(text));
      case "q":
        return this.#quoted(text);
      case "x":
      case "X":
        return this.#hexadecimal(toBytes(text), verb);
      default:
        return undefined;
    }
  }

  #quoted(text: string): string {
    const shown = this.#cut(text);
    if (this.#flags.sharp && canBackquote(shown)) return this.#padded(`\`${shown}\``);
    return this.#padded(quoteText(shown, { ascii: this.#flags.plus ?? false }));
  }

  #hexadecimal(bytes: Buffer, verb: string): string {
    const { sharp, space, precision = bytes.length } = this.#flags;
    const pairs = [...bytes.subarray(0, precision)].map((byte) => byte.toString(16).padStart(2, "0"));
    const prefix = sharp && pairs.length > 0 ? "0x" : "";
    const text = prefix + pairs.join(space ? ` ${prefix}` : "");
    return this.#padded(verb === "X" ? text.toUpperCase() : text);
  }

  #integer(value: bigint, verb: string): string | undefined {
    switch (verb) {
      case "v":
      case "d":
        return this.#digits(value, 10, { ...this.#flags, sharp: false });
      case "b":
        return this.#digits(value, 2, this.#flags, this.#flags.sharp ? "0b" : "");
      case "o":
        return this.#digits(value, 8, this.#flags);
      case "O":
        return this.#digits(value, 8, this.#flags, this.#flags.sharp && value !== 0n ? "0o0" : "0o");
      case "x":
        return this.#digits(value, 16, this.#flags);
      case "X":
        return this.#digits(value, 16, this.#flags).toUpperCase();
      case "c":
        return this.#padded(character(value));
      case "q":
        return this.#padded(quoteCharacter(character(value), { ascii: this.#flags.plus ?? false }));
      case "U":
        return this.#unicode(value);
      default:
        return undefined;
    }
  }

  #digits(value: bigint, base: number, flags: Flags, fixedPrefix?: string): string {
    const { minus, plus, sharp, space, zero, width, precision } = flags;
    const sign = value < 0n ? "-" : plus ? "+" : space ? " " : "";
    let digits = (value < 0n ? -value : value).toString(base);
    if (precision !== undefined) {
      if (precision === 0 && value === 0n) return " ".repeat(width ?? 0);
      digits = digits.padStart(precision, "0");
    } else if (zero && !minus && width !== undefined) digits = digits.padStart(width - sign.length, "0");
    const octal = base === 8 && !digits.startsWith("0") ? "0" : "";
    const prefix = fixedPrefix ?? (sharp ? (base === 16 ? "0x" : octal) : "");
    return this.#padded(sign + prefix + digits, { zero: false });
  }

  #unicode(value: bigint): string {
    const digits = BigInt.asUintN(64, value).toString(16).toUpperCase();
    const point = `U+${digits.padStart(Math.max(this.#flags.precision ?? 4, 4), "0")}`;
    const isCharacter = value >= 0n && value <= 0x10ffffn;
    const shown = this.#flags.sharp && isCharacter ? unicodePoint(character(value)).replace(/^\S+/, "") : "";
    return this.#padded(point + shown, { zero: false });
  }

  #float(value: number, verb: string): string | undefined {
    const kind = { v: "g", F: "f" }[verb] ?? verb;
    if (!"eEfgGbxX".includes(kind)) return undefined;
    const { sharp, plus, space, zero, minus, width } = this.#flags;
    const byDefault = "eEf".includes(kind) ? 6 : -1;
    let text = formatFloat(value, kind, this.#flags.precision ?? byDefault);
    if (sharp && kind !== "b") text = withPoint(text, kind, this.#flags.precision);
    const isSigned = /^[-+]/.test(text);
    const sign =
      isSigned && text.startsWith("-") ? "-" : plus ? "+" : space ? " " : isSigned && value === Infinity ? "+" : "";
    const digits = isSigned ? text.slice(1) : text;
    const isNumber = Number.isFinite(value);
    if (zero && !minus && isNumber && width !== undefined) return sign + digits.padStart(width - sign.length, "0");
    return this.#padded(sign + digits, { zero: false });
  }

  #complex({ real, imaginary }: GoComplex, verb: string): string | undefined {
    const first = this.#float(real, verb);
    const second = new Formatter({ ...this.#flags, plus: true }).#float(imaginary, verb);
    return first === undefined || second === undefined ? undefined : `(${first}${second}i)`;
  }

  /** The first characters, as many as the precision says. */
  #cut(text: string): string {
    const { precision } = this.#flags;
    return precision === undefined || text.length <= precision ? text : [...text].slice(0, precision).join("");
  }

  #padded(text: string, { zero = this.#flags.zero ?? false } = {}): string {
    const { width = 0, minus } = this.#flags;
    this.#made += Math.max(width, text.length);
    checkLength(this.#made);
    if (width <= text.length / 2) return text;
    const missing = width - [...text].length;
    if (missing <= 0) return text;
    return minus ? text + " ".repeat(missing) : (zero ? "0" : " ").repeat(missing) + text;
  }
}

function character(value: bigint): string {
  const isCodePoint = value >= 0n && value <= 0x10ffffn && !(value >= 0xd800n && value <= 0xdfffn);
  return isCodePoint ? String.fromCodePoint(Number(value)) : "\uFFFD";
}

/** `#`: a point, and for g the zeros that it leaves out. */
function withPoint(text: string, kind: string, precision = 6): string {
  const [, sign = "", mantissa = "", exponent = ""] = /^([-+]?)(.*?)((?:[eEpP][-+].*)?)$/.exec(text) ?? [];
  if (!/[0-9]/.test(mantissa)) return text;
  const pointed = mantissa.includes(".") ? mantissa : `${mantissa}.`;
  if (!"gGx".includes(kind)) return sign + pointed + exponent;
  const significant = pointed.replace(".", "").replace(/^0+(?=.)/, "").length; // as in Go, the x of 0x is one
  return sign + pointed + "0".repeat(Math.max(precision - significant, 0)) + exponent;
}
