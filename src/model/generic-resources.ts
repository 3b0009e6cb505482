/**
 * Generic resources as a node declares them: `KIND=NAME`, once for each of a set of names, or `KIND=AMOUNT`, once. The
 * form and the texts are those of dockerd's flag `--node-generic-resource`.
 *
 * Differs from dockerd: an empty kind or name is refused, and a name that is said twice is one.
 */
import { ShoalError } from "../lib/errors.ts";
import type { GenericResource } from "./types.ts";

const wholeNumber = /^[+-]?\d+$/;

/**
 * Names in the order in which they are declared, kinds in the order of their first.
 * @throws ShoalError InvalidArgument in dockerd's words
 */
export function parseGenericResources(terms: readonly string[]): GenericResource[] {
  const declared = new Map<string, string[]>();
  for (const term of terms) {
    if (!term.includes("=")) refuse(`invalid node-generic-resource format \`${term}\` expected \`name=value\``);
    const [kind = "", value = "", ...more] = term.split("=").map((part) => part.trim());
    if (kind === "" || value === "" || more.length > 0) {
      refuse(`could not parse GenericResource: incorrect term ${term}, missing '=' or malformed expression`);
    }
    declared.set(kind, [...(declared.get(kind) ?? []), value]);
  }
  return [...declared].flatMap(([kind, values]) => resourcesOf(kind, values));
}

function resourcesOf(kind: string, values: readonly string[]): GenericResource[] {
  const amounts = values.filter(isAmount);
  if (amounts.length === 0) {
    return [...new Set(values)].map((name) => ({ NamedResourceSpec: { Kind: kind, Value: name } }));
  }
  if (values.length > 1) {
    refuse(
      `could not parse GenericResource: mixed discrete and named resources in expression '${kind}=[${values.join(" ")}]'`,
    );
  }
  const amount = Number(amounts[0]);
  if (amount < 0) refuse(`could not parse GenericResource: cannot ask for negative resource ${kind}`);
  return [{ DiscreteResourceSpec: { Kind: kind, Value: amount } }];
}

/** What can't be counted exactly is a name. */
function isAmount(value: string): boolean {
  return wholeNumber.test(value) && Number.isSafeInteger(Number(value));
}

/**
 * What a node offers where two sources declare it.
 * @param own outranks the other, kind by kind
 */
export function mergeGenericResources(
  other: readonly GenericResource[],
  own: readonly GenericResource[],
): GenericResource[] {
  const kinds = new Set(own.map(kindOf));
  return [...other.filter((resource) => !kinds.has(kindOf(resource))), ...own];
}

function kindOf({ NamedResourceSpec: named, DiscreteResourceSpec: amount }: GenericResource): string {
  return named?.Kind ?? amount?.Kind ?? "";
}

function refuse(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}
