/**
 * The `filters` of list requests: a JSON map from a filter's name to its values, in the form of today
 * (`{"name":{"web":true}}`) or of old clients (`{"name":["web"]}`). Values of one filter are alternatives (labels: all
 * must match); several filters must all match.
 */
import { limits } from "../lib/limits.ts";
import { badRequest } from "./errors.ts";

export class Filters {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  has(name: string): boolean {
    return (this.#values.get(name)?.length ?? 0) > 0;
  }

  values(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  names(): Iterable<string> {
    return this.#values.keys();
  }

  /** One of the filter's values is `value`; true where the filter is not set. */
  matches(name: string, value: string): boolean {
    return !this.has(name) || this.values(name).includes(value);
  }

  /** `value` starts with one of the filter's values (how Swarm's `name` and `id` filters match). */
  matchesPrefix(name: string, value: string): boolean {
    return !this.has(name) || this.values(name).some((prefix) => value.startsWith(prefix));
  }

  /** Every `key` or `key=value` of the filter is in `labels`; `key=` asks, as Swarm does, only for the key. */
  matchesLabels(name: string, labels: Readonly<Record<string, string>> | undefined): boolean {
    return this.values(name).every((wanted) => {
      const [key, value] = cutAtEquals(wanted);
      return labels !== undefined && Object.hasOwn(labels, key) && (value === "" || labels[key] === value);
    });
  }

  /**
   * A yes/no filter; undefined where it is not set.
   * @throws 400 where its value is none of `true`, `1`, `false`, `0`, or there are several
   */
  flag(name: string): boolean | undefined {
    const values = this.values(name);
    if (values.length === 0) return undefined;
    const [value] = values;
    if (values.length === 1 && (value === "true" || value === "1")) return true;
    if (values.length === 1 && (value === "false" || value === "0")) return false;
    throw badRequest(`invalid filter '${name}=[${values.join(" ")}]'`);
  }
}

/**
 * Reads the `filters` parameter.
 * @param accepted the names that this list knows
 * @throws 400 `invalid filter` where it is not such a map, `invalid filter 'x'` for a name that is not accepted
 */
export function parseFilters(text: string | null | undefined, accepted: readonly string[]): Filters {
  const values = parseMap(text);
  for (const name of values.keys()) {
    if (!accepted.includes(name)) throw badRequest(`invalid filter '${name}'`);
  }
  return new Filters(values);
}

/** The same for a list that leaves the judgement of the names to someone else. */
export function parseAnyFilters(text: string | null | undefined): Filters {
  return new Filters(parseMap(text));
}

function parseMap(text: string | null | undefined): Map<string, string[]> {
  const values = new Map<string, string[]>();
  if (!text) return values;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw badRequest("invalid filter", error);
  }
  if (parsed === null) return values;
  if (typeof parsed !== "object" || Array.isArray(parsed)) throw badRequest("invalid filter");
  let count = 0;
  for (const [name, given] of Object.entries(parsed)) {
    const list = valuesOf(given);
    count += list.length;
    if (count > limits.filterValues) throw badRequest(`invalid filter: more than ${limits.filterValues} values`);
    values.set(name, list);
  }
  return values;
}

function valuesOf(given: unknown): string[] {
  if (given === null) return [];
  if (Array.isArray(given)) {
    if (!given.every((value) => typeof value === "string")) throw badRequest("invalid filter");
    return [...new Set<string>(given)];
  }
  if (typeof given !== "object") throw badRequest("invalid filter");
  const entries = Object.entries(given);
  if (!entries.every(([, on]) => typeof on === "boolean")) throw badRequest("invalid filter");
  return entries.filter(([, on]) => on).map(([value]) => value);
}

/** `a=b=c` -> `["a", "b=c"]`; without `=`, the second is empty. */
export function cutAtEquals(text: string): [string, string] {
  const at = text.indexOf("=");
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
