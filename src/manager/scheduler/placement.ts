/**
 * Placing the tasks of one group, one after the other, each on the best node that there is at that moment:
 * among the branches of each spread preference the one with the fewest active tasks of the service, then among its
 * nodes first those with fewer recent failures (once some have many), then those with fewer active tasks of the
 * service, then those with fewer active tasks in total.
 *
 * Nodes without tasks of the service and without many failures come first by that order, and among them only the
 * total counts: so they are taken straight from the signature's heap. Nodes that the service has already used are
 * set aside as they come up there, and are only put in an order of their own when no others are left.
 */
import { KeyedHeap } from "../../lib/heap.ts";
import type { Branch, Candidates, Fork, Leaf } from "./candidates.ts";
import type { Demand } from "./demand.ts";
import { hasPorts, hasResources } from "./filters.ts";
import { type Group, manyFailures, type NodeLoad } from "./load.ts";
import type { LoadIndex } from "./load-index.ts";

/** Keys of used nodes: failures, then tasks of the service, then tasks in total, in one number below 2^53. */
const totalSpan = 2 ** 21;
const failuresSpan = 2 ** 42;

export class Placement {
  readonly #index: LoadIndex;
  readonly #group: Group;
  readonly #demand: Demand;
  readonly #now: number;
  readonly #root: Branch;
  readonly #leaves = new Map<Leaf, LeafRun>();
  readonly #forks = new Map<Fork, ForkRun>();
  /** Active tasks of the service in each branch; only kept with preferences. */
  readonly #counts: Map<Branch, number> | undefined;

  /** @param now milliseconds since the epoch, for the failures' window */
  constructor(index: LoadIndex, group: Group, demand: Demand, candidates: Candidates, now: number) {
    this.#index = index;
    this.#group = group;
    this.#demand = demand;
    this.#now = now;
    this.#root = candidates.current();
    if (this.#root.kind === "fork") {
      this.#counts = new Map();
      for (const [slot, count] of group.service.active) {
        const leaf = candidates.leafOf(slot);
        if (leaf) this.#count(leaf, count);
      }
    }
  }

  /** The node for one more task, undefined where there is none. The caller must `assume` it before the next call. */
  next(): NodeLoad | undefined {
    return this.#takeFrom(this.#root);
  }

  /** Gives the nodes that were set aside back to the signature. Nothing else may use it before. */
  end(): void {
    for (const [leaf, run] of this.#leaves) {
      for (const slot of run.aside) leaf.nodes.push(slot, this.#index.slots[slot]?.active ?? 0);
    }
  }

  #takeFrom(branch: Branch): NodeLoad | undefined {
    return branch.kind === "leaf" ? this.#takeFromLeaf(branch) : this.#takeFromFork(branch);
  }

  #takeFromFork(fork: Fork): NodeLoad | undefined {
    let run = this.#forks.get(fork);
    if (!run) this.#forks.set(fork, (run = new ForkRun(fork)));
    // Branches that the service does not use yet, in turns.
    while (run.looked < fork.branches.length) {
      const branch = fork.branches[(run.first + run.looked++) % fork.branches.length]!;
      if (this.#countOf(branch) > 0) {
        run.used.push(branch.place, this.#countOf(branch));
        continue;
      }
      const load = this.#takeFrom(branch);
      if (!load) continue;
      fork.cursor = branch.place + 1;
      run.used.push(branch.place, 1);
      return load;
    }
    while (run.used.size > 0) {
      const branch = fork.branches[run.used.top]!;
      const load = this.#takeFrom(branch);
      if (load) {
        run.used.rekeyTop(this.#countOf(branch));
        return load;
      }
      run.used.pop(); // full, and loads do not shrink while a group is placed
    }
    return undefined;
  }

  #takeFromLeaf(leaf: Leaf): NodeLoad | undefined {
    let run = this.#leaves.get(leaf);
    if (!run) this.#leaves.set(leaf, (run = { aside: [], used: undefined }));
    const load = this.#takeUnused(leaf, run) ?? this.#takeUsed(run);
    if (load && this.#counts) this.#count(leaf, 1);
    return load;
  }

  #takeUnused({ nodes }: Leaf, run: LeafRun): NodeLoad | undefined {
    const { slots } = this.#index;
    const { service, failures } = this.#group;
    while (nodes.size > 0) {
      const slot = nodes.top;
      const load = slots[slot]!;
      if (load.active !== nodes.topKey) nodes.rekeyTop(load.active);
      else if (!hasResources(this.#demand, load)) nodes.pop();
      else if (
        service.active.has(slot) ||
        (failures !== undefined && this.#failuresOn(slot) > 0) ||
        !hasPorts(this.#demand, load)
      ) {
        nodes.pop();
        run.aside.push(slot);
        if (run.used) this.#addUsed(run.used, load);
      } else return load;
    }
    return undefined;
  }

  #takeUsed(run: LeafRun): NodeLoad | undefined {
    const { slots } = this.#index;
    if (!run.used) {
      run.used = new KeyedHeap();
      for (const slot of run.aside) this.#addUsed(run.used, slots[slot]!);
    }
    const { used } = run;
    while (used.size > 0) {
      const load = slots[used.top]!;
      const key = this.#usedKey(load);
      if (!this.#mayTake(load)) used.pop();
      else if (key !== used.topKey) used.rekeyTop(key);
      else return load;
    }
    return undefined;
  }

  #addUsed(used: KeyedHeap, load: NodeLoad): void {
    if (this.#mayTake(load)) used.push(load.slot, this.#usedKey(load));
  }

  #mayTake(load: NodeLoad): boolean {
    const { maxReplicas } = this.#demand;
    return (
      (maxReplicas === 0 || this.#group.service.activeOn(load.slot) < maxReplicas) &&
      hasResources(this.#demand, load) &&
      hasPorts(this.#demand, load)
    );
  }

  #usedKey(load: NodeLoad): number {
    return (
      this.#failuresOn(load.slot) * failuresSpan + this.#group.service.activeOn(load.slot) * totalSpan + load.active
    );
  }

  /** Failures on the node as far as they matter: 0 below the threshold. */
  #failuresOn(slot: number): number {
    if (!this.#group.failures) return 0;
    const failures = this.#group.failuresOn(slot, this.#now);
    return failures >= manyFailures ? failures : 0;
  }

  #countOf(branch: Branch): number {
    return this.#counts?.get(branch) ?? 0;
  }

  #count(leaf: Leaf, more: number): void {
    for (let branch: Branch | undefined = leaf; branch; branch = branch.parent) {
      this.#counts?.set(branch, this.#countOf(branch) + more);
    }
  }
}

interface LeafRun {
  /** Slots of nodes that were taken out of the leaf's heap. */
  readonly aside: number[];
  /** Those of them that can take a task, by rank; only made when it is needed. */
  used: KeyedHeap | undefined;
}

class ForkRun {
  readonly first: number;
  /** Branches that have been asked while they were unused, or were found in use. */
  looked = 0;
  /** Places of the branches in use, by the service's tasks in them. */
  readonly used = new KeyedHeap();

  constructor(fork: Fork) {
    this.first = fork.cursor;
  }
}
