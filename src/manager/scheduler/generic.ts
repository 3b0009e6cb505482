/**
 * Generic resources: what nodes offer as sets of names (`GPU=uuid`) or as amounts (`SSD=3`), and what tasks ask for
 * (always an amount of a kind). A task gets the very names that it was given, so that no two tasks share one.
 */
import type { GenericResource } from "../../model/types.ts";

/** An amount of a kind that a task reserves. */
export interface GenericRequest {
  readonly kind: string;
  readonly amount: number;
}

/** The requests of a reservation, one for each kind. */
export function genericRequests(reservation: readonly GenericResource[] | undefined): GenericRequest[] {
  const amounts = new Map<string, number>();
  for (const { DiscreteResourceSpec, NamedResourceSpec } of reservation ?? []) {
    const kind = DiscreteResourceSpec?.Kind ?? NamedResourceSpec?.Kind;
    if (kind) amounts.set(kind, (amounts.get(kind) ?? 0) + (DiscreteResourceSpec?.Value ?? 1));
  }
  return [...amounts].filter(([, amount]) => amount > 0).map(([kind, amount]) => ({ kind, amount }));
}

/** What the tasks of one node have of its generic resources. */
export class GenericUse {
  readonly #amounts = new Map<string, number>();
  readonly #names = new Set<string>();

  take(resources: readonly GenericResource[]): void {
    for (const { DiscreteResourceSpec: amount, NamedResourceSpec: named } of resources) {
      if (named) this.#names.add(nameKey(named.Kind, named.Value));
      else if (amount) this.#add(amount.Kind, amount.Value ?? 0);
    }
  }

  giveBack(resources: readonly GenericResource[]): void {
    for (const { DiscreteResourceSpec: amount, NamedResourceSpec: named } of resources) {
      if (named) this.#names.delete(nameKey(named.Kind, named.Value));
      else if (amount) this.#add(amount.Kind, -(amount.Value ?? 0));
    }
  }

  amountOf(kind: string): number {
    return this.#amounts.get(kind) ?? 0;
  }

  has(kind: string | undefined, name: string | undefined): boolean {
    return this.#names.has(nameKey(kind, name));
  }

  #add(kind = "", amount: number): void {
    this.#amounts.set(kind, (this.#amounts.get(kind) ?? 0) + amount);
  }
}

function nameKey(kind = "", name = ""): string {
  return `${kind}=${name}`;
}

/**
 * Whether the node still offers what a task was given of it: each name, and what is left of an amount.
 * @param use what of it others have
 */
export function isStillOffered(
  held: readonly GenericResource[],
  offered: readonly GenericResource[] | undefined,
  use: GenericUse,
): boolean {
  return held.every(({ NamedResourceSpec: named, DiscreteResourceSpec: amount }) => {
    if (named) {
      const { Kind, Value } = named;
      const isOffered = offered?.some(({ NamedResourceSpec: one }) => one && one.Kind === Kind && one.Value === Value);
      return isOffered === true && !use.has(Kind, Value);
    }
    const total = (offered ?? []).reduce((sum, { DiscreteResourceSpec: one }) => {
      return one && one.Kind === amount?.Kind ? sum + (one.Value ?? 0) : sum;
    }, 0);
    return (amount?.Value ?? 0) <= total - use.amountOf(amount?.Kind ?? "");
  });
}

/**
 * What a task that makes these requests would get on a node.
 * @param offered what the node has in total
 * @param use what of it is taken; undefined: nothing
 * @returns undefined where the node has too little of something
 */
export function claimGeneric(
  requests: readonly GenericRequest[],
  offered: readonly GenericResource[] | undefined,
  use: GenericUse | undefined,
): GenericResource[] | undefined {
  const claim: GenericResource[] = [];
  for (const { kind, amount } of requests) {
    let missing = amount;
    let free = -(use?.amountOf(kind) ?? 0);
    for (const { DiscreteResourceSpec, NamedResourceSpec } of offered ?? []) {
      if (DiscreteResourceSpec?.Kind === kind) free += DiscreteResourceSpec.Value ?? 0;
      else if (NamedResourceSpec?.Kind === kind && missing > 0 && !use?.has(kind, NamedResourceSpec.Value)) {
        claim.push({ NamedResourceSpec });
        missing--;
      }
    }
    if (missing > Math.max(0, free)) return undefined;
    if (missing > 0) claim.push({ DiscreteResourceSpec: { Kind: kind, Value: missing } });
  }
  return claim;
}
