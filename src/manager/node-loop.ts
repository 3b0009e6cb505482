/**
 * A loop of the leader over nodes that want something done that takes a while (a signature, a change of the store's
 * members): planners decide in one turn, this awaits. Level-triggered as they are: woken by each commit that leaves a
 * node wanting, it looks at the node as it is then.
 */
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { Loop, type LoopReport, type RunResult } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { Node } from "../model/types.ts";
import type { Store } from "../store/store.ts";

export interface NodeLoopOptions {
  readonly name: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Whether something is to be done about the node. */
  readonly wants: (node: Node) => boolean;
  /** Does it for these nodes, of which some may no longer want it. */
  readonly run: (nodeIds: ReadonlySet<string>) => Promise<RunResult>;
}

/** Wake-ups come from the store's watch; the look at everything only mends what that has missed. */
const resyncMs = 60_000;

export class NodeLoop {
  readonly #options: NodeLoopOptions;
  readonly #loop: Loop;
  #unwatch: (() => void) | undefined;

  constructor(options: NodeLoopOptions) {
    this.#options = options;
    this.#loop = new Loop({ ...options, allKeys: () => this.#wanting(), resyncMs });
  }

  start(): void {
    const { store, wants } = this.#options;
    this.#unwatch ??= store.watch(({ changes }) => {
      for (const change of changes) {
        if (change.table === "nodes" && change.after && wants(change.after)) this.#loop.wake(change.id);
      }
    });
    this.#loop.start();
  }

  /** Resolves when the run under way has finished. */
  async stop(): Promise<void> {
    this.#unwatch?.();
    this.#unwatch = undefined;
    await this.#loop.stop();
  }

  report(): LoopReport {
    return this.#loop.report();
  }

  *#wanting(): Iterable<string> {
    const { store, wants } = this.#options;
    for (const node of store.view.all("nodes")) if (wants(node)) yield node.ID;
  }
}
