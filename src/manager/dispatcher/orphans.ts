/**
 * A node that has been down for 24 h is not expected back: its tasks become orphaned, which frees what they hold and
 * lets them be replaced. As in Swarm, the 24 h start anew with each manager. Every manager counts, the one that leads
 * writes, under its lead.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import { limits } from "../../lib/limits.ts";
import type { Logger } from "../../lib/log.ts";
import { rank } from "../../model/state.ts";
import type { Node, Task } from "../../model/types.ts";
import type { Fence, Store, Transaction } from "../../store/store.ts";

const orphanAfterMs = 24 * 60 * 60 * 1000;
const retryMs = 60_000;

export interface OrphanOptions {
  /** Id of this manager's node. */
  readonly nodeId: string;
  /** This manager's lead; undefined while another one leads. */
  readonly fence: () => Fence | undefined;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Orphans {
  readonly #options: OrphanOptions;
  readonly #timers = new Map<string, Timer>();
  #stopped = false;

  constructor(options: OrphanOptions) {
    this.#options = options;
  }

  /** Looks at the node's state: counts from now when it has gone down, forgets it when it is back or deleted. */
  observe(nodeId: string, node: Node | undefined): void {
    const down = node?.Status.State === "down" && !this.#stopped;
    if (down && !this.#timers.has(nodeId)) this.#arm(nodeId, orphanAfterMs);
    if (!down) {
      this.#timers.get(nodeId)?.cancel();
      this.#timers.delete(nodeId);
    }
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  #arm(nodeId: string, delayMs: number): void {
    this.#timers.set(
      nodeId,
      this.#options.clock.after(delayMs, () => void this.#orphan(nodeId)),
    );
  }

  async #orphan(nodeId: string): Promise<void> {
    const { store, log } = this.#options;
    const fence = this.#options.fence();
    if (!fence) return this.#arm(nodeId, retryMs); // it may lead later
    try {
      // The timer's entry stays until the node changes: a node that stays down is not counted again.
      while ((await store.update((tx) => this.#orphanSome(tx, nodeId), { fence })) === limits.changesPerTransaction);
    } catch (error) {
      log.error("orphaning the tasks of a lost node failed", { node: nodeId, error: messageOf(error) });
      if (this.#timers.has(nodeId)) this.#arm(nodeId, retryMs);
    }
  }

  #orphanSome(tx: Transaction, nodeId: string): number {
    if (tx.get("nodes", nodeId)?.Status.State !== "down") return 0;
    const tasks: Task[] = [];
    for (const task of tx.tasksOfNode(nodeId)) if (canBeOrphaned(task)) tasks.push(task);
    const some = tasks.slice(0, limits.changesPerTransaction);
    for (const task of some) {
      const Status = {
        ...task.Status,
        State: "orphaned" as const,
        Timestamp: tx.now,
        Message: "the node of the task has been down for 24 hours",
        AppliedBy: this.#options.nodeId,
        AppliedAt: tx.now,
      };
      tx.put("tasks", { ...task, Status });
    }
    return some.length;
  }
}

function canBeOrphaned(task: Task): boolean {
  const state = rank(task.Status.State);
  return state >= rank("assigned") && state <= rank("running");
}
