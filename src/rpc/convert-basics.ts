/**
 * The small parts that all conversions between the wire and the model share. Throughout these `convert-*` files:
 * - `xToWire` takes the model, `xFromWire` gives it;
 * - the wire can't tell an empty string, list or map, a false or a zero from an absent one, so what comes from it has
 *   neither: the member is left out. Where the wire does tell (a message, a duration), the model keeps the difference;
 * - nothing is validated on the way out: the API did that when the object was made.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import type { Duration, DurationSchema, Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { ShoalError } from "../lib/errors.ts";
import type { GenericResource, LogDriver, ObjectVersion, ResourceObject } from "../model/types.ts";
import type {
  DriverSchema,
  Meta,
  MetaSchema,
  Resources,
  ResourcesSchema,
  GenericResource as WireGenericResource,
} from "./gen/common_pb.js";

/** What `create(schema, ...)` takes: the to-wire functions return this, so that one `create` makes the whole message. */
export type Init<Schema extends DescMessage> = MessageInitShape<Schema>;

/** The same object without its undefined members, so that what is absent on the wire is absent in the model. */
export function compact<T extends object>(object: T): T {
  const result = object as Record<string, unknown>;
  for (const key in result) if (result[key] === undefined) delete result[key];
  return object;
}

export function text(value: string): string | undefined {
  return value === "" ? undefined : value;
}

export function list<T>(values: readonly T[]): T[] | undefined {
  return values.length === 0 ? undefined : [...values];
}

export function mapped<T, R>(values: readonly T[], convert: (value: T) => R): R[] | undefined {
  return values.length === 0 ? undefined : values.map(convert);
}

export function dictionary(values: { readonly [key: string]: string }): { [key: string]: string } | undefined {
  return Object.keys(values).length === 0 ? undefined : { ...values };
}

export function flag(value: boolean): true | undefined {
  return value ? true : undefined;
}

/** Absent is 0; a fraction is cut off. */
export function toInt64(value: number | undefined): bigint {
  return BigInt(Math.trunc(value ?? 0));
}

/** 0 is absent. Exact up to 2^53, which no size, count or duration here comes near. */
export function fromInt64(value: bigint): number | undefined {
  return value === 0n ? undefined : Number(value);
}

export function fromInt32(value: number): number | undefined {
  return value === 0 ? undefined : value;
}

/** Names of the model and numbers of the wire. */
export interface Coding<Name extends string> {
  encode(name: Name): number;
  /** Throws InvalidArgument for a number that we do not know: guessing a state would be worse. */
  decode(value: number): Name;
}

export function coding<Name extends string>(what: string, numbers: Readonly<Record<Name, number>>): Coding<Name> {
  const names = new Map<number, Name>(Object.entries(numbers).map(([name, value]) => [value as number, name as Name]));
  return {
    encode(name) {
      const value = numbers[name];
      if (value === undefined) throw new ShoalError("InvalidArgument", `invalid ${what}: ${JSON.stringify(name)}`);
      return value;
    },
    decode(value) {
      const name = names.get(value);
      if (name === undefined) throw new ShoalError("InvalidArgument", `invalid ${what}: ${value}`);
      return name;
    },
  };
}

const nanosPerSecond = 1_000_000_000;

/** Nanoseconds, as the Engine API counts time. */
export function durationToWire(nanoseconds: number | undefined): Init<typeof DurationSchema> | undefined {
  if (nanoseconds === undefined) return undefined;
  const whole = Math.trunc(nanoseconds);
  // Both parts have the sign of the whole, as the message demands.
  const nanos = whole % nanosPerSecond;
  return { seconds: BigInt((whole - nanos) / nanosPerSecond), nanos };
}

export function durationFromWire(duration: Duration): number;
export function durationFromWire(duration: Duration | undefined): number | undefined;
export function durationFromWire(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * nanosPerSecond + duration.nanos;
}

const rfc3339Form = /^(\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})$/;

/** The years 1 to 9999: what a Timestamp may hold. */
const firstSecond = -62_135_596_800n;
const lastSecond = 253_402_300_799n;

/** RFC 3339 with up to nine digits of a second; "" and undefined are absent. Throws InvalidArgument for other text. */
export function timestampToWire(time: string | undefined): Init<typeof TimestampSchema> | undefined {
  if (!time) return undefined;
  const match = rfc3339Form.exec(time);
  const ms = match ? Date.parse(`${match[1]}${match[3]}`) : Number.NaN;
  if (!match || Number.isNaN(ms)) throw new ShoalError("InvalidArgument", `invalid time ${JSON.stringify(time)}`);
  return { seconds: BigInt(ms / 1000), nanos: Number((match[2] ?? "").padEnd(9, "0")) };
}

/** In UTC, with as many digits as it takes but at least three: the form of `rfc3339` in lib/clock.ts. */
export function timestampFromWire(timestamp: Timestamp): string;
export function timestampFromWire(timestamp: Timestamp | undefined): string | undefined;
export function timestampFromWire(timestamp: Timestamp | undefined): string | undefined {
  if (!timestamp) return undefined;
  const { whole, fraction } = timeParts(timestamp);
  return `${whole}.${fraction.slice(0, 3)}${fraction.slice(3).replace(/0+$/, "")}Z`;
}

/** In UTC, always with nine digits: the form in which the Engine writes the times of log lines. */
export function logTimeFromWire(timestamp: Timestamp | undefined): string {
  if (!timestamp) return "";
  const { whole, fraction } = timeParts(timestamp);
  return `${whole}.${fraction}Z`;
}

function timeParts({ seconds, nanos }: Timestamp): { whole: string; fraction: string } {
  if (seconds < firstSecond || seconds > lastSecond || nanos < 0 || nanos >= nanosPerSecond) {
    throw new ShoalError("InvalidArgument", `invalid time: ${seconds} seconds and ${nanos} nanoseconds`);
  }
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, -".000Z".length);
  return { whole, fraction: String(nanos).padStart(9, "0") };
}

/** Go's zero time: what stands for "never" in required times. */
export const zeroTime = "0001-01-01T00:00:00.000Z";

export function versionToWire(version: ObjectVersion) {
  return { index: toInt64(version.Index) };
}

export function versionFromWire(version: { readonly index: bigint } | undefined): ObjectVersion {
  return { Index: Number(version?.index ?? 0n) };
}

interface ObjectMeta {
  readonly Version: ObjectVersion;
  readonly CreatedAt: string;
  readonly UpdatedAt: string;
}

export function metaToWire(object: ObjectMeta): Init<typeof MetaSchema> {
  return {
    version: versionToWire(object.Version),
    createdAt: timestampToWire(object.CreatedAt),
    updatedAt: timestampToWire(object.UpdatedAt),
  };
}

export function metaFromWire(meta: Meta | undefined): ObjectMeta {
  return {
    Version: versionFromWire(meta?.version),
    CreatedAt: timestampFromWire(meta?.createdAt) ?? zeroTime,
    UpdatedAt: timestampFromWire(meta?.updatedAt) ?? zeroTime,
  };
}

export function driverToWire(driver: LogDriver): Init<typeof DriverSchema>;
export function driverToWire(driver: LogDriver | undefined): Init<typeof DriverSchema> | undefined;
export function driverToWire(driver: LogDriver | undefined): Init<typeof DriverSchema> | undefined {
  return driver && { name: driver.Name ?? "", options: driver.Options ?? {} };
}

interface WireDriver {
  readonly name: string;
  readonly options: { readonly [key: string]: string };
}

export function driverFromWire(driver: WireDriver | undefined): LogDriver | undefined {
  return driver && compact({ Name: text(driver.name), Options: dictionary(driver.options) });
}

export function resourcesToWire(resources: ResourceObject): Init<typeof ResourcesSchema> {
  return {
    nanoCpus: toInt64(resources.NanoCPUs),
    memoryBytes: toInt64(resources.MemoryBytes),
    generic: (resources.GenericResources ?? []).map(genericResourceToWire),
  };
}

export function resourcesFromWire(resources: Resources): ResourceObject {
  return compact({
    NanoCPUs: fromInt64(resources.nanoCpus),
    MemoryBytes: fromInt64(resources.memoryBytes),
    GenericResources: mapped(resources.generic, genericResourceFromWire),
  });
}

export function genericResourceToWire(generic: GenericResource) {
  const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } = generic;
  if (named) {
    const value = { kind: named.Kind ?? "", value: named.Value ?? "" };
    return { resource: { case: "namedResourceSpec" as const, value } };
  }
  const value = { kind: discrete?.Kind ?? "", value: toInt64(discrete?.Value) };
  return { resource: { case: "discreteResourceSpec" as const, value } };
}

export function genericResourceFromWire({ resource }: WireGenericResource): GenericResource {
  switch (resource.case) {
    case "namedResourceSpec":
      return { NamedResourceSpec: { Kind: resource.value.kind, Value: resource.value.value } };
    case "discreteResourceSpec":
      return { DiscreteResourceSpec: { Kind: resource.value.kind, Value: Number(resource.value.value) } };
    case undefined:
      return {};
  }
}
