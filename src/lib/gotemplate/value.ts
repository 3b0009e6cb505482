/**
 * The values that templates handle, each as the simplest thing of JavaScript: nil is undefined, a Go int a bigint, a
 * float64 a number, string and bool what they are. What JavaScript has no own type for is one of the classes here.
 */
import { compareText } from "./bytes.ts";

export type Value = undefined | string | boolean | bigint | number | GoByte | GoComplex | GoMap | GoList | GoStruct;

/** A uint8: what the index of a string gives. */
export class GoByte {
  readonly byte: number;

  constructor(byte: number) {
    this.byte = byte;
  }
}

/** A complex128. */
export class GoComplex {
  readonly real: number;
  readonly imaginary: number;

  constructor(real: number, imaginary: number) {
    this.real = real;
    this.imaginary = imaginary;
  }
}

/** A map from strings to values of one type. */
export class GoMap {
  /** Go's name of the values' type. */
  readonly valueType: string;
  readonly entries: ReadonlyMap<string, Value>;
  /** What an absent key has when it is asked for with `index`. */
  readonly zero: Value;

  private constructor(valueType: string, entries: ReadonlyMap<string, Value>, zero: Value) {
    this.valueType = valueType;
    this.entries = entries;
    this.zero = zero;
  }

  /** A `map[string]string`, its keys in Go's order. */
  static ofStrings(record: Readonly<Record<string, string>>): GoMap {
    const sorted = Object.entries(record).sort(([one], [other]) => compareText(one, other));
    return new GoMap("string", new Map(sorted), "");
  }
}

/** A slice of values of one type. */
export class GoList {
  readonly elementType: string;
  readonly items: readonly Value[];

  constructor(elementType: string, items: readonly Value[]) {
    this.elementType = elementType;
    this.items = items;
  }
}

/** A struct, or a pointer to one. */
export class GoStruct {
  /** Go's name of the type, without the pointer's asterisk. */
  readonly type: string;
  readonly fields: ReadonlyMap<string, Value>;
  readonly isPointer: boolean;

  constructor(type: string, fields: Readonly<Record<string, Value>>, { isPointer = false } = {}) {
    this.type = type;
    this.fields = new Map(Object.entries(fields));
    this.isPointer = isPointer;
  }
}

/** Go's name of a value's type; `<nil>` for nil. */
export function typeName(value: Value): string {
  switch (typeof value) {
    case "undefined":
      return "<nil>";
    case "string":
      return "string";
    case "boolean":
      return "bool";
    case "bigint":
      return "int";
    case "number":
      return "float64";
    default:
      return typeOfObject(value);
  }
}

function typeOfObject(value: GoByte | GoComplex | GoMap | GoList | GoStruct): string {
  if (value instanceof GoByte) return "uint8";
  if (value instanceof GoComplex) return "complex128";
  if (value instanceof GoMap) return `map[string]${value.valueType}`;
  if (value instanceof GoList) return `[]${value.elementType}`;
  return value.isPointer ? `*${value.type}` : value.type;
}

/** The value that a pointer points to, any other itself. */
export function pointee(value: Value): Value {
  if (!(value instanceof GoStruct) || !value.isPointer) return value;
  return new GoStruct(value.type, Object.fromEntries(value.fields));
}

/** What `if` takes for true: whatever is not the zero of its type. */
export function isTrue(value: Value): boolean {
  if (value instanceof GoByte) return value.byte !== 0;
  if (value instanceof GoComplex) return value.real !== 0 || value.imaginary !== 0;
  if (value instanceof GoMap) return value.entries.size > 0;
  if (value instanceof GoList) return value.items.length > 0;
  if (value instanceof GoStruct) return true;
  return typeof value === "number" ? value !== 0 : Boolean(value);
}
