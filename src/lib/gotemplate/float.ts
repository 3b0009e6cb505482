/** Go's floating-point numbers as text (strconv.FormatFloat): exact digits, halves rounded to the even one. */

/** 0.DIGITS × 10^point; no digits is zero. Never ends with a zero. */
interface Decimal {
  readonly digits: string;
  readonly point: number;
}

const bits = { fraction: 52, bias: 1075 };

/**
 * @param verb as of printf: e, f, g, b, x or their capitals
 * @param precision digits; -1 for as few as tell the number from any other
 * @returns with a sign where it is negative, or infinite
 */
export function formatFloat(value: number, verb: string, precision: number): string {
  if (Number.isNaN(value)) return "NaN";
  const isNegative = value < 0 || Object.is(value, -0);
  if (!Number.isFinite(value)) return isNegative ? "-Inf" : "+Inf";
  const text = unsigned(Math.abs(value), verb.toLowerCase(), precision);
  return (isNegative ? "-" : "") + (verb === verb.toLowerCase() ? text : text.toUpperCase());
}

function unsigned(value: number, verb: string, precision: number): string {
  if (verb === "b") return binary(value);
  if (verb === "x") return hexadecimal(value, precision);
  const decimal = precision < 0 ? shortest(value) : exact(value);
  const { digits, point } = decimal;
  if (verb === "f") return fixed(decimal, precision < 0 ? Math.max(digits.length - point, 0) : precision);
  if (verb === "e") return exponential(decimal, precision < 0 ? Math.max(digits.length - 1, 0) : precision);
  return general(decimal, precision);
}

/** With an exponent where it is very small, or has more digits before the point than there may be. */
function general(decimal: Decimal, precision: number): string {
  const most = Math.max(precision, 1);
  const { digits, point } = precision < 0 ? decimal : round(decimal, most);
  const count = digits.length;
  const threshold = precision < 0 ? 6 : most > count && count >= point ? count : most;
  const exponent = point - 1;
  if (exponent < -4 || exponent >= threshold) return exponential({ digits, point }, Math.max(count - 1, 0));
  return fixed({ digits, point }, Math.max(count - point, 0));
}

function fixed(decimal: Decimal, precision: number): string {
  const { digits, point } = round(decimal, decimal.point + precision);
  const whole = point > 0 ? digits.slice(0, point).padEnd(point, "0") : "0";
  if (precision === 0) return whole;
  const fraction = (point > 0 ? digits.slice(point) : "0".repeat(Math.min(-point, precision)) + digits).slice(
    0,
    precision,
  );
  return `${whole}.${fraction.padEnd(precision, "0")}`;
}

function exponential(decimal: Decimal, precision: number): string {
  const { digits, point } = round(decimal, precision + 1);
  const exponent = digits === "" ? 0 : point - 1;
  const fraction = precision > 0 ? `.${digits.slice(1).padEnd(precision, "0")}` : "";
  const power = String(Math.abs(exponent)).padStart(2, "0");
  return `${digits[0] ?? "0"}${fraction}e${exponent < 0 ? "-" : "+"}${power}`;
}

/** The fewest digits that tell it from any other: JavaScript's are the same as Go's. */
function shortest(value: number): Decimal {
  const [mantissa = "", exponent = "0"] = value.toExponential().split("e");
  return trimmed(mantissa.replace(".", ""), Number(exponent) + 1);
}

/** All of its digits. */
function exact(value: number): Decimal {
  const { mantissa, exponent } = parts(value);
  if (exponent >= 0) {
    const digits = (mantissa << BigInt(exponent)).toString();
    return trimmed(digits, digits.length);
  }
  const digits = (mantissa * 5n ** BigInt(-exponent)).toString(); // m / 2^e is m × 5^e / 10^e
  return trimmed(digits, digits.length + exponent);
}

function trimmed(digits: string, point: number): Decimal {
  const kept = digits.replace(/0+$/, "");
  return kept === "" ? { digits: "", point: 0 } : { digits: kept, point };
}

/** To so many digits; a half goes to the even digit. */
function round({ digits, point }: Decimal, count: number): Decimal {
  if (count >= digits.length) return { digits, point };
  if (count < 0) return { digits: "", point: 0 };
  const rest = digits.slice(count);
  const last = Number(digits[count - 1] ?? "0");
  const up = rest === "5" ? last % 2 === 1 : Number(rest[0]) >= 5;
  if (!up) return trimmed(digits.slice(0, count), point);
  const raised = (BigInt(digits.slice(0, count) || "0") + 1n).toString();
  return trimmed(raised, point + raised.length - count);
}

/** value = mantissa × 2^exponent. */
function parts(value: number): { mantissa: bigint; exponent: number } {
  const raw = new DataView(new Float64Array([value]).buffer).getBigUint64(0, true);
  const biased = Number((raw >> BigInt(bits.fraction)) & 0x7ffn);
  const fraction = raw & ((1n << BigInt(bits.fraction)) - 1n);
  if (biased === 0) return { mantissa: fraction, exponent: 1 - bits.bias };
  return { mantissa: fraction | (1n << BigInt(bits.fraction)), exponent: biased - bits.bias };
}

function binary(value: number): string {
  const { mantissa, exponent } = parts(value);
  return `${mantissa}p${exponent < 0 ? "" : "+"}${exponent}`;
}

/** 0x1.8p+01, the digit before the point being 1 (0 only for zero). */
function hexadecimal(value: number, precision: number): string {
  let { mantissa, exponent } = parts(value);
  if (mantissa === 0n) return `0x0${precision > 0 ? `.${"0".repeat(precision)}` : ""}p+00`;
  for (; mantissa < 1n << BigInt(bits.fraction); exponent--) mantissa <<= 1n;
  exponent += bits.fraction;
  const dropped = precision < 0 || precision > 12 ? 0n : BigInt(bits.fraction - 4 * precision);
  const half = dropped > 0n ? 1n << (dropped - 1n) : 0n;
  const rest = mantissa & ((1n << dropped) - 1n);
  let kept = mantissa >> dropped;
  if (rest > half || (rest === half && dropped > 0n && kept % 2n === 1n)) kept++;
  if (kept >> (BigInt(bits.fraction + 1) - dropped) > 0n) {
    kept >>= 1n;
    exponent++;
  }
  const hex = kept.toString(16);
  const digits = precision < 0 ? hex.slice(1).replace(/0+$/, "") : hex.slice(1).padEnd(precision, "0");
  const power = String(Math.abs(exponent)).padStart(2, "0");
  return `0x${hex[0]}${digits ? `.${digits}` : ""}p${exponent < 0 ? "-" : "+"}${power}`;
}
