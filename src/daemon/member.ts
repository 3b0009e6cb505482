/**
 * A node's part in its swarm, running: the agent, which knows managers only by their addresses, and on a manager the
 * manager's part beside it. What the agent learns (certificates, managers) is kept on the disk.
 */
import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import { DockerExecutor } from "../agent/executor/docker.ts";
import { openTaskDatabase, type TaskDatabase } from "../agent/task-database.ts";
import type { ActiveManager, LocalNodeInfo } from "../api/context.ts";
import { renewalTime } from "../ca/chain.ts";
import type { IdentityFiles } from "../ca/identity-files.ts";
import { renewIdentity } from "../ca/join.ts";
import { tlsInfoOfNode } from "../ca/tls-info.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Engine } from "../engine/engine.ts";
import { type Clock, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { managerDialer } from "../rpc/client.ts";
import type { NodeIdentity, SessionMessage } from "../rpc/services.ts";
import { parseAddress } from "./address.ts";
import type { NodeKeys } from "./data-key.ts";
import { ManagerPart } from "./manager-part.ts";
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

  /** Starts all parts. What it has opened is closed again when it fails. */
  static async start(options: MemberOptions, state: NodeState, identity: NodeIdentity): Promise<Member> {
    const member = new Member(options, state, identity);
    try {
      if (state.role === "manager") member.#manager = await ManagerPart.start(options, state, identity);
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
    const { manager, lastError = "" } = this.#agent.report();
    const removed = manager === undefined && removedText.test(lastError);
    return {
      NodeID: nodeId,
      NodeAddr: parseAddress(advertiseAddress).host,
      LocalNodeState: removed ? "error" : "active",
      ControlAvailable: this.#identity.role === "manager" && !removed,
      Error: removed ? `${lastError}; to join a swarm again, first leave this one` : "",
      RemoteManagers: managers.map((peer) => ({ NodeID: peer.nodeId, Addr: peer.address })),
    };
  }

  activeManager(): ActiveManager | undefined {
    return this.#manager?.active();
  }

  /** Whether this node's manager leads the swarm. */
  get leads(): boolean {
    return this.#manager?.leads ?? false;
  }

  loopReports(): LoopReport[] {
    return this.#manager?.loopReports() ?? [];
  }

  /** Ends all parts; tasks keep running. */
  async stop(): Promise<void> {
    await this.#agent.stop();
    const manager = this.#manager;
    this.#manager = undefined;
    await manager?.stop();
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
    this.#identity = identity;
    this.#manager?.setIdentity(identity);
    this.#keep("the new certificate", () => this.#options.identityFiles.save(identity));
  }

  #keep(what: string, save: () => Promise<void>): void {
    this.#saving = this.#saving
      .then(save)
      .catch((error) => this.#options.log.error(`${what} was not saved`, { error: messageOf(error) }));
  }
}
