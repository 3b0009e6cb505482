/**
 * The node agent: keeps a session with one of the managers, and the tasks of this node as the managers want them.
 * Without a manager the tasks go on as they are. It knows managers only through ManagerConnection, and what runs the
 * tasks only through Executor.
 *
 * Invariant: one session at a time; whatever fails in it closes the connection, and another manager is tried at once.
 * When each has had its turn, a short, growing, random delay comes before the next round. While nothing can run here
 * for long (the Engine is away), there is no session: the node is down, and its tasks run elsewhere.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, pause, within } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { NodeDescription } from "../model/types.ts";
import type { NetworkPlane } from "../network/plane.ts";
import type { ManagerConnection, ManagerDialer, NodeIdentity, SessionMessage, WeightedPeer } from "../rpc/services.ts";
import { Attachments, type ContainerAttachments } from "./attachments.ts";
import type { Executor } from "./executor/executor.ts";
import type { UserContainers } from "./executor/user-containers.ts";
import { LogSubscriptions } from "./logs.ts";
import { ManagerList } from "./managers.ts";
import { NetworkFollower } from "./networks.ts";
import { Outage } from "./outage.ts";
import { Payloads } from "./payloads.ts";
import { PresentManager } from "./present-manager.ts";
import { type Certificates, Renewal } from "./renewal.ts";
import { StatusReporter } from "./reporter.ts";
import { runSession } from "./session.ts";
import type { TaskDatabase } from "./task-database.ts";
import { Withdrawals } from "./withdrawals.ts";
import { Worker } from "./worker.ts";

/** Swarmkit's: 100 ms, doubled and more at each failure, at most 8 s. */
const reconnect = { baseMs: 100, maxMs: 8000 };

/** What a stop waits for a manager at most. */
const restWithinMs = 500;

export interface AgentOptions {
  readonly identity: NodeIdentity;
  readonly dialer: ManagerDialer;
  /** host:port of managers to begin with; each session brings the whole list. */
  readonly managers: readonly string[];
  readonly executor: Executor;
  readonly taskDatabase: TaskDatabase;
  /** Where the executor finds what managers send of secrets and configs. */
  readonly payloads?: Payloads;
  /** The node's data plane; absent: it takes part in no network of the swarm. */
  readonly plane?: NetworkPlane;
  /** Users' containers, which may be on networks of the swarm; of use with a data plane only. */
  readonly userContainers?: UserContainers;
  readonly certificates: Certificates;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Each message of a manager: the node as it stands there, and the managers, which are to be kept on disk. */
  readonly onSession?: (message: SessionMessage) => void;
  /** A new certificate, or a new root: to be kept on disk, and used by whatever else talks to managers. */
  readonly onIdentity?: (identity: NodeIdentity) => Promise<void> | void;
}

export interface AgentReport {
  /** Address of the manager that the session is with; undefined while there is none. */
  readonly manager: string | undefined;
  readonly managers: readonly WeightedPeer[];
  /** The node as the managers have it; undefined before the first session. */
  readonly node: SessionMessage["node"] | undefined;
  /** Why the last session ended or could not be opened. */
  readonly lastError: string | undefined;
  readonly tasks: number;
  /** Statuses that no manager has accepted yet. */
  readonly waitingStatuses: number;
}

export class Agent {
  readonly #options: AgentOptions;
  readonly #managers: ManagerList;
  readonly #reporter: StatusReporter;
  readonly #worker: Worker;
  readonly #payloads: Payloads;
  readonly #attachments: Attachments | undefined;
  readonly #networks: NetworkFollower | undefined;
  readonly #logs: LogSubscriptions;
  readonly #renewal: Renewal;
  readonly #backoff: Backoff;
  readonly #outage: Outage;
  readonly #abort = new AbortController();
  #identity: NodeIdentity;
  /** What there is of the identity is on the disk; never rejects. */
  #saved: Promise<void> = Promise.resolve();
  #description: NodeDescription | undefined;
  /** Looks whether managers have to be told of the identity. */
  #identityChanged: () => void = () => {};
  #sessionId = "";
  #connected: string | undefined;
  /** Of the session, once it is open. */
  readonly #manager = new PresentManager();
  #node: SessionMessage["node"] | undefined;
  #lastError: string | undefined;
  #running: Promise<void> | undefined;

  constructor(options: AgentOptions) {
    const { clock, random, log, executor, taskDatabase: database } = options;
    this.#options = options;
    this.#identity = options.identity;
    this.#managers = new ManagerList(options.managers, random);
    this.#reporter = new StatusReporter(clock, random, log);
    this.#payloads = options.payloads ?? new Payloads();
    this.#outage = new Outage(clock);
    const onProblem = (text: string | undefined) => this.#outage.set(text);
    this.#attachments = this.#newAttachments(options);
    this.#worker = new Worker({
      executor,
      database,
      reporter: this.#reporter,
      payloads: this.#payloads,
      withdrawals: this.#newWithdrawals(options),
      attachments: this.#attachments,
      clock,
      random,
      log,
      onProblem,
    });
    this.#networks = options.plane && new NetworkFollower({ plane: options.plane, clock, random, log });
    this.#logs = new LogSubscriptions({ worker: this.#worker, executor, log });
    this.#renewal = new Renewal({ certificates: options.certificates, clock, random, log });
    this.#backoff = new Backoff(reconnect, random);
  }

  /** Takes up the tasks that it knows from before, and begins to look for a manager. */
  start(): void {
    if (this.#running) return;
    this.#worker.start();
    this.#attachments?.start();
    this.#running = this.#run(this.#abort.signal);
  }

  /**
   * Ends the session; tasks go on without it, and the manager is told so: it gives the node its heartbeats' grace to be
   * back. Resolves when nothing is under way any more.
   */
  async stop(): Promise<void> {
    await this.#rest();
    await this.#end();
  }

  /** A manager that does not hear of it takes the closed connection for the node's death a little sooner. */
  async #rest(): Promise<void> {
    const { connection } = this.#manager;
    if (!connection) return;
    const { clock, log } = this.#options;
    const limit = new AbortController();
    try {
      await within(clock, restWithinMs, connection.rest(this.#sessionId, limit.signal), () => {
        throw new ShoalError("DeadlineExceeded", "the manager does not answer");
      });
    } catch (error) {
      log.debug("agent: the manager was not told that this node's agent stops", { error: messageOf(error) });
    } finally {
      limit.abort();
    }
  }

  async #end(): Promise<void> {
    this.#abort.abort(new ShoalError("Canceled", "the agent stops"));
    await this.#running;
    await this.#worker.stop();
    await this.#attachments?.stop();
    this.#outage.stop();
  }

  /** Stops, and removes every container of this node and all that is known of its tasks. */
  async leave(): Promise<void> {
    await this.#end();
    await this.#options.executor.removeAll();
    this.#options.taskDatabase.clear();
    this.#payloads.clear();
  }

  /** For users' containers on networks of the swarm; undefined without a data plane. */
  get attachments(): ContainerAttachments | undefined {
    return this.#attachments;
  }

  #newWithdrawals({ plane, clock, log }: AgentOptions): Withdrawals | undefined {
    if (!plane) return undefined;
    const withdraw = (taskIds: readonly string[], signal: AbortSignal) =>
      this.#manager.call((connection) => connection.withdraw(this.#sessionId, taskIds, signal), signal);
    return new Withdrawals({ plane, withdraw, clock, log });
  }

  #newAttachments({ plane, userContainers, clock, random, log }: AgentOptions): Attachments | undefined {
    if (!plane || !userContainers) return undefined;
    return new Attachments({
      plane,
      containers: userContainers,
      manager: this.#manager,
      report: (task, status) => this.#worker.reportStatus(task, status),
      clock,
      random,
      log,
    });
  }

  report(): AgentReport {
    return {
      manager: this.#connected,
      managers: this.#managers.peers,
      node: this.#node,
      lastError: this.#lastError,
      tasks: [...this.#worker.tasks()].length,
      waitingStatuses: this.#reporter.waiting,
    };
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.#outage.reason !== undefined) {
        await this.#sitOut(this.#outage.reason, signal);
        continue;
      }
      const address = this.#managers.pick();
      try {
        if (address === undefined) throw new ShoalError("FailedPrecondition", "no manager is known");
        await this.#session(address, signal);
        continue; // something about the node is new: at once
      } catch (error) {
        if (signal.aborted) return;
        if (this.#outage.reason !== undefined) continue; // whatever it was: no manager's fault
        if (this.#note(address, error)) continue; // there is another manager to try
      }
      await pause(this.#options.clock, this.#backoff.nextMs(), signal);
    }
  }

  async #sitOut(reason: string, signal: AbortSignal): Promise<void> {
    this.#lastError = reason;
    this.#options.log.warn("agent: no session while nothing can run on this node", { error: reason });
    await this.#outage.end(signal);
    if (!signal.aborted) this.#options.log.info("agent: tasks can run on this node again");
  }

  /** Whether another manager is to be tried at once. */
  #note(address: string | undefined, error: unknown): boolean {
    this.#lastError = messageOf(error);
    this.#options.log.warn("agent: session failed", { manager: address, error: messageOf(error) });
    return address !== undefined && this.#managers.failed(address);
  }

  async #session(address: string, signal: AbortSignal): Promise<void> {
    const { clock, dialer, log } = this.#options;
    const description = await this.#describe();
    const connection = dialer.dial(address, this.#identity);
    try {
      await runSession(
        {
          connection,
          description,
          sessionId: this.#sessionId,
          worker: this.#worker,
          reporter: this.#reporter,
          logs: this.#logs,
          clock,
          log,
          describe: () => this.#describe(),
          hasChoice: () => this.#managers.peers.length > 1,
          onMessage: (message) => {
            this.#manager.set(connection);
            this.#message(address, message);
          },
          alongside: (during) =>
            Promise.race([
              this.#identityNews(connection, description, during),
              this.#outage.whileShort(during),
              ...(this.#networks ? [this.#networks.run(connection, this.#sessionId, during)] : []),
            ]),
        },
        signal,
      );
    } catch (error) {
      // The manager doesn't know this session: the next one begins anew.
      if (isShoalError(error, "InvalidArgument") || isShoalError(error, "NotFound")) this.#sessionId = "";
      throw error;
    } finally {
      this.#connected = undefined;
      this.#manager.set(undefined);
      connection.close();
    }
  }

  #message(address: string, message: SessionMessage): void {
    const { node, rootCA } = message;
    this.#connected = address;
    this.#sessionId = message.sessionId;
    this.#node = node;
    this.#lastError = undefined;
    this.#managers.replace(message.managers);
    this.#managers.worked(address);
    this.#backoff.reset();
    if (rootCA && rootCA !== this.#identity.rootCA) this.#setIdentity({ ...this.#identity, rootCA });
    if (node.Certificate?.State === "rotate" || node.Spec.Role !== this.#identity.role) this.#renewal.hurry();
    this.#options.onSession?.(message);
  }

  /**
   * Managers hear of it only once it is on the disk: when all nodes have said that they have a certificate of the new
   * root, the old one is given up, and a node that then came back from a crash with its old certificate had none.
   */
  #setIdentity(identity: NodeIdentity): void {
    this.#identity = identity;
    this.#saved = Promise.resolve(this.#options.onIdentity?.(identity));
    void this.#saved.then(() => this.#identityChanged());
  }

  /**
   * Keeps the certificate fresh, and resolves when there is something in the node's identity that the managers have to
   * be told in a new session: another role, issuer or root.
   * @param description what this session's manager was told
   */
  async #identityNews(connection: ManagerConnection, description: NodeDescription, signal: AbortSignal): Promise<void> {
    const { role } = this.#identity;
    const told = JSON.stringify(description.TLSInfo);
    const news = new Promise<void>((resolve) => {
      this.#identityChanged = () => {
        const now = JSON.stringify(this.#options.certificates.tlsInfo(this.#identity));
        if (this.#identity.role !== role || now !== told) resolve();
      };
      // The session's first message may have brought a new root.
      void this.#saved.then(() => this.#identityChanged());
    });
    await Promise.race([news, this.#renew(connection, signal)]);
  }

  /** Renews the certificate whenever it is due, until the signal aborts. */
  async #renew(connection: ManagerConnection, signal: AbortSignal): Promise<never> {
    for (;;) {
      const renewed = await this.#renewal.next(connection, this.#identity, signal);
      // Meanwhile a manager may have told of a new root.
      this.#setIdentity({ ...renewed, rootCA: this.#identity.rootCA });
    }
  }

  /** The node as it is, or as it was when its Engine could last be asked. */
  async #describe(): Promise<NodeDescription> {
    await this.#saved;
    try {
      this.#description = await this.#options.executor.describe();
    } catch (error) {
      if (!this.#description) throw error;
      this.#options.log.debug("the node can't be described", { error: messageOf(error) });
    }
    return { ...this.#description, TLSInfo: this.#options.certificates.tlsInfo(this.#identity) };
  }
}
