/**
 * Nodes that register: how many times a node may, and whose registration is being written just now.
 *
 * The limit is Swarm's: at most 3 registrations of a node within 8 s, so that a node that flaps does not keep the store
 * busy. Counted are only new sessions that were granted: one that keeps its session id (a changed description) writes
 * at most the change, and a refused try does not prolong the wait. The count lives in the manager's memory: a daemon
 * that restarts takes its own manager's count with it, and a worker would have to restart four times in 8 s to be
 * refused once; its backoff (up to 8 s) then brings it in.
 */
import { ShoalError } from "../../lib/errors.ts";

const registrationsPerWindow = 3;
const windowMs = 8_000;

export class Registrations {
  /** Times of the granted registrations of each node, oldest first; never more than fit in a window. */
  readonly #granted = new Map<string, number[]>();
  readonly #underWay = new Map<string, number>();

  /** Grants a registration, or throws Unavailable. */
  grant(nodeId: string, now: number): void {
    const recent = (this.#granted.get(nodeId) ?? []).filter((at) => now - at < windowMs);
    if (recent.length >= registrationsPerWindow) {
      throw new ShoalError("Unavailable", `node ${nodeId} exceeded rate limit count of registrations`);
    }
    recent.push(now);
    this.#granted.set(nodeId, recent);
  }

  forget(nodeId: string): void {
    this.#granted.delete(nodeId);
  }

  /** Such a node is not to be judged: it is there, whatever was said of it before. */
  isUnderWay(nodeId: string): boolean {
    return this.#underWay.has(nodeId);
  }

  /** Runs `write`, during which the node's registration is under way. */
  async during(nodeId: string, write: () => Promise<void>): Promise<void> {
    this.#underWay.set(nodeId, (this.#underWay.get(nodeId) ?? 0) + 1);
    try {
      await write();
    } finally {
      const others = this.#underWay.get(nodeId)! - 1;
      if (others > 0) this.#underWay.set(nodeId, others);
      else this.#underWay.delete(nodeId);
    }
  }
}
