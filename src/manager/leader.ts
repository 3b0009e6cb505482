/**
 * What runs on the leader alone, for one term of its lead: the control loops and the signing of certificates. Every
 * write of it depends on the lead, so that what a deposed leader still has under way writes nothing.
 */
import type { Loop, LoopReport } from "../lib/loop.ts";
import type { Fence } from "../store/store.ts";
import { allocator } from "./allocator/allocator.ts";
import { rootRotationPlanner } from "./certificates/rotation.ts";
import { certificateSigner } from "./certificates/signer.ts";
import { networkKeyPlanner } from "./endpoints/network-key.ts";
import type { NodeLoop } from "./node-loop.ts";
import { deletedNodesPlanner } from "./orchestrator/deleted-nodes.ts";
import { globalPlanner } from "./orchestrator/global.ts";
import { jobsPlanner } from "./orchestrator/jobs/jobs.ts";
import { reaperPlanner } from "./orchestrator/reaper.ts";
import { replicatedPlanner } from "./orchestrator/replicated.ts";
import { drive, type PlannerRuntime } from "./planner.ts";
import { rolesLoop } from "./roles/roles.ts";
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
  readonly #planners: { loop: Loop; unwatch: () => void }[];
  readonly #nodeLoops: readonly NodeLoop[];
  readonly #scheduler: Scheduler;

  constructor(runtime: LeaderOptions) {
    this.fence = runtime.fence;
    // The scheduler's index follows the store before its loop does: it must be up to date when the loop plans.
    this.#scheduler = new Scheduler(runtime.store);
    const planners = [
      replicatedPlanner,
      globalPlanner,
      jobsPlanner,
      allocator,
      this.#scheduler,
      constraintEnforcer,
      deletedNodesPlanner,
      reaperPlanner,
      rootRotationPlanner(runtime.random),
      networkKeyPlanner(runtime.random),
    ];
    this.#planners = planners.map((planner) => drive(planner, runtime));
    this.#nodeLoops = [certificateSigner(runtime), rolesLoop(runtime)];
  }

  start(): void {
    for (const { loop } of this.#planners) loop.start();
    for (const loop of this.#nodeLoops) loop.start();
  }

  /** Resolves when nothing of it is under way. */
  async stop(): Promise<void> {
    for (const { unwatch } of this.#planners) unwatch();
    await Promise.all([
      ...this.#planners.map(({ loop }) => loop.stop()),
      ...this.#nodeLoops.map((loop) => loop.stop()),
    ]);
    this.#scheduler.close();
  }

  /** The last run of each loop. */
  reports(): LoopReport[] {
    return [...this.#planners.map(({ loop }) => loop.report()), ...this.#nodeLoops.map((loop) => loop.report())];
  }
}
