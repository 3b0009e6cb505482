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
import type { RunResult } from "../../lib/loop.ts";
import type { Random } from "../../lib/random.ts";
import type { Node } from "../../model/types.ts";
import type { Fence, Store } from "../../store/store.ts";
import { NodeLoop } from "../node-loop.ts";

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

/** Swarm's: a demotion that can't be yet is tried again. */
const retryMs = 5_000;

/** The loop, not yet started. */
export function rolesLoop(options: RolesOptions): NodeLoop {
  const roles = new Roles(options);
  return new NodeLoop({ ...options, name: "roles", wants: isUnsettled, run: (ids) => roles.settle(ids) });
}

class Roles {
  readonly #options: RolesOptions;

  constructor(options: RolesOptions) {
    this.#options = options;
  }

  async settle(ids: ReadonlySet<string>): Promise<RunResult> {
    const { store, clock, log } = this.#options;
    const later = new Map<string, number>();
    let changes = 0;
    let error: string | undefined;
    for (const id of ids) {
      const node = store.view.get("nodes", id);
      if (!node || !isUnsettled(node)) continue;
      try {
        if (node.Spec.Role === "worker" && !(await this.#leaveStore(node))) continue;
        changes += await this.#give(id);
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

  /** Gives the node its role. */
  #give(id: string): Promise<number> {
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
