/** The comparisons of templates: eq, ne, lt, le, gt and ge, of values of the same kind, and of ints with bytes. */
import { ShoalError } from "../errors.ts";
import { compareText } from "./bytes.ts";
import { formatValue } from "./format.ts";
import { GoByte, GoComplex, GoList, GoMap, GoStruct, typeName, type Value } from "./value.ts";

/** Whether the first equals any of the others. @throws ShoalError InvalidArgument for what can't be compared */
export function equalsAny(first: Value, others: readonly Value[]): boolean {
  if (others.length === 0) throw invalid("missing argument for comparison");
  return others.some((other) => equals(first, other));
}

function equals(one: Value, other: Value): boolean {
  const first = plain(one);
  const second = plain(other);
  if (isBasic(first) || isBasic(second)) {
    if (typeof first === typeof second || one === undefined || other === undefined) {
      if (first instanceof GoComplex && second instanceof GoComplex) {
        return first.real === second.real && first.imaginary === second.imaginary;
      }
      if (isBasic(first) === isBasic(second)) return first === second;
      if (one === undefined || other === undefined) return false;
    }
    throw invalid("incompatible types for comparison");
  }
  if (one === undefined || other === undefined) return one === other;
  const kinds = [GoMap, GoList, GoStruct] as const;
  const sameKind = kinds.some((kind) => one instanceof kind && other instanceof kind);
  const samePointer = isPointer(one) === isPointer(other);
  const shown = (value: Value): string => formatValue(value, "v");
  if (!sameKind || !samePointer) {
    throw invalid(`non-comparable types ${shown(one)}: ${typeName(one)}, ${typeName(other)}: ${shown(other)}`);
  }
  if (!isPointer(other)) throw invalid(`non-comparable type ${shown(other)}: ${typeName(other)}`);
  return one === other;
}

/** @throws ShoalError InvalidArgument for what has no order, or is not of one kind */
export function isLess(one: Value, other: Value): boolean {
  const first = plain(one);
  const second = plain(other);
  if (!isBasic(first) || !isBasic(second)) throw invalid("invalid type for comparison");
  if (typeof first !== typeof second) {
    throw invalid("incompatible types for comparison");
  }
  if (typeof first === "string" && typeof second === "string") return compareText(first, second) < 0;
  if (typeof first === "bigint" && typeof second === "bigint") return first < second;
  if (typeof first === "number" && typeof second === "number") return first < second;
  throw invalid("invalid type for comparison");
}

/** A byte as the int that it is compared as. */
function plain(value: Value): Value {
  return value instanceof GoByte ? BigInt(value.byte) : value;
}

/** What has an own comparison in Go: numbers, strings and bools. */
function isBasic(value: Value): boolean {
  return (typeof value !== "object" && value !== undefined) || value instanceof GoComplex;
}

function isPointer(value: Value): boolean {
  return value instanceof GoStruct && value.isPointer;
}

function invalid(message: string): ShoalError {
  return new ShoalError("InvalidArgument", message);
}
