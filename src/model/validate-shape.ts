/**
 * Checks the JSON of a request against a shape given as data, so that nothing ill-typed is ever stored. It reads as
 * Go's decoder does, because clients rely on that: member names match in any case, unknown members are ignored (and
 * dropped: they are not stored), `null` is "not given". Everything else comes back as it was sent: the same members in
 * the same order, the very same objects wherever nothing had to be put right.
 *
 * The texts of refusals are those of Go's decoder. Stricter than Go in one thing: a whole number beyond 2^53 is
 * refused, because it would not come back as it was sent. As with Go, half of a surrogate pair becomes U+FFFD: there is
 * no UTF-8 for it, so no other node could ever be told of it.
 */
import { ShoalError } from "../lib/errors.ts";

export type Shape =
  | { readonly kind: "string" | "number"; readonly go: string }
  | { readonly kind: "integer"; readonly go: string; readonly lowest: number; readonly highest: number }
  | { readonly kind: "boolean" }
  | { readonly kind: "list"; readonly of: Shape }
  | { readonly kind: "map"; readonly of: Shape }
  | ObjectShape
  /** Anything at all, for members that another part of the program refuses as a whole. */
  | { readonly kind: "any" };

export interface ObjectShape {
  readonly kind: "object";
  /** Go's name of the struct, with its package: `swarm.ServiceSpec`. */
  readonly go: string;
  readonly members: ReadonlyMap<string, Shape>;
  /** From the name in lower case to the name. */
  readonly folded: ReadonlyMap<string, string>;
}

export const text: Shape = { kind: "string", go: "string" };
export const flag: Shape = { kind: "boolean" };
export const ratio: Shape = { kind: "number", go: "float32" };
export const anything: Shape = { kind: "any" };
export const texts: Shape = { kind: "list", of: text };
export const textMap: Shape = { kind: "map", of: text };

/** One of Go's named string types; which values it may have is not the decoder's affair. */
export function named(go: string): Shape {
  return { kind: "string", go };
}

const widths = {
  uint64: [0, Number.MAX_SAFE_INTEGER],
  int64: [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  int: [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  /** What swarmkit has 32 bits for: with more, a task could not travel to its node. */
  int32: [-(2 ** 31), 2 ** 31 - 1],
  "time.Duration": [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint32: [0, 2 ** 32 - 1],
  "fs.FileMode": [0, 2 ** 32 - 1],
} as const;

/** A whole number of one of Go's types. */
export function whole(go: keyof typeof widths): Shape {
  const [lowest, highest] = widths[go];
  return { kind: "integer", go: go === "int32" ? "int" : go, lowest, highest };
}

export function list(of: Shape): Shape {
  return { kind: "list", of };
}

export function object(go: string, members: Readonly<Record<string, Shape>>): ObjectShape {
  const names = Object.entries(members);
  return {
    kind: "object",
    go,
    members: new Map(names),
    folded: new Map(names.map(([name]) => [name.toLowerCase(), name])),
  };
}

/**
 * The value as the shape has it; `undefined` for `null` (the caller's default applies, as with a member left out).
 * @throws ShoalError InvalidArgument with Go's text
 */
export function conform(value: unknown, shape: Shape): unknown {
  return value === null ? undefined : check(value, shape, undefined, "");
}

/** `owner` and `path` say where the value stands, for the text: the innermost struct, and the members down to it. */
function check(value: unknown, shape: Shape, owner: ObjectShape | undefined, path: string): unknown {
  switch (shape.kind) {
    case "any":
      return value;
    case "string":
      return typeof value === "string" ? value.toWellFormed() : refuse(value, shape, owner, path);
    case "boolean":
      return typeof value === "boolean" ? value : refuse(value, shape, owner, path);
    case "number":
      return isFloat32(value) ? value : refuse(value, shape, owner, path);
    case "integer":
      return Number.isSafeInteger(value) && inRange(value as number, shape) ? value : refuse(value, shape, owner, path);
    case "list":
      return Array.isArray(value) ? checkList(value, shape.of, owner, path) : refuse(value, shape, owner, path);
    case "map":
      return isRecord(value) ? checkMap(value, shape.of, owner, path) : refuse(value, shape, owner, path);
    case "object":
      return isRecord(value) ? checkObject(value, shape, path) : refuse(value, shape, owner, path);
  }
}

/** JSON has numbers (1e400) that a float32 has not. */
function isFloat32(value: unknown): boolean {
  return typeof value === "number" && Number.isFinite(Math.fround(value));
}

function inRange(value: number, { lowest, highest }: { lowest: number; highest: number }): boolean {
  return value >= lowest && value <= highest;
}

function checkList(values: unknown[], of: Shape, owner: ObjectShape | undefined, path: string): unknown[] {
  for (const [index, value] of values.entries()) {
    values[index] = value === null ? zeroOf(of) : check(value, of, owner, path);
  }
  return values;
}

function checkMap(
  value: Record<string, unknown>,
  of: Shape,
  owner: ObjectShape | undefined,
  path: string,
): Record<string, unknown> {
  for (const name of Object.keys(value)) {
    const before = value[name];
    const after = before === null ? zeroOf(of) : check(before, of, owner, path);
    const wellFormed = name.toWellFormed();
    if (wellFormed !== name) delete value[name];
    if (after !== before || wellFormed !== name) setMember(value, wellFormed, after);
  }
  return value;
}

function checkObject(value: Record<string, unknown>, shape: ObjectShape, path: string): Record<string, unknown> {
  const names = Object.keys(value);
  let asSent = true;
  for (const sent of names) {
    const name = shape.members.has(sent) ? sent : shape.folded.get(sent.toLowerCase());
    const before = value[sent];
    if (name === undefined || name !== sent || before === null) {
      asSent = false;
      if (name === undefined || before === null) continue;
    }
    const after = check(before, shape.members.get(name)!, shape, path === "" ? name : `${path}.${name}`);
    if (after !== before) value[sent] = after;
  }
  if (asSent) return value;
  const kept: Record<string, unknown> = {};
  for (const sent of names) {
    const name = shape.members.has(sent) ? sent : shape.folded.get(sent.toLowerCase());
    if (name !== undefined && value[sent] !== null) kept[name] = value[sent];
  }
  return kept;
}

/** What Go has where a list or a map says `null`. */
function zeroOf(shape: Shape): unknown {
  switch (shape.kind) {
    case "string":
      return "";
    case "integer":
    case "number":
      return 0;
    case "boolean":
      return false;
    case "list":
      return [];
    case "map":
    case "object":
      return {};
    case "any":
      return null;
  }
}

/** Sets a member whatever its name is (`__proto__` is a label like any other). */
function setMember(target: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuse(value: unknown, shape: Shape, owner: ObjectShape | undefined, path: string): never {
  const what = describe(value, shape);
  const type = goType(shape);
  const where = owner
    ? `Go struct field ${owner.go.slice(owner.go.indexOf(".") + 1)}.${path} of type ${type}`
    : `Go value of type ${type}`;
  throw new ShoalError("InvalidArgument", `json: cannot unmarshal ${what} into ${where}`);
}

function describe(value: unknown, shape: Shape): string {
  if (Array.isArray(value)) return "array";
  switch (typeof value) {
    case "number":
      return shape.kind === "integer" || shape.kind === "number" ? `number ${value}` : "number";
    case "boolean":
      return "bool";
    case "string":
      return "string";
    default:
      return "object";
  }
}

function goType(shape: Shape): string {
  switch (shape.kind) {
    case "boolean":
      return "bool";
    case "list":
      return `[]${goType(shape.of)}`;
    case "map":
      return `map[string]${goType(shape.of)}`;
    case "any":
      return "interface {}";
    default:
      return shape.go;
  }
}
