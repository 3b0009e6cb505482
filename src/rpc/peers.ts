/**
 * What managers of one cluster say to each other (shoal.v1, on the same port as the node protocol), in the model's
 * words. A manager is called by its address and believed by its certificate, as everywhere; the one that is called
 * lets nobody but managers of its cluster in.
 */
import { type Client, createClient } from "@connectrpc/connect";
import type { ReplicaTicket } from "../store/replica.ts";
import { Connection } from "./connection.ts";
import { logMessageFromWire, subscriptionToWire } from "./convert-session.ts";
import { Managers } from "./gen/shoal_pb.js";
import type { Caller, LogMessage, LogOptions, NodeIdentity } from "./services.ts";

export interface JoinStoreRequest {
  /** host:port at which the caller serves nodes and managers. */
  readonly address: string;
  /** host:port at which other replicas reach the caller's. */
  readonly peerAddress: string;
}

export interface TaskSelector {
  readonly serviceIds: readonly string[];
  readonly taskIds: readonly string[];
}

export interface LogsRequest {
  readonly selector: TaskSelector;
  readonly nodeIds: readonly string[];
  readonly options: LogOptions;
  /** Absent when nothing has been asked of these nodes before. */
  readonly resume?: LogsResume;
}

/** How far the reader of logs has come with what it was told in another way. */
export interface LogsResume {
  /** RFC 3339: what was written later is wanted in any case. */
  readonly askedAt: string;
  /** Task id to the time (RFC 3339 with nanoseconds) of the last line that it has. */
  readonly positions: ReadonlyMap<string, string>;
}

/** What a manager needs to take part in the managers' store. */
export interface StoreTicket extends ReplicaTicket {
  /** With which its keys are to be sealed before any of this is on its disk; undefined while autolock is off. */
  readonly unlockKey: string | undefined;
}

/** What a manager offers to the others. */
export interface PeerService {
  /** Lets the caller into the store. FailedPrecondition where it can't be shared (no etcd), or the caller is none. */
  joinStore(caller: Caller, request: JoinStoreRequest): Promise<StoreTicket>;
  /** Takes the caller out of it. @param forget out of the swarm too */
  leaveStore(caller: Caller, forget: boolean): Promise<void>;
  /** For how long the managers have been in service, as far as this one knows, in milliseconds. */
  ping(): number;
  /** Lines of tasks on those of the nodes that have their session with this manager. */
  logs(request: LogsRequest, signal: AbortSignal): AsyncIterable<LogMessage>;
  /**
   * Nodes that have their session with this manager lead nobody to these tasks any more, for `holdMs` at most; resolves
   * when they do so, or when that has taken too long.
   */
  withdrawTasks(taskIds: readonly string[], holdMs: number): Promise<void>;
}

/** The other side: one connection to a manager. */
export class PeerConnection {
  readonly #connection: Connection;
  readonly #client: Client<typeof Managers>;

  /** @param address host:port */
  constructor(address: string, { chain, key, rootCA }: NodeIdentity) {
    const tls = { cert: chain, key, ca: rootCA };
    this.#connection = new Connection({ address, serverName: "swarm-manager", tls, verify: true });
    this.#client = createClient(Managers, this.#connection.transport);
  }

  async joinStore(request: JoinStoreRequest, signal: AbortSignal): Promise<StoreTicket> {
    const answer = await this.#connection.call(signal, (inner) => this.#client.joinStore(request, { signal: inner }));
    return {
      members: answer.members.map(({ nodeId, peerAddress, voter }) => ({ nodeId, peerAddress, voter })),
      dataKey: Buffer.from(answer.dataKey).toString("base64"),
      storeCA: { certificate: answer.caCertificate, key: answer.caKey },
      unlockKey: answer.unlockKey || undefined,
    };
  }

  async leaveStore(forget: boolean, signal: AbortSignal): Promise<void> {
    await this.#connection.call(signal, (inner) => this.#client.leaveStore({ forget }, { signal: inner }));
  }

  /** As `PeerService.ping`. */
  async ping(signal: AbortSignal): Promise<number> {
    const answer = await this.#connection.call(signal, (inner) => this.#client.ping({}, { signal: inner }));
    return Number(answer.inServiceMilliseconds);
  }

  logs({ selector, nodeIds, options, resume }: LogsRequest, signal: AbortSignal): AsyncIterable<LogMessage> {
    const subscription = { id: "", close: false, selector: { ...selector, nodeIds }, options };
    const wire = subscriptionToWire(subscription);
    const request = {
      selector: wire.selector,
      options: wire.options,
      ...(resume && { resume: { askedAt: resume.askedAt, positions: Object.fromEntries(resume.positions) } }),
    };
    return this.#connection.stream(
      signal,
      (inner) => this.#client.logs(request, { signal: inner }),
      ({ message }) => logMessageFromWire(message!),
    );
  }

  async withdrawTasks(taskIds: readonly string[], holdMs: number, signal: AbortSignal): Promise<void> {
    const wire = { taskIds: [...taskIds], holdMilliseconds: holdMs };
    await this.#connection.call(signal, (inner) => this.#client.withdrawTasks(wire, { signal: inner }));
  }

  close(): void {
    this.#connection.close();
  }
}
