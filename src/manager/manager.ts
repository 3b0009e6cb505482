/**
 * What runs on a manager. On every one: the dispatcher, the networks' state, the log broker and the certificate
 * service. On the one that leads: the control loops and the signer (`leader.ts`), from the moment it has the lead until
 * it has lost it. All of them meet only through the store: each change wakes those that it concerns.
 */
import type { Clock } from "../lib/clock.ts";
import { assert, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { LogsRequest, TaskSelector } from "../rpc/peers.ts";
import type { LogMessage, LogOptions, ManagerServices, WeightedPeer } from "../rpc/services.ts";
import type { Election } from "../store/replica.ts";
import type { Fence, Store } from "../store/store.ts";
import { CertificateService } from "./certificates/service.ts";
import { Dispatcher } from "./dispatcher/dispatcher.ts";
import { NetworkStates, type WithdrawalPeer } from "./endpoints/network-states.ts";
import { Leader } from "./leader.ts";
import { LogBroker } from "./logbroker/log-broker.ts";
import { readLogs } from "./logbroker/reader.ts";
import { type Pinged, Reachability } from "./roles/reachability.ts";

export interface ManagerOptions {
  readonly nodeId: string;
  readonly store: Store;
  readonly election: Election;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** All managers as agents are to know them. Never empty. */
  readonly peers: () => readonly WeightedPeer[];
  /** The others; absent where there can't be any (tests). */
  readonly fellows?: Fellows;
}

/** A connection to another manager. */
export type Fellow = Pinged & WithdrawalPeer;

/** What a manager does about the other managers, and with them. */
export interface Fellows {
  /** FailedPrecondition where another manager could not be let in. */
  readonly admits: () => Promise<void>;
  /** Takes a node's replica out of the store; FailedPrecondition where the rest would have no quorum. */
  readonly removeReplica: (nodeId: string) => Promise<void>;
  readonly connect: (address: string) => Fellow;
  /** Asks the manager at the address for the lines of its nodes. */
  readonly logsOf: (address: string, request: LogsRequest, signal: AbortSignal) => AsyncIterable<LogMessage>;
}

export class Manager {
  readonly #options: ManagerOptions;
  readonly #dispatcher: Dispatcher;
  readonly #certificates: CertificateService;
  readonly logBroker: LogBroker;
  readonly reachability: Reachability<Fellow>;
  readonly networks: NetworkStates;
  #leader: Leader | undefined;
  /** Terms begin and end one after the other. */
  #turning: Promise<void> = Promise.resolve();
  #unwatch = () => {};
  #stopped = false;

  constructor(options: ManagerOptions) {
    this.#options = options;
    const { fellows } = options;
    this.reachability = new Reachability({
      ...options,
      connect: (address) => {
        assert(fellows, "this manager knows how to reach others");
        return fellows.connect(address);
      },
      onChange: () => this.#dispatcher.managersChanged(),
      onInService: (ms) => this.#dispatcher.heardInService(ms),
    });
    this.#dispatcher = new Dispatcher({
      ...options,
      managers: options.peers,
      ...(fellows && { reachable: (managerId) => this.reachability.isReachable(managerId) }),
    });
    this.networks = new NetworkStates({
      ...options,
      session: (caller, sessionId) => this.#dispatcher.requireSession(caller, sessionId),
      peers: () => this.reachability.connections(),
    });
    this.logBroker = new LogBroker(options);
    this.#certificates = new CertificateService({ ...options, admitsManagers: fellows?.admits });
  }

  get store(): Store {
    return this.#options.store;
  }

  get nodeId(): string {
    return this.#options.nodeId;
  }

  /** For how long the managers have been in service, as far as this one knows: for the others. */
  get inServiceMs(): number {
    return this.#dispatcher.inServiceMs;
  }

  /** What the manager offers to agents. */
  get services(): ManagerServices {
    return {
      ca: this.#certificates,
      dispatcher: this.#dispatcher,
      logBroker: this.logBroker,
      networks: this.networks,
      authorize: (caller) => this.#certificates.authorize(caller),
    };
  }

  async start(): Promise<void> {
    const { election, fellows } = this.#options;
    if (fellows) this.reachability.start();
    this.logBroker.start();
    this.networks.start();
    await this.#dispatcher.start();
    this.#unwatch = election.watch((fence) => this.#turn(fence));
    this.#turn(election.fence);
    await this.#turning;
  }

  /** Ends every stream and loop; the store stays open. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unwatch();
    this.#dispatcher.stop();
    this.networks.stop();
    this.logBroker.stop();
    this.reachability.stop();
    this.#turn(undefined);
    await this.#turning;
  }

  /** Lines of the matching tasks, whichever managers their nodes have their sessions with. As `readLogs`. */
  logs(selector: TaskSelector, options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage> {
    const isReachable = (managerId: string) => this.reachability.isReachable(managerId);
    return readLogs(
      { ...this.#options, selector, options, isReachable, ask: (...question) => this.#ask(...question) },
      signal,
    );
  }

  #ask(managerId: string, request: LogsRequest, signal: AbortSignal): AsyncIterable<LogMessage> {
    const { nodeId, store, fellows } = this.#options;
    if (managerId === nodeId) return this.logBroker.logs(request, signal);
    const address = store.view.get("nodes", managerId)?.ManagerStatus?.Addr;
    if (!fellows || !address) throw new ShoalError("Unavailable", "the manager is not there any more");
    return fellows.logsOf(address, request, signal);
  }

  /** The last run of each control loop; empty while another manager leads. */
  reports(): LoopReport[] {
    return this.#leader?.reports() ?? [];
  }

  #turn(fence: Fence | undefined): void {
    const { log } = this.#options;
    this.#turning = this.#turning
      .then(() => this.#become(fence))
      .catch((error) => log.error("taking or leaving the lead failed", { error: messageOf(error) }));
  }

  async #become(fence: Fence | undefined): Promise<void> {
    if (this.#leader?.fence.revision === fence?.revision) return;
    if (this.#leader) {
      await this.#leader.stop();
      this.#leader = undefined;
      this.#options.log.info("this manager no longer leads the swarm");
    }
    if (!fence || this.#stopped) return;
    const { election, fellows } = this.#options;
    this.#leader = new Leader({
      ...this.#options,
      fence,
      resign: () => election.resign(),
      removeReplica: async (nodeId) => await fellows?.removeReplica(nodeId),
    });
    this.#leader.start();
    this.#options.log.info("this manager leads the swarm", { term: fence.revision });
  }
}
