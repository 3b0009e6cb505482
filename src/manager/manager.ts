/**
 * What runs on a manager: the control loops, the dispatcher, the log broker and the certificate service, all on one
 * store. The loops meet only through the store: each change wakes those that it concerns.
 */
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Loop, LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { ManagerServices, WeightedPeer } from "../rpc/services.ts";
import type { Store } from "../store/store.ts";
import { allocator } from "./allocator/allocator.ts";
import { CertificateService } from "./certificates/service.ts";
import { CertificateSigner } from "./certificates/signer.ts";
import { Dispatcher } from "./dispatcher/dispatcher.ts";
import { LogBroker } from "./logbroker/log-broker.ts";
import { deletedNodesPlanner } from "./orchestrator/deleted-nodes.ts";
import { globalPlanner } from "./orchestrator/global.ts";
import { reaperPlanner } from "./orchestrator/reaper.ts";
import { replicatedPlanner } from "./orchestrator/replicated.ts";
import { drive } from "./planner.ts";
import { constraintEnforcer } from "./scheduler/enforcer.ts";
import { Scheduler } from "./scheduler/scheduler.ts";

export interface ManagerOptions {
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** All managers as agents are to know them. Never empty. */
  readonly peers: () => readonly WeightedPeer[];
}

export class Manager {
  readonly #options: ManagerOptions;
  readonly #loops: { loop: Loop; unwatch: () => void }[];
  readonly #dispatcher: Dispatcher;
  readonly #certificates: CertificateService;
  readonly #signer: CertificateSigner;
  readonly #scheduler: Scheduler;
  readonly logBroker: LogBroker;

  constructor(options: ManagerOptions) {
    this.#options = options;
    // The scheduler's index follows the store before its loop does: it must be up to date when the loop plans.
    this.#scheduler = new Scheduler(options.store);
    const planners = [
      replicatedPlanner,
      globalPlanner,
      allocator,
      this.#scheduler,
      constraintEnforcer,
      deletedNodesPlanner,
      reaperPlanner,
    ];
    this.#loops = planners.map((planner) => drive(planner, options));
    this.#dispatcher = new Dispatcher({ ...options, managers: options.peers });
    this.logBroker = new LogBroker(options);
    this.#certificates = new CertificateService(options);
    this.#signer = new CertificateSigner(options);
  }

  get store(): Store {
    return this.#options.store;
  }

  get nodeId(): string {
    return this.#options.nodeId;
  }

  /** What the manager offers to agents. */
  get services(): ManagerServices {
    return {
      ca: this.#certificates,
      dispatcher: this.#dispatcher,
      logBroker: this.logBroker,
      authorize: (caller) => this.#certificates.authorize(caller),
    };
  }

  async start(): Promise<void> {
    this.logBroker.start();
    await this.#dispatcher.start();
    for (const { loop } of this.#loops) loop.start();
    this.#signer.start();
  }

  /** Ends every stream and loop; the store stays open. */
  async stop(): Promise<void> {
    this.#dispatcher.stop();
    this.logBroker.stop();
    for (const { unwatch } of this.#loops) unwatch();
    await Promise.all([...this.#loops.map(({ loop }) => loop.stop()), this.#signer.stop()]);
    this.#scheduler.close();
  }

  /** The last run of each control loop. */
  reports(): LoopReport[] {
    return [...this.#loops.map(({ loop }) => loop.report()), this.#signer.report()];
  }
}
