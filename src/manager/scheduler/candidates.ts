/**
 * The nodes that demands of one signature may use, in order of load: a tree of branches by spread preference (one
 * leaf without preferences), and in each leaf a heap of nodes by active tasks.
 *
 * It is kept from plan to plan. Keys in the heaps may be too low, because loads grow without notice (whoever takes
 * the top compares it with the load), but never too high: nodes whose load shrank, or which changed, come through the
 * index's journal before the tree is used. A node that lacks resources is taken out when it is met, and comes back by
 * the journal when some are released.
 */
import { KeyedHeap, Positions } from "../../lib/heap.ts";
import type { Node } from "../../model/types.ts";
import { labelOf } from "./constraint.ts";
import type { Demand, SpreadLabel } from "./demand.ts";
import { hasResources, isEligible } from "./filters.ts";
import type { NodeLoad } from "./load.ts";
import type { LoadIndex } from "./load-index.ts";

export interface Leaf {
  readonly kind: "leaf";
  readonly parent: Fork | undefined;
  /** Its place among its parent's branches. */
  readonly place: number;
  /** Node slots by active tasks. */
  readonly nodes: KeyedHeap;
}

export interface Fork {
  readonly kind: "fork";
  readonly parent: Fork | undefined;
  readonly place: number;
  readonly branches: Branch[];
  readonly byValue: Map<string, Branch>;
  /** Where the next group starts to look for an unused branch: branches that are as good as each other take turns. */
  cursor: number;
}

export type Branch = Leaf | Fork;

export class Candidates {
  readonly #demand: Demand;
  readonly #index: LoadIndex;
  #positions = new Positions();
  #root: Branch;
  /** The leaf of each node that there is, feasible or not, by slot. */
  #leaves: (Leaf | undefined)[] = [];
  /** How far the journal has been read. */
  #seen = -1;

  /** @param demand any one with the signature */
  constructor(demand: Demand, index: LoadIndex) {
    this.#demand = demand;
    this.#index = index;
    this.#root = newBranch(undefined, 0, demand.spread.length, this.#positions);
  }

  /** The tree, with everything that the journal has. */
  current(): Branch {
    const { journal, slots } = this.#index;
    const changed = this.#seen === -1 ? undefined : journal.since(this.#seen);
    if (!changed || changed.length > slots.length) {
      this.#positions = new Positions();
      this.#root = newBranch(undefined, 0, this.#demand.spread.length, this.#positions);
      this.#leaves = [];
      for (let slot = 0; slot < slots.length; slot++) this.#look(slot);
    } else for (const slot of changed) this.#look(slot);
    this.#seen = journal.end;
    return this.#root;
  }

  leafOf(slot: number): Leaf | undefined {
    return this.#leaves[slot];
  }

  /** Puts a node where it belongs, or takes it out. */
  #look(slot: number): void {
    const load = this.#index.slots[slot];
    const leaf = load?.node && this.#leafFor(load.node);
    const before = this.#leaves[slot];
    if (before && before !== leaf) before.nodes.delete(slot);
    this.#leaves[slot] = leaf;
    if (!load?.node || !leaf) return;
    if (!this.#isCandidate(load, load.node)) leaf.nodes.delete(slot);
    else if (this.#positions.get(slot) === -1) leaf.nodes.push(slot, load.active);
    else leaf.nodes.rekey(slot, load.active);
  }

  #isCandidate(load: NodeLoad, node: Node): boolean {
    return hasResources(this.#demand, load) && isEligible(this.#demand, node);
  }

  #leafFor(node: Node): Leaf {
    let branch = this.#root;
    for (let depth = 0; branch.kind === "fork"; depth++) {
      const value = branchValue(this.#demand.spread[depth], node);
      let next = branch.byValue.get(value);
      if (!next) {
        next = newBranch(branch, branch.branches.length, this.#demand.spread.length - depth - 1, this.#positions);
        branch.branches.push(next);
        branch.byValue.set(value, next);
      }
      branch = next;
    }
    return branch;
  }
}

function newBranch(parent: Fork | undefined, place: number, levels: number, positions: Positions): Branch {
  return levels === 0
    ? { kind: "leaf", parent, place, nodes: new KeyedHeap(positions) }
    : { kind: "fork", parent, place, branches: [], byValue: new Map(), cursor: 0 };
}

function branchValue(spread: SpreadLabel | undefined, node: Node): string {
  if (!spread) return "";
  return labelOf(spread.of === "node" ? node.Spec.Labels : node.Description?.Engine?.Labels, spread.label);
}
