/**
 * Which manager leads: the one whose member of the shared store leads the other members takes the lead's row. It looks
 * every so often, so that for a moment two managers may think that they lead; the row tells which of them may write.
 */
import { messageOf } from "../../src/lib/errors.ts";
import type { Logger } from "../../src/lib/log.ts";
import { type Election, takeLead } from "../../src/store/replica.ts";
import type { Fence, Store } from "../../src/store/store.ts";
import type { Dice } from "./dice.ts";
import type { SharedStore } from "./shared-store.ts";
import type { Life } from "./timeline.ts";

const looksEveryMs = 150;
/** A member that is cut off knows that it leads no more only after this. */
const stepsDownAfterMs = 1000;

export interface ElectionOptions {
  readonly shared: SharedStore;
  readonly store: Store;
  readonly host: string;
  readonly nodeId: string;
  readonly life: Life;
  readonly dice: Dice;
  readonly log: Logger;
}

export class SimulatedElection implements Election {
  readonly #options: ElectionOptions;
  readonly #listeners = new Set<(fence: Fence | undefined) => void>();
  readonly #unwatch: (() => void)[];
  #fence: Fence | undefined;
  #taking = false;
  #stopped = false;

  constructor(options: ElectionOptions) {
    this.#options = options;
    const { shared, store, life } = options;
    this.#unwatch = [
      shared.watchLeader(() => this.#lookSoon()),
      store.watch(({ changes }) => {
        for (const change of changes) {
          if (change.table !== "locks" || change.id !== "lead" || !this.#fence || this.#taking) continue;
          if (change.after?.Version.Index !== this.#fence.revision) this.#set(undefined);
        }
      }),
    ];
    for (const unwatch of this.#unwatch) life.onEnd(unwatch);
    this.#lookSoon();
  }

  get fence(): Fence | undefined {
    return this.#fence;
  }

  watch(listener: (fence: Fence | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async resign(): Promise<void> {
    if (this.#fence) this.#options.shared.depose();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const unwatch of this.#unwatch) unwatch();
  }

  #lookSoon(): void {
    const { life, dice, shared, host } = this.#options;
    const lateMs = this.#fence && !shared.hasQuorum(host) ? stepsDownAfterMs : 0;
    life.clock.after(lateMs + dice.between(0, looksEveryMs), () => void this.#look());
  }

  async #look(): Promise<void> {
    const { shared, store, host, nodeId, log } = this.#options;
    if (this.#stopped || this.#taking) return;
    const leads = shared.leaderSeenBy(host) === host;
    if (!leads) return this.#set(undefined);
    if (this.#fence) return;
    this.#taking = true;
    try {
      const fence = await takeLead(store, nodeId);
      this.#taking = false;
      // It may have been taken by another one since.
      if (store.view.get("locks", "lead")?.Version.Index === fence.revision && !this.#stopped) this.#set(fence);
    } catch (error) {
      this.#taking = false;
      log.warn("taking the lead failed", { error: messageOf(error) });
    }
    this.#lookSoon();
  }

  #set(fence: Fence | undefined): void {
    if (this.#fence?.revision === fence?.revision) return;
    this.#fence = fence;
    for (const listener of this.#listeners) listener(fence);
  }
}
