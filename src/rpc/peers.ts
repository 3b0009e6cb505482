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

/** What a manager offers to the others. */
export interface PeerService {
  /** Lets the caller into the store. FailedPrecondition where it can't be shared (no etcd), or the caller is none. */
  joinStore(caller: Caller, request: JoinStoreRequest): Promise<ReplicaTicket>;
  /** Takes the caller out of it. @param forget out of the swarm too */
  leaveStore(caller: Caller, forget: boolean): Promise<void>;
  /** Lines of tasks on the nodes that have their session with this manager; nothing of others. */
  logs(selector: TaskSelector, options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage>;
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

  async joinStore(request: JoinStoreRequest, signal: AbortSignal): Promise<ReplicaTicket> {
    const answer = await this.#connection.call(signal, (inner) => this.#client.joinStore(request, { signal: inner }));
    return {
      members: answer.members.map(({ nodeId, peerAddress, voter }) => ({ nodeId, peerAddress, voter })),
      dataKey: Buffer.from(answer.dataKey).toString("base64"),
      storeCA: { certificate: answer.caCertificate, key: answer.caKey },
    };
  }

  async leaveStore(forget: boolean, signal: AbortSignal): Promise<void> {
    await this.#connection.call(signal, (inner) => this.#client.leaveStore({ forget }, { signal: inner }));
  }

  async ping(signal: AbortSignal): Promise<void> {
    await this.#connection.call(signal, (inner) => this.#client.ping({}, { signal: inner }));
  }

  logs(selector: TaskSelector, options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage> {
    const subscription = { id: "", close: false, selector: { ...selector, nodeIds: [] }, options };
    const wire = subscriptionToWire(subscription);
    return this.#connection.stream(
      signal,
      (inner) => this.#client.logs({ selector: wire.selector, options: wire.options }, { signal: inner }),
      ({ message }) => logMessageFromWire(message!),
    );
  }

  close(): void {
    this.#connection.close();
  }
}
