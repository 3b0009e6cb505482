/**
 * What runs on the leader alone, for one term of its lead: the control loops and the signing of certificates. Every
 * write of it depends on the lead, so that what a deposed leader still has under way writes nothing.
 */
import type { Loop, LoopReport } from "../lib/loop.ts";
import type { Fence } from "../store/store.ts";
import { allocator } from "./allocator/allocator.ts";
import { rootRotationPlanner } from "./certificates/rotation.ts";
import { CertificateSigner } from "./certificates/signer.ts";
import { deletedNodesPlanner } from "./orchestrator/deleted-nodes.ts";
import { globalPlanner } from "./orchestrator/global.ts";
import { reaperPlanner } from "./orchestrator/reaper.ts";
import { replicatedPlanner } from "./orchestrator/replicated.ts";
import { drive, type PlannerRuntime } from "./planner.ts";
import { Roles } from "./roles/roles.ts";
import { constraintEnforcer } from "./scheduler/enforcer.ts";
import { Scheduler } from "./scheduler/scheduler.ts";

export interface LeaderOptions extends PlannerRuntime {
  readonly nodeId: string;
  readonly fence: Fence;
  /** Takes a node's replica out of the store; FailedPrecondition where the rest would have no quorum. */
  readonly removeReplica: (nodeId: string) => Promise<void>;
  /** Hands the lead to another manager. */
  readonly resign: () => Promise<void>;
}

export class Leader {
  readonly fence: Fence;
  readonly #loops: { loop: Loop; unwatch: () => void }[];
  readonly #signer: CertificateSigner;
  readonly #roles: Roles;
  readonly #scheduler: Scheduler;

  constructor(runtime: LeaderOptions) {
    this.fence = runtime.fence;
    // The scheduler's index follows the store before its loop does: it must be up to date when the loop plans.
    this.#scheduler = new Scheduler(runtime.store);
    const planners = [
      replicatedPlanner,
      globalPlanner,
      allocator,
      this.#scheduler,
      constraintEnforcer,
      deletedNodesPlanner,
      reaperPlanner,
      rootRotationPlanner(runtime.random),
    ];
    this.#loops = planners.map((planner) => drive(planner, runtime));
    this.#signer = new CertificateSigner(runtime);
    this.#roles = new Roles(runtime);
  }

  start(): void {
    for (const { loop } of this.#loops) loop.start();
    this.#signer.start();
    this.#roles.start();
  }

  /** Resolves when nothing of it is under way. */
  async stop(): Promise<void> {
    for (const { unwatch } of this.#loops) unwatch();
    await Promise.all([...this.#loops.map(({ loop }) => loop.stop()), this.#signer.stop(), this.#roles.stop()]);
    this.#scheduler.close();
  }

  /** The last run of each control loop. */
  reports(): LoopReport[] {
    return [...this.#loops.map(({ loop }) => loop.report()), this.#signer.report(), this.#roles.report()];
  }
}
