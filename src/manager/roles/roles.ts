/**
 * The loop that makes nodes what they are to be; it runs on the leader. Promoting: the role is given, and the node's
 * certificate has to be renewed with it; the rest is the node's (it asks to take part in the store). Demoting goes the
 * other way round, so that nobody who takes part in the store lacks the certificate for it: first the node's replica is
 * taken out, where that leaves a quorum, then the role is taken away.
 *
 * The leader does not demote itself: it hands the lead over, and the next one does it.
 */
import type { Clock } from "../../lib/clock.ts";
import { isShoalError, messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { Loop, type LoopReport, type RunResult } from "../../lib/loop.ts";
import type { Random } from "../../lib/random.ts";
import type { Node } from "../../model/types.ts";
import type { Fence, Store } from "../../store/store.ts";

export interface RolesOptions {
  /** Of this manager. */
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly fence: Fence;
  /** Takes a node's replica out of the store; FailedPrecondition where the rest would have no quorum. */
  readonly removeReplica: (nodeId: string) => Promise<void>;
  /** Hands the lead to another manager. */
  readonly resign: () => Promise<void>;
}

/** Wake-ups come from the store's watch; the look at everything only mends what that has missed. */
const resyncMs = 60_000;
/** Swarm's: a demotion that can't be yet is tried again. */
const retryMs = 5_000;

export class Roles {
  readonly #options: RolesOptions;
  readonly #loop: Loop;
  #unwatch: (() => void) | undefined;

  constructor(options: RolesOptions) {
    this.#options = options;
    this.#loop = new Loop({
      name: "roles",
      clock: options.clock,
      random: options.random,
      log: options.log,
      run: (ids) => this.#run(ids),
      allKeys: () => this.#unsettled(),
      resyncMs,
    });
  }

  start(): void {
    this.#unwatch ??= this.#options.store.watch(({ changes }) => {
      for (const change of changes) {
        if (change.table === "nodes" && change.after && isUnsettled(change.after)) this.#loop.wake(change.id);
      }
    });
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#unwatch?.();
    this.#unwatch = undefined;
    await this.#loop.stop();
  }

  report(): LoopReport {
    return this.#loop.report();
  }

  *#unsettled(): Iterable<string> {
    for (const node of this.#options.store.view.all("nodes")) if (isUnsettled(node)) yield node.ID;
  }

  async #run(ids: ReadonlySet<string>): Promise<RunResult> {
    const { store, clock, log } = this.#options;
    const later = new Map<string, number>();
    let changes = 0;
    let error: string | undefined;
    for (const id of ids) {
      const node = store.view.get("nodes", id);
      if (!node || !isUnsettled(node)) continue;
      try {
        if (node.Spec.Role === "worker" && !(await this.#leaveStore(node))) continue;
        changes += await this.#settle(id);
      } catch (failure) {
        if (!isShoalError(failure, "FailedPrecondition")) throw failure;
        error = messageOf(failure);
        log.warn("a manager can't be demoted yet", { "node.id": id, error });
        later.set(id, clock.now() + retryMs);
      }
    }
    return { changes, later, error };
  }

  /** False where the next leader has to do it. */
  async #leaveStore(node: Node): Promise<boolean> {
    const { nodeId, removeReplica, resign } = this.#options;
    if (node.ID === nodeId) {
      await resign();
      return false;
    }
    await removeReplica(node.ID);
    return true;
  }

  #settle(id: string): Promise<number> {
    const { store, fence, log } = this.#options;
    return store.update(
      (tx) => {
        const node = tx.get("nodes", id);
        if (!node || !isUnsettled(node)) return 0;
        tx.put("nodes", inItsRole(node));
        log.info("a node changes its role", { "node.id": id, "node.role": node.Spec.Role });
        return 1;
      },
      { fence },
    );
  }
}

function isUnsettled({ Spec, Role }: Node): boolean {
  return Spec.Role !== Role;
}

/** The node with the role that it is to have, and a certificate that is to be renewed with it. */
export function inItsRole(node: Node): Node {
  const { ManagerStatus, Certificate, ...rest } = node;
  const Role = node.Spec.Role ?? "worker";
  return {
    ...rest,
    Role,
    ...(ManagerStatus && Role === "manager" && { ManagerStatus }),
    ...(Certificate && { Certificate: { ...Certificate, Role, State: "rotate" as const } }),
  };
}
