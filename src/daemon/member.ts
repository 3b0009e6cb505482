/**
 * A node's part in its swarm, running: the manager with its store and its RPC server, and the agent, which knows the
 * manager only by its address, as it would any other.
 */
import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import { DockerExecutor } from "../agent/executor/docker.ts";
import { openTaskDatabase, type TaskDatabase } from "../agent/task-database.ts";
import type { ActiveManager, LocalNodeInfo } from "../api/context.ts";
import { tlsInfoOf } from "../api/tls-info.ts";
import { renewalTime } from "../ca/chain.ts";
import type { IdentityFiles } from "../ca/identity-files.ts";
import { renewIdentity } from "../ca/join.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Engine } from "../engine/engine.ts";
import { type Clock, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { watchRemovedNodes } from "../manager/certificates/removed.ts";
import { Manager } from "../manager/manager.ts";
import { managerDialer } from "../rpc/client.ts";
import { createRpcServer, type RpcServer } from "../rpc/server.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import type { Store } from "../store/store.ts";
import { parseAddress } from "./address.ts";
import { openStore } from "./open-store.ts";
import type { NodeState } from "./state-file.ts";

export interface MemberOptions {
  readonly dataDirectory: string;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  readonly identityFiles: IdentityFiles;
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

export class Member {
  readonly #options: MemberOptions;
  readonly #state: NodeState;
  readonly #store: Store;
  readonly #manager: Manager;
  readonly #server: RpcServer;
  readonly #engine: Engine;
  readonly #taskDatabase: TaskDatabase;
  readonly #agent: Agent;
  readonly #unwatch: () => void;
  #identity: NodeIdentity;
  /** Certificates are written one after the other. */
  #saving: Promise<void> = Promise.resolve();

  private constructor(options: MemberOptions, state: NodeState, identity: NodeIdentity, store: Store) {
    const { clock, random, log } = options;
    this.#options = options;
    this.#state = state;
    this.#store = store;
    this.#identity = identity;
    const self = { nodeId: state.nodeId, address: state.advertiseAddress, weight: 1 };
    this.#manager = new Manager({ nodeId: state.nodeId, store, clock, random, log, peers: () => [self] });
    this.#server = createRpcServer({ services: this.#manager.services, identity, log });
    this.#unwatch = watchRemovedNodes(store, (nodeId) => this.#server.disconnect(nodeId));
    this.#engine = dockerEngine(options.engineSocket);
    this.#taskDatabase = openTaskDatabase(tasksDirectory(options.dataDirectory));
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
        tlsInfo: ({ rootCA }) => tlsInfoOf(rootCA),
        renewAt: ({ chain }) => renewalTime(chain, random),
        renew: (connection, current, signal) => renewIdentity({ connection, identity: current, clock, random, signal }),
      },
      clock,
      random,
      log: log.child({ module: "agent" }),
      onIdentity: (renewed) => this.#keep(renewed),
    });
  }

  /** Opens the store, listens, and starts all parts. What it has opened is closed again when it fails. */
  static async start(options: MemberOptions, state: NodeState, identity: NodeIdentity): Promise<Member> {
    const store = await openStore(options.dataDirectory, options.clock, options.random);
    const member = new Member(options, state, identity, store);
    try {
      await member.#manager.start();
      const { host, port } = parseAddress(state.listenAddress);
      await member.#server.listen(host, port);
      member.#agent.start();
      return member;
    } catch (error) {
      await member.stop();
      throw new ShoalError("FailedPrecondition", `failed to listen on ${state.listenAddress}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Resolves when the managers see this node Ready; Unavailable with the reason when it isn't within the limit. */
  async ready(limitMs: number): Promise<void> {
    const isReady = () => this.#store.view.get("nodes", this.#state.nodeId)?.Status.State === "ready";
    if (isReady()) return;
    let unwatch = () => {};
    const becameReady = new Promise<void>((resolve) => {
      unwatch = this.#store.watch(() => isReady() && resolve());
    });
    try {
      await within(this.#options.clock, limitMs, becameReady, () => {
        const reason = this.#agent.report().lastError ?? "no answer from the Docker Engine";
        throw new ShoalError("Unavailable", `the node did not become ready: ${reason}`);
      });
    } finally {
      unwatch();
    }
  }

  info(): LocalNodeInfo {
    const { nodeId, advertiseAddress, managers } = this.#state;
    return {
      NodeID: nodeId,
      NodeAddr: parseAddress(advertiseAddress).host,
      LocalNodeState: "active",
      ControlAvailable: true,
      Error: "",
      RemoteManagers: managers.map((peer) => ({ NodeID: peer.nodeId, Addr: peer.address })),
    };
  }

  activeManager(): ActiveManager {
    return {
      nodeId: this.#state.nodeId,
      store: this.#store,
      logs: (selector, options, signal) => this.#manager.logBroker.logs(selector, options, signal),
    };
  }

  loopReports(): LoopReport[] {
    return this.#manager.reports();
  }

  /** Ends all parts, the port first; tasks keep running. */
  async stop(): Promise<void> {
    this.#unwatch();
    await this.#server.close();
    await this.#agent.stop();
    this.#engine.close();
    await this.#manager.stop();
    await this.#saving;
    await this.#taskDatabase.close();
    await this.#store.close();
  }

  #keep(identity: NodeIdentity): void {
    this.#identity = identity;
    this.#server.setIdentity(identity);
    this.#saving = this.#saving
      .then(() => this.#options.identityFiles.save(this.#identity))
      .catch((error) => this.#options.log.error("the new certificate was not saved", { error: messageOf(error) }));
  }
}
