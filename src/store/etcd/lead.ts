/**
 * Who leads: the manager whose own etcd member leads the raft. So there is a leader as soon as there can be writes, and
 * nobody waits for a lease to run out. The raft's leader takes the lead's row in the store; what counts is the row, of
 * which every write under a fence depends: a manager that is late to notice that it was deposed can write nothing.
 *
 * The fence is given up as soon as the row has changed, or the own member does not lead or does not answer.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { type Election, takeLead } from "../replica.ts";
import type { Store } from "../store.ts";
import { type Fence, leadLock } from "../view.ts";

const pollMs = 150;

/** What the election asks of the own member. */
export interface RaftLead {
  /** Whether the own member leads the raft. Rejects where it does not answer. */
  leads(): Promise<boolean>;
  /** Hands the raft's lead to another member with a vote; false where nobody could take it. */
  moveLead(): Promise<boolean>;
}

export interface RaftElectionOptions {
  readonly store: Store;
  readonly nodeId: string;
  readonly raft: RaftLead;
  readonly clock: Clock;
  readonly log: Logger;
}

export class RaftElection implements Election {
  readonly #options: RaftElectionOptions;
  readonly #watchers = new Set<(fence: Fence | undefined) => void>();
  readonly #unwatch: () => void;
  #fence: Fence | undefined;
  #timer: Timer | undefined;
  #polling: Promise<void> = Promise.resolve();
  #stopped = false;

  private constructor(options: RaftElectionOptions) {
    this.#options = options;
    this.#unwatch = options.store.watch(({ changes }) => {
      if (changes.some(({ table, id }) => table === "locks" && id === leadLock)) this.#onRow();
    });
  }

  /** Looks once before it resolves: a manager that leads already has its fence then. */
  static async start(options: RaftElectionOptions): Promise<RaftElection> {
    const election = new RaftElection(options);
    await election.#poll();
    election.#pollLater();
    return election;
  }

  get fence(): Fence | undefined {
    return this.#fence;
  }

  watch(listener: (fence: Fence | undefined) => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  async resign(): Promise<void> {
    if (!this.#fence) return;
    try {
      if (await this.#options.raft.moveLead()) this.#set(undefined);
      else this.#options.log.info("there is no other manager to take the lead");
    } catch (error) {
      this.#options.log.warn("the lead was not handed over", { error: messageOf(error) });
    }
  }

  /** The lead is given up, not handed over. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#unwatch();
    await this.#polling;
    this.#set(undefined);
  }

  #pollLater(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(pollMs, () => {
      this.#polling = this.#poll().then(() => this.#pollLater());
    });
  }

  async #poll(): Promise<void> {
    const { store, nodeId, raft, log } = this.#options;
    try {
      if (!(await raft.leads())) this.#set(undefined);
      else if (!this.#fence && !this.#stopped) {
        const fence = await takeLead(store, nodeId);
        // The row may have been taken again between the write and here.
        if (isRow(store, fence)) this.#set(fence);
      }
    } catch (error) {
      // The member is down, or has lost its quorum: the next look finds out.
      log.debug("the lead is not known", { error: messageOf(error) });
      this.#set(undefined);
    }
  }

  #onRow(): void {
    if (this.#fence && !isRow(this.#options.store, this.#fence)) this.#set(undefined);
  }

  #set(fence: Fence | undefined): void {
    if (fence?.revision === this.#fence?.revision) return;
    this.#fence = fence;
    const { log } = this.#options;
    log.info(fence ? "this manager leads" : "this manager no longer leads");
    for (const watcher of [...this.#watchers]) watcher(fence);
  }
}

function isRow(store: Store, fence: Fence): boolean {
  const row = store.view.get("locks", leadLock);
  return row?.Holder === fence.nodeId && row.Version.Index === fence.revision;
}
