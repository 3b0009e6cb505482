/**
 * Keeps a manager's files sealed as the cluster wants it: with its unlock key while autolock is on. Every manager does
 * so for its own disk, whenever the key in the store changes, and when it starts.
 */
import { messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Store } from "../store/store.ts";
import type { NodeKeys } from "./data-key.ts";

export class AutoLock {
  readonly #store: Store;
  readonly #keys: NodeKeys;
  readonly #unwatch: () => void;
  #last: Promise<void> = Promise.resolve();

  constructor(store: Store, keys: NodeKeys, log: Logger) {
    this.#store = store;
    this.#keys = keys;
    this.#unwatch = store.watch(({ changes }) => {
      for (const change of changes) {
        if (change.table !== "cluster" || !change.after || change.before?.UnlockKey === change.after.UnlockKey)
          continue;
        this.#last = this.sealed().catch((error) => {
          log.error("this manager's files are not sealed with the swarm's unlock key", { error: messageOf(error) });
        });
      }
    });
  }

  /** Resolves when the files are sealed (or not) as the store says at this moment. */
  async sealed(): Promise<void> {
    const cluster = this.#store.view.cluster();
    if (cluster) await this.#keys.protect(cluster.UnlockKey);
  }

  /** Resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#unwatch();
    await this.#last;
  }
}
