/**
 * The node protocol without its bytes: an agent's connection calls the manager's services over the simulated wire. It
 * keeps the real one's promises: each call is authorized, a failed connection ends all its calls with Unavailable,
 * what the caller gives up is Canceled, and only codes and texts of errors travel.
 */
import { isShoalError, messageOf, ShoalError } from "../../src/lib/errors.ts";
import { AsyncQueue } from "../../src/lib/queue.ts";
import type {
  Caller,
  ManagerConnection,
  ManagerDialer,
  ManagerServices,
  NodeIdentity,
  SignsOfLife,
} from "../../src/rpc/services.ts";
import { type Flow, type Network, newFlow } from "./network.ts";
import type { Life } from "./timeline.ts";

/** A manager that listens: its services, and the process that they live in. */
export interface Listener {
  readonly host: string;
  readonly life: Life;
  readonly services: ManagerServices;
  /** For the other managers: for how long they have been in service. */
  ping(): number;
  withdrawTasks(taskIds: readonly string[], holdMs: number): Promise<void>;
  /** Connections that are open, as the manager sees them. */
  readonly connections: Set<SimulatedConnection>;
}

export interface Wire {
  readonly network: Network;
  /** Who listens at the address now. */
  listener(address: string): Listener | undefined;
  /** The host that has the address, whether anybody listens or not. */
  hostOf(address: string): string;
  /** Ends the process that has broken a promise of the protocol. */
  fault(error: unknown): void;
}

const backlog = 10_000;

interface Call {
  /** Ends it for the caller. */
  fail(error: unknown): void;
  /** The manager's side of it. */
  readonly remote: AbortController;
}

/** @param host where the agent is, @param life its process */
export function simulatedDialer(wire: Wire, host: string, life: Life): ManagerDialer {
  return { dial: (address, identity) => new SimulatedConnection(wire, host, life, address, identity) };
}

export class SimulatedConnection implements ManagerConnection {
  readonly address: string;
  readonly nodeId: string;
  readonly #wire: Wire;
  readonly #host: string;
  readonly #peer: string;
  readonly #life: Life;
  readonly #caller: Caller;
  /** As the manager sees it. */
  readonly #closedRemotely = new AbortController();
  readonly #calls = new Set<Call>();
  readonly #unwatch: (() => void)[] = [];
  #listener: Listener | undefined;
  /** The manager's host has answered. */
  #accepted = false;
  /** Pings that the manager has sent; and those that have come for sure: what is sent later never comes before them. */
  #pingsSent = 0;
  #pings = 0;
  /** What has reached the agent's host, in no unit. */
  #read = 0;
  /** What has reached the manager's host: calls and answers to pings, in no unit. */
  #received = 0;
  #closed: ShoalError | undefined;

  constructor(wire: Wire, host: string, life: Life, address: string, identity: NodeIdentity) {
    this.address = address;
    this.nodeId = identity.nodeId;
    this.#wire = wire;
    this.#host = host;
    this.#life = life;
    this.#peer = wire.hostOf(address);
    const { nodeId, role, clusterId, chain } = identity;
    this.#caller = {
      nodeId,
      role,
      clusterId,
      certificate: chain,
      address: `10.0.0.${host.replace(/\D/g, "")}`,
      connection: {
        closed: this.#closedRemotely.signal,
        bytesRead: () => this.#received,
        ping: (answered) => this.#ping(answered),
      },
    };
    this.#unwatch.push(life.onEnd(() => this.#localEnd()));
    wire.network.roundTrip(host, this.#peer, () => {
      if (wire.listener(address)) this.#accepted = true;
      else this.#end("connection refused");
    });
  }

  signs(): SignsOfLife {
    return { accepted: this.#accepted, bytesRead: this.#read, pings: this.#pings > 0 };
  }

  session: ManagerConnection["session"] = (request, signal) =>
    this.#stream(signal, ({ dispatcher }, remote) => dispatcher.session(this.#caller, request, remote));

  heartbeat: ManagerConnection["heartbeat"] = (sessionId, signal) =>
    this.#call(signal, ({ dispatcher }) => dispatcher.heartbeat(this.#caller, sessionId));

  updateTaskStatus: ManagerConnection["updateTaskStatus"] = (sessionId, updates, signal) =>
    this.#call(signal, ({ dispatcher }) => dispatcher.updateTaskStatus(this.#caller, sessionId, updates));

  assignments: ManagerConnection["assignments"] = (sessionId, signal) =>
    this.#stream(signal, ({ dispatcher }, remote) => dispatcher.assignments(this.#caller, sessionId, remote));

  listenSubscriptions: ManagerConnection["listenSubscriptions"] = (signal) =>
    this.#stream(signal, ({ logBroker }, remote) => logBroker.listenSubscriptions(this.#caller, remote));

  publishLogs: ManagerConnection["publishLogs"] = (id, messages, signal) =>
    this.#call(signal, ({ logBroker }) => logBroker.publishLogs(this.#caller, id, messages));

  networks: ManagerConnection["networks"] = (sessionId, dataPath, signal) =>
    this.#stream(signal, ({ networks }, remote) => networks.networks(this.#caller, sessionId, dataPath, remote));

  applied: ManagerConnection["applied"] = (sessionId, revision, signal) =>
    this.#call(signal, ({ networks }) => networks.applied(this.#caller, sessionId, revision));

  withdraw: ManagerConnection["withdraw"] = (sessionId, taskIds, signal) =>
    this.#call(signal, ({ networks }, remote) => networks.withdraw(this.#caller, sessionId, taskIds, remote));

  rest: ManagerConnection["rest"] = (sessionId, signal) =>
    this.#call(signal, ({ dispatcher }) => dispatcher.rest(this.#caller, sessionId));

  attach: ManagerConnection["attach"] = (request, signal) =>
    this.#call(signal, ({ networks }) => networks.attach(this.#caller, request));

  detach: ManagerConnection["detach"] = (taskId, signal) =>
    this.#call(signal, ({ networks }) => networks.detach(this.#caller, taskId));

  issue: ManagerConnection["issue"] = (request, signal) =>
    this.#call(signal, ({ ca }) => ca.issue(request, this.#caller));

  certificateStatus: ManagerConnection["certificateStatus"] = (nodeId, signal) =>
    this.#call(signal, ({ ca }, remote) => ca.status(nodeId, remote));

  /** By the agent: the manager learns of it when that reaches it. */
  close(): void {
    if (this.#closed) return;
    this.#localEnd();
    this.#end("the connection was closed");
  }

  /** By the manager, or by something on the way: both sides lose it. */
  disconnect(reason: string): void {
    for (const { remote } of this.#calls) remote.abort(new ShoalError("Canceled", "the connection was closed"));
    this.#listener?.connections.delete(this);
    this.#closedRemotely.abort();
    this.reset(reason);
  }

  /** The peer has gone, or wants no more: told when that reaches the agent. */
  reset(reason: string): void {
    this.#wire.network.whenReachable(this.#peer, this.#host, () => this.#life.enter(() => this.#end(reason)));
  }

  /** The other side is told that this one has gone. */
  #localEnd(): void {
    const listener = this.#listener;
    this.#listener = undefined;
    for (const unwatch of this.#unwatch) unwatch();
    if (!listener) return;
    const remotes = [...this.#calls].map(({ remote }) => remote);
    listener.connections.delete(this);
    this.#wire.network.whenReachable(this.#host, this.#peer, () => {
      listener.life.enter(() => {
        this.#closedRemotely.abort();
        for (const remote of remotes) remote.abort(new ShoalError("Canceled", "the connection was closed"));
      });
    });
  }

  /** By the manager: answered by the agent's host for as long as its process lives. */
  #ping(answered: () => void): void {
    const listener = this.#listener;
    const sent = ++this.#pingsSent;
    this.#wire.network.roundTrip(this.#peer, this.#host, () => {
      this.#life.enter(() => {
        if (this.#closed) return;
        this.#came(sent);
        this.#received++;
        listener?.life.enter(answered);
      });
    });
  }

  /** Something from the manager has come, and with it all pings that it had sent before. */
  #came(pingsBefore: number): void {
    this.#read++;
    this.#pings = Math.max(this.#pings, pingsBefore);
  }

  #end(reason: string): void {
    if (this.#closed) return;
    this.#closed = new ShoalError("Unavailable", `connection error: ${reason}`);
    for (const call of [...this.#calls]) call.fail(this.#closed);
  }

  /** The manager at the address, met at the first message; later ones only reach the same life of it. */
  #server(): Listener | undefined {
    this.#received++;
    if (!this.#listener) {
      const found = this.#wire.listener(this.address);
      if (!found) {
        this.reset("connection refused");
        return undefined;
      }
      this.#listener = found;
      found.connections.add(this);
      this.#unwatch.push(found.life.onEnd(() => this.reset("the manager closed the connection")));
    }
    if (this.#listener.life.alive) return this.#listener;
    this.reset("connection reset by peer");
    return undefined;
  }

  /** Keeps `fail` at hand until `end`: for the end of the connection, and of the caller's wish. */
  #begin(signal: AbortSignal, fail: (error: unknown) => void): Call & { end(): void } {
    const call: Call = { fail, remote: new AbortController() };
    const onAbort = () => {
      this.#forget(call);
      fail(isShoalError(signal.reason) ? signal.reason : new ShoalError("Canceled", "the call was canceled"));
    };
    const end = () => {
      signal.removeEventListener("abort", onAbort);
      this.#calls.delete(call);
    };
    if (this.#closed) fail(this.#closed);
    else if (signal.aborted) onAbort();
    else {
      signal.addEventListener("abort", onAbort);
      this.#calls.add(call);
    }
    return { ...call, end };
  }

  /** The caller wants no more of it: the manager's side is told. */
  #forget(call: Call): void {
    const listener = this.#listener;
    if (!listener) return;
    this.#wire.network.send(this.#host, this.#peer, newFlow(), () => {
      listener.life.enter(() => call.remote.abort(new ShoalError("Canceled", "the call was canceled")));
    });
  }

  #call<R>(signal: AbortSignal, run: (services: ManagerServices, remote: AbortSignal) => Promise<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      const call = this.#begin(signal, reject);
      const { network } = this.#wire;
      const flow = newFlow();
      network.send(this.#host, this.#peer, flow, () => {
        const server = this.#closed ? undefined : this.#server();
        if (!server) return;
        const answer = (settle: () => void) => {
          const pings = this.#pingsSent;
          network.send(this.#peer, this.#host, newFlow(), () => {
            this.#life.enter(() => {
              call.end();
              this.#came(pings);
              if (!this.#closed) settle();
            });
          });
        };
        server.life.enter(() => {
          void this.#serve(server, () => run(server.services, call.remote.signal)).then(
            (result) => answer(() => resolve(result)),
            (error) => answer(() => reject(this.#travelled(error))),
          );
        });
      });
    });
  }

  async *#stream<T>(
    signal: AbortSignal,
    run: (services: ManagerServices, remote: AbortSignal) => AsyncIterable<T>,
  ): AsyncGenerator<T, void, void> {
    const queue = new AsyncQueue<T>(backlog);
    const call = this.#begin(signal, (error) => queue.fail(error));
    const { network } = this.#wire;
    network.send(this.#host, this.#peer, newFlow(), () => {
      const server = this.#closed ? undefined : this.#server();
      server?.life.enter(() => void this.#pump(server, call, queue, run));
    });
    try {
      yield* queue;
    } finally {
      call.end();
      this.#forget(call);
    }
  }

  async #pump<T>(
    server: Listener,
    call: Call,
    queue: AsyncQueue<T>,
    run: (services: ManagerServices, remote: AbortSignal) => AsyncIterable<T>,
  ): Promise<void> {
    const { network } = this.#wire;
    const flow: Flow = newFlow();
    const tell = (deliver: () => void) => {
      const pings = this.#pingsSent;
      network.send(this.#peer, this.#host, flow, () => {
        this.#life.enter(() => {
          this.#came(pings);
          if (!this.#closed) deliver();
        });
      });
    };
    try {
      server.services.authorize(this.#caller);
      for await (const message of run(server.services, call.remote.signal)) tell(() => queue.push(message));
      tell(() => queue.close());
    } catch (error) {
      const travelled = this.#travelled(error);
      tell(() => queue.fail(travelled));
    }
  }

  async #serve<R>(server: Listener, run: () => Promise<R>): Promise<R> {
    server.services.authorize(this.#caller);
    return run();
  }

  /** What the caller sees of a failure: a code and a text. Anything but a ShoalError is a bug. */
  #travelled(error: unknown): ShoalError {
    if (isShoalError(error)) return new ShoalError(error.code, error.message);
    this.#wire.fault(error);
    return new ShoalError("Internal", messageOf(error));
  }
}
