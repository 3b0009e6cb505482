/**
 * A node of the simulated swarm: its Engine and its disk, which last, and the daemon on it, one life after another: the
 * agent, and on managers the store, the manager and the API's routes. It puts the parts together as `daemon/` does.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent } from "../../src/agent/agent.ts";
import { Payloads } from "../../src/agent/payloads.ts";
import type { ApiContext, ApiRequest, LocalNode } from "../../src/api/context.ts";
import { errorAnswer } from "../../src/api/errors.ts";
import { nodeRoutes } from "../../src/api/nodes.ts";
import { Router } from "../../src/api/router.ts";
import { serviceRoutes } from "../../src/api/services.ts";
import { taskRoutes } from "../../src/api/tasks.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import type { Logger } from "../../src/lib/log.ts";
import { watchRemovedNodes } from "../../src/manager/certificates/removed.ts";
import { type Fellows, Manager } from "../../src/manager/manager.ts";
import type { NodeDescription } from "../../src/model/types.ts";
import type { NodeIdentity, WeightedPeer } from "../../src/rpc/services.ts";
import { RaftElection, type RaftLead } from "../../src/store/etcd/lead.ts";
import { type Election, takeLead } from "../../src/store/replica.ts";
import { Store } from "../../src/store/store.ts";
import { type Listener, type SimulatedConnection, simulatedDialer, type Wire } from "./connection.ts";
import { Dice } from "./dice.ts";
import { SimulatedTaskDatabase, type TaskDisk } from "./disk.ts";
import { type Container, type ContainerEvent, SimulatedEngine } from "./engine.ts";
import { SimulatedExecutor } from "./executor.ts";
import { SimulatedKernel, SimulatedPlane } from "./plane.ts";
import type { SharedStore, SimulatedBackend } from "./shared-store.ts";
import { Life, type Timeline } from "./timeline.ts";

export interface NodeOptions {
  readonly name: string;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly isManager: boolean;
  readonly seed: number;
  readonly timeline: Timeline;
  readonly wire: Wire;
  readonly shared: SharedStore;
  /** Addresses of the managers that it was joined with. */
  readonly managers: readonly string[];
  readonly skewMs: number;
  readonly description: NodeDescription;
  readonly log: Logger;
  readonly onContainer: (container: Container, event: ContainerEvent) => void;
}

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: JSON of all kinds
  readonly body: any;
}

interface Part {
  readonly life: Life;
  readonly agent: Agent;
  readonly payloads: Payloads;
  manager?: ManagerPart;
}

interface ManagerPart {
  readonly backend: SimulatedBackend;
  readonly store: Store;
  readonly election: Election;
  readonly manager: Manager;
  readonly listener: Listener;
  readonly context: ApiContext;
  readonly router: Router;
}

const port = 2377;
/** As `store/etcd/watchdog.ts`; and until the member is there again. */
const watchdogMs = 5_000;
const memberStartMs = 500;

export function addressOf(name: string): string {
  return `${name}:${port}`;
}

export class SimulatedNode {
  readonly options: NodeOptions;
  readonly engine: SimulatedEngine;
  readonly kernel = new SimulatedKernel();
  readonly #dice: Dice;
  readonly #planeDice: Dice;
  readonly #taskDisk: TaskDisk = new Map();
  #managers: readonly string[];
  #part: Part | undefined;
  /** Its member of the shared store was ended, since the process stood still for too long. */
  #memberEnded = false;

  constructor(options: NodeOptions) {
    const { name, nodeId, seed, timeline, description, onContainer } = options;
    this.options = options;
    this.#dice = new Dice(seed, name);
    this.#planeDice = new Dice(seed, `${name} plane`);
    this.#managers = options.managers;
    const dice = new Dice(seed, `${name} engine`);
    this.engine = new SimulatedEngine({ host: name, nodeId, timeline, dice, description, onEvent: onContainer });
  }

  get name(): string {
    return this.options.name;
  }

  get nodeId(): string {
    return this.options.nodeId;
  }

  get isAlive(): boolean {
    return this.#part !== undefined;
  }

  /** Its member of the shared store runs. */
  get hasMember(): boolean {
    return this.isAlive && !this.#memberEnded;
  }

  /** Undefined while it is not up. */
  get listener(): Listener | undefined {
    return this.#part?.manager?.listener;
  }

  get store(): Store | undefined {
    return this.#part?.manager?.store;
  }

  get backend(): SimulatedBackend | undefined {
    return this.#part?.manager?.backend;
  }

  get leads(): boolean {
    return this.#part?.manager?.election.fence !== undefined;
  }

  get manager(): Manager | undefined {
    return this.#part?.manager?.manager;
  }

  get agent(): Agent | undefined {
    return this.#part?.agent;
  }

  /** The secrets and configs that it has; undefined while it is down. */
  get payloads(): Payloads | undefined {
    return this.#part?.payloads;
  }

  /** Starts the daemon. */
  start(): void {
    if (this.#part) return;
    const { name, nodeId, clusterId, isManager, timeline, skewMs, wire, log, shared } = this.options;
    const life = new Life(timeline, skewMs);
    const { random } = this.#dice;
    const identity: NodeIdentity = {
      nodeId,
      clusterId,
      role: isManager ? "manager" : "worker",
      chain: "",
      key: "",
      rootCA: "root",
    };
    const plane = new SimulatedPlane(this.kernel, life, this.#planeDice, `192.168.0.${name.replace(/\D/g, "")}`);
    const payloads = new Payloads();
    const agent = new Agent({
      identity,
      dialer: simulatedDialer(wire, name, life),
      managers: this.#managers,
      executor: new SimulatedExecutor(this.engine, life, this.#dice, plane, payloads),
      payloads,
      plane,
      taskDatabase: new SimulatedTaskDatabase(this.#taskDisk, life),
      certificates: {
        tlsInfo: () => ({ TrustRoot: "root" }),
        renewAt: () => Number.MAX_SAFE_INTEGER / 2,
        renew: () => Promise.reject(new Error("nothing is renewed here")),
      },
      clock: life.clock,
      random,
      log,
      onSession: ({ managers }) => {
        this.#managers = managers.map(({ address }) => address);
      },
    });
    this.#part = { life, agent, payloads };
    shared.reconsider();
    if (!isManager) {
      agent.start();
      return;
    }
    void this.#startManager(this.#part).then(
      () => agent.start(),
      (error) => wire.fault(error),
    );
  }

  /** SIGKILL: whatever is under way is lost. The containers run on. */
  kill(): void {
    this.#part?.life.kill();
    this.#part = undefined;
    this.#memberEnded = false;
    this.options.shared.reconsider();
  }

  /** SIGSTOP; the answer is SIGCONT. Undefined where it is not running. */
  hang(): (() => void) | undefined {
    const { timeline, shared } = this.options;
    const part = this.#part;
    if (!part) return undefined;
    const setMember = (ended: boolean) => {
      if (this.#part !== part || !shared.isShared) return;
      this.#memberEnded = ended;
      shared.reconsider();
    };
    part.life.hang();
    const watchdog = timeline.after(watchdogMs, () => setMember(true));
    return () => {
      watchdog.cancel();
      part.life.goOn();
      timeline.after(memberStartMs, () => setMember(false));
    };
  }

  /** SIGTERM. */
  async stop(): Promise<void> {
    const part = this.#part;
    if (!part?.life.alive) return;
    const { manager } = part;
    if (manager) for (const connection of manager.listener.connections) connection.disconnect("the manager is closing");
    await part.agent.stop();
    await manager?.manager.stop();
    await manager?.election.stop();
    await manager?.store.close();
    if (this.#part === part) this.kill();
  }

  /** A request to the API's routes of this manager, as it is answered. Never resolves once the process has died. */
  async request(method: string, target: string, body?: unknown): Promise<Answer> {
    const life = this.#part?.life;
    if (life) await new Promise<void>((resolve) => life.enter(resolve));
    const part = this.#part?.manager;
    if (!part) return { status: 503, body: { message: "This node is not a swarm manager." } };
    const match = part.router.match(method, target);
    if (!match) throw new Error(`no route for ${method} ${target}`);
    const request: ApiRequest = {
      method,
      params: match.params,
      query: match.query,
      apiVersion: [1, 51],
      headers: {},
      body: async () => JSON.parse(JSON.stringify(body ?? null)),
      signal: new AbortController().signal,
      raw: { request: {} as IncomingMessage, response: {} as ServerResponse },
    };
    try {
      const answer = await match.route.handle(request);
      if (answer.kind === "json") return { status: answer.status, body: JSON.parse(JSON.stringify(answer.body)) };
      return { status: answer.kind === "empty" ? answer.status : 200, body: undefined };
    } catch (error) {
      const { status, message, unexpected } = errorAnswer(error);
      if (unexpected) this.options.wire.fault(error);
      return { status, body: { message } };
    }
  }

  async #startManager(part: Part): Promise<void> {
    const { name, nodeId, shared, log, wire } = this.options;
    const { life } = part;
    const { random } = this.#dice;
    const backend = shared.backend(name, life);
    const store = await Store.open(backend, life.clock);
    backend.view = store.view;
    const election = shared.isShared
      ? await RaftElection.start({ store, nodeId, raft: this.#raft(), clock: life.clock, log })
      : await aloneElection(store, nodeId);
    const peers = () => managersIn(store, { nodeId, address: addressOf(name), weight: 1 });
    const manager = new Manager({
      nodeId,
      store,
      election,
      clock: life.clock,
      random,
      log,
      peers,
      ...(shared.isShared && { fellows: this.#fellows(life) }),
    });
    await manager.start();
    const connections = new Set<SimulatedConnection>();
    watchRemovedNodes(store, (removed) => {
      for (const connection of connections) {
        if (connection.nodeId === removed) connection.disconnect("the node was removed");
      }
    });
    const context = this.#context(store, life);
    const router = new Router([...serviceRoutes(context), ...nodeRoutes(context), ...taskRoutes(context)]);
    const withdrawTasks: Listener["withdrawTasks"] = (...asked) => manager.networks.withdrawTasks(...asked);
    const ping = () => manager.inServiceMs;
    const listener = { host: name, life, services: manager.services, connections, ping, withdrawTasks };
    part.manager = { backend, store, election, manager, listener, context, router };
    wire.network.whenReachable(name, name, () => shared.reconsider());
  }

  /** What the manager asks its own member of the shared store. */
  #raft(): RaftLead {
    const { name, shared } = this.options;
    return {
      leads: async () => shared.takesItselfForLeader(name),
      moveLead: async () => {
        shared.depose();
        return true;
      },
    };
  }

  /** The other managers, as far as they are looked for, and asked to withdraw tasks. */
  #fellows(life: Life): Fellows {
    const { name, wire } = this.options;
    /** A question that the manager at the address answers, if there is one. */
    const ask = <T>(address: string, answer: (fellow: Listener) => Promise<T>) =>
      new Promise<T>((resolve, reject) => {
        wire.network.roundTrip(name, wire.hostOf(address), () => {
          const fellow = wire.listener(address);
          const refused = () => reject(new ShoalError("Unavailable", "connection refused"));
          if (!fellow) life.enter(refused);
          else
            fellow.life.enter(
              () =>
                void answer(fellow).then(
                  (value) => life.enter(() => resolve(value)),
                  () => life.enter(refused),
                ),
            );
        });
      });
    return {
      admits: refuse,
      removeReplica: refuse,
      logsOf: () => {
        throw new Error("not part of the simulation");
      },
      connect: (address) => ({
        ping: () => ask(address, async (fellow) => fellow.ping()),
        withdrawTasks: (taskIds, holdMs) => ask(address, (fellow) => fellow.withdrawTasks(taskIds, holdMs)),
        close() {},
      }),
    };
  }

  #context(store: Store, life: Life): ApiContext {
    const { nodeId, log } = this.options;
    const node: LocalNode = {
      info: () => ({ NodeID: nodeId, LocalNodeState: "active", ControlAvailable: true }),
      manager: () => ({
        nodeId,
        store,
        sealed: async () => {},
        isReachable: () => true,
        watchReachability: () => () => {},
        logs: () => {
          throw new Error("not part of the simulation");
        },
      }),
      attachments: () => undefined,
      auditNetworks: refuse,
      init: refuse,
      join: refuse,
      unlock: refuse,
      leave: refuse,
    };
    return { node, engineSocket: "/nonexistent", clock: life.clock, random: this.#dice.random, log };
  }
}

function refuse(): Promise<never> {
  return Promise.reject(new Error("not part of the simulation"));
}

/** As the one of `SingleReplica`. */
async function aloneElection(store: Store, nodeId: string): Promise<Election> {
  const fence = await takeLead(store, nodeId);
  return { fence, watch: () => () => {}, resign: async () => {}, stop: async () => {} };
}

/** The managers that agents are to know: all that the store has, this one always. */
function managersIn(store: Store, self: WeightedPeer): WeightedPeer[] {
  const peers = [self];
  for (const node of store.view.all("nodes")) {
    if (node.ID === self.nodeId || !node.ManagerStatus?.Addr) continue;
    peers.push({ nodeId: node.ID, address: node.ManagerStatus.Addr, weight: 1 });
  }
  return peers.sort((left, right) => (left.nodeId < right.nodeId ? -1 : 1));
}
