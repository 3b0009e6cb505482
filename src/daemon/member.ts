/**
 * A node's part in its swarm, running: the agent, which knows managers only by their addresses, and on a manager the
 * manager's part beside it. What the agent learns (certificates, managers) is kept on the disk.
 */
import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import { DockerExecutor } from "../agent/executor/docker.ts";
import { openTaskDatabase, type TaskDatabase } from "../agent/task-database.ts";
import type { ActiveManager, LocalNodeInfo } from "../api/context.ts";
import { certificatesExpired, readNodeCertificate, renewalTime } from "../ca/chain.ts";
import type { IdentityFiles } from "../ca/identity-files.ts";
import { renewIdentity } from "../ca/join.ts";
import { tlsInfoOfNode } from "../ca/tls-info.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Engine } from "../engine/engine.ts";
import { Backoff } from "../lib/backoff.ts";
import { type Clock, pause, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { managerDialer } from "../rpc/client.ts";
import type { NodeIdentity, SessionMessage } from "../rpc/services.ts";
import { parseAddress } from "./address.ts";
import type { NodeKeys } from "./data-key.ts";
import { ManagerPart } from "./manager-part.ts";
import { removeStore } from "./open-store.ts";
import type { NodeState, StateFile } from "./state-file.ts";

export interface MemberOptions {
  readonly dataDirectory: string;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  readonly identityFiles: IdentityFiles;
  /** Of this node, open. */
  readonly keys: NodeKeys;
  readonly stateFile: StateFile;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Never pull an image that is on the node. */
  readonly preferOfflineImage: boolean;
}

/** Where the agent keeps what it knows of its tasks. */
export function tasksDirectory(dataDirectory: string): string {
  return join(dataDirectory, "tasks");
}

/** A manager whose fellows are there has its store well within this. */
const resumeLimitMs = 5_000;
const removedPauseMs = 3_000;
const promotionRetry = { baseMs: 500, maxMs: 10_000 };
/** To say goodbye to the other managers. */
const leaveLimitMs = 8_000;

/** What managers answer to a node that was removed: ours, and a stock one. */
const removedText = /was removed from (the )?swarm/;

export class Member {
  readonly #options: MemberOptions;
  readonly #engine: Engine;
  readonly #taskDatabase: TaskDatabase;
  readonly #agent: Agent;
  readonly #session: Promise<void>;
  #sessionOpened = () => {};
  #state: NodeState;
  #identity: NodeIdentity;
  #manager: ManagerPart | undefined;
  readonly #stopped = new AbortController();
  /** A manager's part begins and ends one after the other. */
  #turning: Promise<void> = Promise.resolve();
  /** Becoming a manager, which ends when it is no longer to be one. */
  #attempt = new AbortController();
  /** The others have taken this manager out of the store. */
  #removed = false;
  /** What goes to the disk goes there one after the other. */
  #saving: Promise<void> = Promise.resolve();

  private constructor(options: MemberOptions, state: NodeState, identity: NodeIdentity) {
    const { clock, random, log } = options;
    this.#options = options;
    this.#state = state;
    this.#identity = identity;
    this.#session = new Promise((resolve) => {
      this.#sessionOpened = resolve;
    });
    this.#engine = dockerEngine(options.engineSocket);
    this.#taskDatabase = openTaskDatabase(tasksDirectory(options.dataDirectory), options.keys);
    this.#agent = new Agent({
      identity,
      dialer: managerDialer,
      managers: state.managers.map(({ address }) => address),
      executor: new DockerExecutor({
        engine: this.#engine,
        nodeId: state.nodeId,
        clock,
        random,
        log: log.child({ module: "executor" }),
        preferOfflineImage: options.preferOfflineImage,
      }),
      taskDatabase: this.#taskDatabase,
      certificates: {
        tlsInfo: tlsInfoOfNode,
        renewAt: ({ chain }) => renewalTime(chain, random),
        renew: (connection, current, signal) => renewIdentity({ connection, identity: current, clock, random, signal }),
      },
      clock,
      random,
      log: log.child({ module: "agent" }),
      onSession: (message) => this.#heard(message),
      onIdentity: (renewed) => this.#renewed(renewed),
    });
  }

  /**
   * Starts all parts. What it has opened is closed again when it fails.
   * @param entering the node has just joined: a manager that can't be one has failed. Later it tries again.
   */
  static async start(
    options: MemberOptions,
    state: NodeState,
    identity: NodeIdentity,
    entering = false,
  ): Promise<Member> {
    const member = new Member(options, state, identity);
    try {
      // What the certificate says counts: a change of role may have been cut short.
      if (identity.role === "worker") {
        if (state.role === "manager") await member.#stopManaging();
      } else if (entering || state.store === "lmdb") await member.#startManaging();
      else await member.#resumeManaging();
      member.#agent.start();
      return member;
    } catch (error) {
      await member.stop();
      throw error;
    }
  }

  /** Resolves when a manager has taken the node in; Unavailable with the reason when none has within the limit. */
  ready(limitMs: number): Promise<void> {
    return within(this.#options.clock, limitMs, this.#session, () => {
      const reason = this.#agent.report().lastError ?? "no answer from the Docker Engine";
      throw new ShoalError("Unavailable", `the node did not become ready: ${reason}`);
    });
  }

  /** The same without a limit. */
  get session(): Promise<void> {
    return this.#session;
  }

  /** As it is to be on the disk. */
  get state(): NodeState {
    return this.#state;
  }

  info(): LocalNodeInfo {
    const { nodeId, advertiseAddress, managers } = this.#state;
    const trouble = this.#trouble();
    return {
      NodeID: nodeId,
      NodeAddr: parseAddress(advertiseAddress).host,
      LocalNodeState: trouble ? "error" : "active",
      ControlAvailable: this.#identity.role === "manager" && !trouble,
      Error: trouble,
      RemoteManagers: managers.map((peer) => ({ NodeID: peer.nodeId, Addr: peer.address })),
    };
  }

  /** Why no manager will have this node any more; "" while one may. */
  #trouble(): string {
    const { manager, lastError = "" } = this.#agent.report();
    if (manager !== undefined) return "";
    if (removedText.test(lastError)) return `${lastError}; to join a swarm again, first leave this one`;
    const { notAfter } = readNodeCertificate(this.#identity.chain);
    return this.#options.clock.now() > notAfter ? certificatesExpired : "";
  }

  activeManager(): ActiveManager | undefined {
    return this.#manager?.active();
  }

  /** Whether this node's manager leads the swarm. */
  get leads(): boolean {
    return this.#manager?.leads ?? false;
  }

  /** Takes this manager out of the others' store before it leaves the swarm; limited, and only where it can be. */
  async leaveStore(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the node leaves"));
    const { clock, log } = this.#options;
    const { nodeId } = this.#state;
    const others = [...(this.#manager?.store.view.all("nodes") ?? [])].some((n) => n.ManagerStatus && n.ID !== nodeId);
    if (!this.#manager || !others) return;
    try {
      await within(clock, leaveLimitMs, this.#manager.leaveStore(), () => {
        throw new ShoalError("DeadlineExceeded", "the other managers did not answer in time");
      });
    } catch (error) {
      log.warn("this manager leaves without the others' knowledge", { error: messageOf(error) });
    }
  }

  loopReports(): LoopReport[] {
    return this.#manager?.loopReports() ?? [];
  }

  /** Ends all parts; tasks keep running. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the node stops"));
    await this.#agent.stop();
    await this.#turning;
    await this.#closeManager();
    this.#engine.close();
    await this.#saving;
    await this.#taskDatabase.close();
  }

  #heard({ managers }: SessionMessage): void {
    const known = managers.map(({ nodeId, address }) => ({ nodeId, address }));
    if (JSON.stringify(known) !== JSON.stringify(this.#state.managers)) {
      const state = { ...this.#state, managers: known };
      this.#state = state;
      this.#keep("the list of managers", () => this.#options.stateFile.save(state));
    }
    this.#sessionOpened();
  }

  #renewed(identity: NodeIdentity): void {
    const before = this.#identity.role;
    this.#identity = identity;
    this.#keep("the new certificate", () => this.#options.identityFiles.save(identity));
    if (identity.role === "manager") this.#manager?.setIdentity(identity);
    // Demoted and promoted in one breath: the others have taken it out of the store, and it was never given a worker's
    // certificate that would have told it so.
    const isBack = identity.role === "manager" && this.#removed;
    if (identity.role === before && !isBack) return;
    this.#options.log.info("this node has another role now", { role: identity.role });
    this.#attempt.abort(new ShoalError("Canceled", "the node is to have another role"));
    this.#turn(() => (identity.role === "manager" ? this.#becomeManager() : this.#stopManaging()));
  }

  #turn(change: () => Promise<void>): void {
    this.#turning = this.#turning
      .then(change)
      .catch((error) => this.#options.log.error("changing the node's role failed", { error: messageOf(error) }));
  }

  async #startManaging(signal = this.#stopped.signal): Promise<void> {
    const { stateFile } = this.#options;
    this.#state = { ...this.#state, role: "manager" };
    this.#manager = await ManagerPart.start({
      ...this.#options,
      state: this.#state,
      identity: () => this.#identity,
      signal,
      saveStore: async (store) => {
        this.#state = { ...this.#state, store };
        await stateFile.save(this.#state);
      },
      onRemoved: () => {
        this.#removed = true;
        // Most often its role is about to be taken away; if it is not, it comes back.
        this.#turn(() => this.#closeManager());
        this.#turn(() => this.#becomeManager(removedPauseMs));
      },
    });
  }

  /** A manager among others, which may take long where they are not there: the agent and the API don't wait for it. */
  async #resumeManaging(): Promise<void> {
    this.#turn(() => this.#becomeManager());
    await within(this.#options.clock, resumeLimitMs, this.#turning, () => undefined);
  }

  /** The node is to be a manager: tries until it is a manager, or is no longer to be one. */
  async #becomeManager(pauseMs = 0): Promise<void> {
    const { clock, random, log } = this.#options;
    this.#attempt = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, this.#attempt.signal]);
    const backoff = new Backoff(promotionRetry, random);
    await pause(clock, pauseMs, signal);
    while (!signal.aborted && this.#identity.role === "manager" && !this.#manager) {
      try {
        if (this.#removed) this.#state = withoutStore(this.#state); // if it is still to be one, it enters anew
        this.#removed = false;
        await this.#startManaging(signal);
      } catch (error) {
        log.error("this node cannot become a manager yet", { error: messageOf(error) });
        await pause(clock, backoff.nextMs(), signal);
      }
    }
  }

  async #closeManager(): Promise<void> {
    const manager = this.#manager;
    this.#manager = undefined;
    await manager?.stop();
  }

  /** The node was demoted: nothing of the store stays on its disk. */
  async #stopManaging(): Promise<void> {
    const { keys, stateFile } = this.#options;
    await this.#closeManager();
    await removeStore(this.#options);
    await keys.setDataKey(undefined);
    await keys.protect(undefined);
    this.#removed = false;
    this.#state = { ...withoutStore(this.#state), role: "worker" };
    await stateFile.save(this.#state);
  }

  #keep(what: string, save: () => Promise<void>): void {
    this.#saving = this.#saving
      .then(save)
      .catch((error) => this.#options.log.error(`${what} was not saved`, { error: messageOf(error) }));
  }
}

function withoutStore({ store: _, ...rest }: NodeState): NodeState {
  return rest;
}
