/** Go's fmt.Sprintf, Sprint and Sprintln over templates' values. */
import { checkLength } from "./budget.ts";
import { type Flags, formatValue } from "./format.ts";
import { typeName, type Value } from "./value.ts";

/** A width or precision above it is refused, as in Go (which looks before the last digit of a written one). */
const largest = 1_000_000;

/** All operands by %v, with a space between two of which neither is a string. */
export function sprint(values: readonly Value[]): string {
  let result = "";
  for (const [index, value] of values.entries()) {
    if (index > 0 && typeof value !== "string" && typeof values[index - 1] !== "string") result += " ";
    result += formatValue(value, "v");
    checkLength(result.length);
  }
  return result;
}

/** All operands by %v, with spaces between them and a newline. */
export function sprintln(values: readonly Value[]): string {
  let result = "";
  for (const value of values) {
    result += `${result === "" ? "" : " "}${formatValue(value, "v")}`;
    checkLength(result.length);
  }
  return `${result}\n`;
}

/** @throws ShoalError InvalidArgument when the text becomes too long; a faulty format is told in the text */
export function sprintf(format: string, values: readonly Value[]): string {
  return new Printf(format, values).run();
}

class Printf {
  readonly #format: string;
  readonly #values: readonly Value[];
  #result = "";
  #at = 0;
  /** The next operand. */
  #index = 0;
  /** Some operand was chosen by `[n]`: then none is said to be too many. */
  #reordered = false;
  #goodIndex = true;

  constructor(format: string, values: readonly Value[]) {
    this.#format = format;
    this.#values = values;
  }

  run(): string {
    while (this.#at < this.#format.length) {
      const percent = this.#format.indexOf("%", this.#at);
      const end = percent < 0 ? this.#format.length : percent;
      this.#write(this.#format.slice(this.#at, end));
      this.#at = end + 1;
      if (percent >= 0) this.#directive();
    }
    if (!this.#reordered && this.#index < this.#values.length) this.#extra();
    return this.#result;
  }

  #write(text: string): void {
    this.#result += text;
    checkLength(this.#result.length);
  }

  #directive(): void {
    this.#goodIndex = true;
    const flags = this.#flags();
    let afterIndex = this.#operandIndex();
    if (this.#format[this.#at] === "*") {
      this.#at++;
      this.#widthOperand(flags);
      afterIndex = false;
    } else {
      const width = this.#number();
      if (width !== undefined) flags.width = width;
      if (afterIndex && width !== undefined) this.#goodIndex = false; // "%[3]2d"
    }
    if (this.#format[this.#at] === ".") {
      this.#at++;
      if (afterIndex) this.#goodIndex = false; // "%[3].2d"
      afterIndex = this.#operandIndex();
      if (this.#format[this.#at] === "*") {
        this.#at++;
        this.#precisionOperand(flags);
        afterIndex = false;
      } else flags.precision = this.#number() ?? 0;
    }
    if (!afterIndex) this.#operandIndex();
    const code = this.#format.codePointAt(this.#at);
    const verb = code === undefined ? "" : String.fromCodePoint(code);
    this.#at += verb.length;
    this.#write(this.#operand(verb, flags));
  }

  #flags(): Flags {
    const names: Readonly<Record<string, keyof Flags>> = {
      "#": "sharp",
      "0": "zero",
      "+": "plus",
      "-": "minus",
      " ": "space",
    };
    const flags: Flags = {};
    for (;;) {
      const name = names[this.#format[this.#at] ?? ""];
      if (name === undefined) return flags;
      Object.assign(flags, { [name]: true });
      this.#at++;
    }
  }

  #operand(verb: string, flags: Flags): string {
    if (verb === "") return "%!(NOVERB)";
    if (verb === "%") return "%";
    if (!this.#goodIndex) return `%!${verb}(BADINDEX)`;
    if (this.#index >= this.#values.length) return `%!${verb}(MISSING)`;
    return formatValue(this.#values[this.#index++], verb, flags);
  }

  /** `[n]`: the operand with that number comes next. @returns whether there was one */
  #operandIndex(): boolean {
    if (this.#format[this.#at] !== "[") return false;
    this.#reordered = true;
    const end = this.#format.indexOf("]", this.#at);
    const digits = end < 0 ? "" : this.#format.slice(this.#at + 1, end);
    const index = /^[0-9]+$/.test(digits) ? Number(digits) : 0;
    const isGood = index >= 1 && index <= this.#values.length;
    if (isGood) this.#index = index - 1;
    else this.#goodIndex = false;
    this.#at = end < 0 ? this.#at + 1 : end + 1;
    return isGood;
  }

  #number(): number | undefined {
    const digits = /[0-9]+/y;
    digits.lastIndex = this.#at;
    const [text] = digits.exec(this.#format) ?? [];
    if (text === undefined) return undefined;
    const number = Number(text);
    if (Math.floor(number / 10) > largest) {
      this.#at = this.#format.length;
      return undefined;
    }
    this.#at += text.length;
    return number;
  }

  #widthOperand(flags: Flags): void {
    const width = this.#intOperand();
    if (width === undefined) this.#write("%!(BADWIDTH)");
    else if (width < 0) flags.minus = true;
    if (width !== undefined) flags.width = Math.abs(width);
  }

  #precisionOperand(flags: Flags): void {
    const precision = this.#intOperand();
    if (precision !== undefined && precision >= 0) flags.precision = precision;
    else this.#write("%!(BADPREC)");
  }

  #intOperand(): number | undefined {
    const value = this.#values[this.#index];
    if (this.#index < this.#values.length) this.#index++;
    return typeof value === "bigint" && value >= -largest && value <= largest ? Number(value) : undefined;
  }

  #extra(): void {
    const rest = this.#values.slice(this.#index).map((value) => {
      return value === undefined ? "<nil>" : `${typeName(value)}=${formatValue(value, "v")}`;
    });
    this.#write(`%!(EXTRA ${rest.join(", ")})`);
  }
}
