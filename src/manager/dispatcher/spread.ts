/**
 * How sessions spread over the managers: agents choose at random by the weights that each session message brings. A
 * manager that has far more than its share gets the least weight until the others have caught up; nobody is sent
 * away. Which manager has which node stands in the store, so all managers say the same.
 */
import type { WeightedPeer } from "../../rpc/services.ts";

/** Swarm's weight of a manager that was heard of. */
const usualWeight = 10;
const leastWeight = 1;
/** With few nodes a difference means nothing. */
const leastSurplus = 5;

export class Spread {
  /** Nodes that are not down, by the manager that has their session. */
  readonly #sessions = new Map<string, number>();
  readonly #managerOf = new Map<string, string>();

  /** The node's session is with this manager; undefined: with none. */
  observe(nodeId: string, managerId: string | undefined): void {
    const before = this.#managerOf.get(nodeId);
    if (before === managerId) return;
    if (before !== undefined) this.#sessions.set(before, this.sessionsOf(before) - 1);
    if (managerId === undefined) this.#managerOf.delete(nodeId);
    else {
      this.#managerOf.set(nodeId, managerId);
      this.#sessions.set(managerId, this.sessionsOf(managerId) + 1);
    }
  }

  sessionsOf(managerId: string): number {
    return this.#sessions.get(managerId) ?? 0;
  }

  weigh(managers: readonly WeightedPeer[]): WeightedPeer[] {
    const counts = managers.map(({ nodeId }) => this.sessionsOf(nodeId));
    const share = counts.reduce((sum, count) => sum + count, 0) / managers.length;
    return managers.map((peer, index) => {
      const surplus = counts[index]! - share;
      const crowded = surplus > share / 2 && surplus > leastSurplus;
      return { ...peer, weight: crowded ? leastWeight : usualWeight };
    });
  }
}
