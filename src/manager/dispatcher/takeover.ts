/**
 * What the leader does about nodes whose manager has gone: each gets a grace in which it may register with another
 * manager, and is down after it. Nodes whose manager is there are left alone: that manager alone judges them.
 *
 * Invariants: nothing is judged while another manager leads, every write depends on the lead, and a node that has
 * moved (or whose manager is back) by the time of the write is not touched.
 *
 * Differs from Swarm, where the leader has all sessions and a new one makes every node unknown first.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Node } from "../../model/types.ts";
import type { Fence, Store } from "../../store/store.ts";

/**
 * From the moment in which the manager is known to be gone: three seconds after it died, four after it was cut off
 * (`roles/reachability.ts`). An agent knows of the former at once, of the latter within 3.5 s, and is with another
 * manager as soon as it does.
 */
export const takeoverGraceMs = 1_500;
const retryMs = 1_000;

export interface TakeoverOptions {
  /** Id of this manager's node. */
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  readonly fence: () => Fence | undefined;
  /** Whether another manager is there, as far as is known. */
  readonly reachable: (managerId: string) => boolean;
  /** Of nodes whose manager is gone, in milliseconds, from now on. */
  readonly leftGraceMs: () => number;
  /** Of nodes that have never been with one. */
  readonly newGraceMs: () => number;
}

interface Adopted {
  /** The manager that is gone; undefined for a node that never had one. */
  readonly from: string | undefined;
  dueAt: number;
  timer: Timer;
}

export class Takeover {
  readonly #options: TakeoverOptions;
  readonly #adopted = new Map<string, Adopted>();

  constructor(options: TakeoverOptions) {
    this.#options = options;
  }

  /** This manager leads from now on. */
  begin(): void {
    const { store, newGraceMs } = this.#options;
    for (const node of store.view.all("nodes")) {
      if (node.SessionManager === undefined) this.#adopt(node, newGraceMs());
      else this.#look(node.ID, node);
    }
  }

  /** What `leftGraceMs` answers has become less. */
  hasten(): void {
    const { clock, leftGraceMs: grace } = this.#options;
    const leftGraceMs = grace();
    const dueAt = clock.now() + leftGraceMs;
    for (const [nodeId, adopted] of this.#adopted) {
      if (adopted.from === undefined || adopted.dueAt <= dueAt) continue;
      adopted.timer.cancel();
      Object.assign(adopted, this.#arm(nodeId, leftGraceMs));
    }
  }

  end(): void {
    for (const nodeId of [...this.#adopted.keys()]) this.#forget(nodeId);
  }

  /** A manager has gone or come back. */
  lookAtAll(): void {
    if (!this.#options.fence()) return;
    for (const node of this.#options.store.view.all("nodes")) this.#look(node.ID, node);
  }

  /** The node has changed. */
  observe(nodeId: string, node: Node | undefined): void {
    if (this.#options.fence()) this.#look(nodeId, node);
  }

  #look(nodeId: string, node: Node | undefined): void {
    const adopted = this.#adopted.get(nodeId);
    if (node && adopted && adopted.from === node.SessionManager && this.#mayBeDead(node)) return;
    this.#forget(nodeId);
    if (node && node.SessionManager !== undefined && this.#isLeft(node)) this.#adopt(node, this.#options.leftGraceMs());
  }

  /** Its manager is not there. */
  #isLeft({ SessionManager: manager, Status }: Node): boolean {
    const { nodeId, reachable } = this.#options;
    return Status.State !== "down" && manager !== nodeId && (manager === undefined || !reachable(manager));
  }

  #mayBeDead(node: Node): boolean {
    return node.SessionManager === undefined ? node.Status.State !== "down" : this.#isLeft(node);
  }

  #adopt(node: Node, graceMs: number): void {
    if (node.Status.State === "down" || this.#adopted.has(node.ID)) return;
    this.#adopted.set(node.ID, { from: node.SessionManager, ...this.#arm(node.ID, graceMs) });
  }

  #arm(nodeId: string, delayMs: number): Pick<Adopted, "dueAt" | "timer"> {
    const { clock } = this.#options;
    return { dueAt: clock.now() + delayMs, timer: clock.after(delayMs, () => void this.#judge(nodeId)) };
  }

  async #judge(nodeId: string): Promise<void> {
    const { store, log } = this.#options;
    const adopted = this.#adopted.get(nodeId);
    const fence = this.#options.fence();
    if (!adopted || !fence) return;
    try {
      const lost = await store.update(
        (tx) => {
          const node = tx.get("nodes", nodeId);
          if (!node || node.SessionManager !== adopted.from || !this.#mayBeDead(node)) return false;
          const Message = "the manager of the node's session is gone, and the node has not come to another one";
          tx.put("nodes", { ...node, Status: { ...node.Status, State: "down", Message } });
          return true;
        },
        { fence },
      );
      if (lost) log.info("node is down", { node: nodeId, manager: adopted.from });
      if (this.#adopted.get(nodeId) === adopted) this.#adopted.delete(nodeId);
    } catch (error) {
      log.warn("taking over a node failed", { node: nodeId, error: messageOf(error) });
      if (this.#adopted.get(nodeId) === adopted) Object.assign(adopted, this.#arm(nodeId, retryMs));
    }
  }

  #forget(nodeId: string): void {
    this.#adopted.get(nodeId)?.timer.cancel();
    this.#adopted.delete(nodeId);
  }
}
