/** The functions that every template has. `and`, `or` and `call` are the executor's: what they do depends on more. */
import { ShoalError } from "../errors.ts";
import { byteLength, fromBytes, toBytes } from "./bytes.ts";
import { equalsAny, isLess } from "./compare.ts";
import { escapeHtml, escapeQuery, escapeScript } from "./escape.ts";
import { sprint, sprintf, sprintln } from "./printf.ts";
import { GoByte, GoList, GoMap, isTrue, pointee, typeName, type Value } from "./value.ts";

export interface TemplateFunction {
  /** What the parameters take. */
  readonly parameters: readonly ("any" | "string")[];
  /** The last parameter may be there any number of times, or not at all. */
  readonly isVariadic?: boolean;
  /**
   * @param values as many as the parameters say, of their types
   * @throws ShoalError with the reason, which becomes part of the template's error
   */
  call(...values: readonly Value[]): Value;
}

export type TemplateFunctions = ReadonlyMap<string, TemplateFunction>;

const invalid = (message: string): ShoalError => new ShoalError("InvalidArgument", message);
const two = { parameters: ["any", "any"] } as const;
const any = { parameters: ["any"], isVariadic: true } as const;
const indexing = { parameters: ["any", "any"], isVariadic: true } as const;

export const builtinFunctions: TemplateFunctions = new Map<string, TemplateFunction>([
  ["and", { ...indexing, call: theExecutors }],
  ["or", { ...indexing, call: theExecutors }],
  ["call", { ...indexing, call: theExecutors }],
  ["not", { parameters: ["any"], call: (value) => !isTrue(value) }],
  ["eq", { ...indexing, call: (first, ...others) => equalsAny(first, others) }],
  ["ne", { ...two, call: (one, other) => !equalsAny(one, [other]) }],
  ["lt", { ...two, call: (one, other) => isLess(one, other) }],
  ["le", { ...two, call: (one, other) => isLess(one, other) || equalsAny(one, [other]) }],
  ["gt", { ...two, call: (one, other) => !isLess(one, other) && !equalsAny(one, [other]) }],
  ["ge", { ...two, call: (one, other) => !isLess(one, other) }],
  ["index", { ...indexing, call: (item, ...indexes) => indexes.reduce(indexed, required(item, "index")) }],
  ["slice", { ...indexing, call: (item, ...indexes) => sliced(required(item, "slice"), indexes) }],
  ["len", { parameters: ["any"], call: (value) => BigInt(lengthOf(value)) }],
  ["print", { ...any, call: (...values) => sprint(values) }],
  ["println", { ...any, call: (...values) => sprintln(values) }],
  [
    "printf",
    { parameters: ["string", "any"], isVariadic: true, call: (format, ...values) => sprintf(String(format), values) },
  ],
  ["html", { ...any, call: (...values) => escapeHtml(textOf(values)) }],
  ["js", { ...any, call: (...values) => escapeScript(textOf(values)) }],
  ["urlquery", { ...any, call: (...values) => escapeQuery(textOf(values)) }],
]);

function theExecutors(): never {
  throw new ShoalError("Internal", "the executor does this by itself");
}

function required(item: Value, name: string): Value {
  if (item === undefined) throw invalid(`${name} of untyped nil`);
  return item;
}

function indexed(item: Value, index: Value): Value {
  if (typeof item === "string") {
    const bytes = toBytes(item);
    const byte = bytes[indexIn(index, bytes.length)];
    if (byte === undefined) throw invalid("reflect: string index out of range");
    return new GoByte(byte);
  }
  if (item instanceof GoList) {
    const at = indexIn(index, item.items.length);
    if (at === item.items.length) throw invalid("reflect: slice index out of range");
    return item.items[at];
  }
  if (!(item instanceof GoMap)) throw invalid(`can't index item of type ${typeName(pointee(item))}`);
  if (index === undefined) throw invalid("value is nil; should be of type string");
  if (typeof index !== "string") throw invalid(`value has type ${typeName(index)}; should be string`);
  return item.entries.has(index) ? item.entries.get(index) : item.zero;
}

/** The end itself is let through, as in Go. */
function indexIn(index: Value, length: number): number {
  if (index === undefined) throw invalid("cannot index slice/array with nil");
  const whole = index instanceof GoByte ? BigInt(index.byte) : index;
  if (typeof whole !== "bigint") throw invalid(`cannot index slice/array with type ${typeName(index)}`);
  if (whole < 0n || whole > BigInt(length)) throw invalid(`index out of range: ${whole}`);
  return Number(whole);
}

function sliced(item: Value, indexes: readonly Value[]): Value {
  if (indexes.length > 3) throw invalid(`too many slice indexes: ${indexes.length}`);
  if (typeof item !== "string" && !(item instanceof GoList)) {
    throw invalid(`can't slice item of type ${typeName(item)}`);
  }
  if (typeof item === "string" && indexes.length === 3) throw invalid("cannot 3-index slice a string");
  const all = typeof item === "string" ? toBytes(item) : item.items;
  const bounds = indexes.map((index) => indexIn(index, all.length));
  const [from = 0, to = all.length, capacity = all.length] = bounds;
  if (from > to) throw invalid(`invalid slice index: ${from} > ${to}`);
  if (to > capacity) throw invalid(`invalid slice index: ${to} > ${capacity}`);
  if (typeof item === "string") return fromBytes(toBytes(item).subarray(from, to));
  return new GoList(item.elementType, item.items.slice(from, to));
}

function lengthOf(value: Value): number {
  if (typeof value === "string") return byteLength(value);
  if (value instanceof GoMap) return value.entries.size;
  if (value instanceof GoList) return value.items.length;
  if (value === undefined) throw invalid("reflect: call of reflect.Value.Type on zero Value");
  throw invalid(`len of type ${typeName(pointee(value))}`);
}

/** What an escaper escapes. */
function textOf(values: readonly Value[]): string {
  const [first] = values;
  if (values.length === 1 && typeof first === "string") return first;
  return sprint(values.map((value) => (value === undefined ? "<no value>" : pointee(value))));
}
