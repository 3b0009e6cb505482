/**
 * What managers and agents say to each other, in the model's words. `rpc/server.ts` serves these interfaces and
 * `rpc/client.ts` calls them, both over swarmkit's gRPC messages; nothing outside `rpc/` sees the wire form.
 * Failures are ShoalErrors with the gRPC code, in both directions.
 */
import type { DataPath, NetworksMessage } from "../model/network-state.ts";
import type {
  AssignedTask,
  Config,
  IssuanceState,
  Node,
  NodeAvailability,
  NodeDescription,
  NodeRole,
  Secret,
  TaskStatus,
} from "../model/types.ts";

/** Who calls, as its certificate says; absent where a call without a client certificate is allowed. */
export interface Caller {
  readonly nodeId: string;
  readonly role: NodeRole;
  /** The certificate's O. */
  readonly clusterId: string;
  /** Peer address without the port. */
  readonly address: string;
  /** PEM of the leaf that the caller showed. */
  readonly certificate: string;
  /** What it calls over; absent where nothing is known of that. */
  readonly connection?: CallerConnection;
}

/** The connection beneath a node's calls. */
export interface CallerConnection {
  /** Aborted once the connection has closed, from either side. */
  readonly closed: AbortSignal;
  /** Bytes that have come from the node so far: any of them is a sign of life. Absent where they are not counted. */
  bytesRead?(): number;
  /** Asks the node's side of the connection for a sign of life. Never answered if the connection fails before. */
  ping(onAnswer: () => void): void;
}

// --- docker.swarmkit.v1.CA and NodeCA ---

export interface IssueRequest {
  /** PEM of the PKCS #10 request; only its public key is used. */
  readonly csr: string;
  /** Join token; empty on renewal. */
  readonly token: string;
  readonly availability: NodeAvailability;
}

export interface CertificateStatus {
  readonly state: IssuanceState;
  readonly role: NodeRole;
  readonly csr: string;
  /** PEM chain, leaf first; "" until issued. */
  readonly certificate: string;
  readonly error?: string;
}

export interface CertificateAuthorityService {
  /** The cluster's root bundle, PEM: exactly the bytes that the join token's digest is of. */
  rootCertificate(): Promise<string>;
  /** Asks for a certificate; `caller` is absent when a node joins (then the token decides the role). */
  issue(request: IssueRequest, caller: Caller | undefined): Promise<{ readonly nodeId: string }>;
  /** Waits until the certificate is issued (or refused), or the signal aborts. */
  status(nodeId: string, signal: AbortSignal): Promise<CertificateStatus>;
}

// --- docker.swarmkit.v1.Dispatcher ---

export interface WeightedPeer {
  readonly nodeId: string;
  /** host:port of its 2377. */
  readonly address: string;
  readonly weight: number;
}

export interface SessionMessage {
  readonly sessionId: string;
  readonly node: Node;
  /** All managers; the agent keeps exactly these. Never empty. */
  readonly managers: readonly WeightedPeer[];
  /** PEM bundle. */
  readonly rootCA: string;
}

/** In any order; a message has what its tasks need. */
export type AssignmentChange =
  | { readonly kind: "update-task"; readonly task: AssignedTask }
  | { readonly kind: "remove-task"; readonly id: string }
  /** With what is in it: for this node alone, and not for its disk. */
  | { readonly kind: "update-secret"; readonly secret: Secret }
  | { readonly kind: "remove-secret"; readonly id: string }
  | { readonly kind: "update-config"; readonly config: Config }
  | { readonly kind: "remove-config"; readonly id: string };

export interface AssignmentsMessage {
  /** `complete`: whatever is not in it must go. */
  readonly type: "complete" | "incremental";
  readonly appliesTo: string;
  readonly resultsIn: string;
  readonly changes: readonly AssignmentChange[];
}

export interface TaskStatusUpdate {
  readonly taskId: string;
  readonly status: TaskStatus;
}

export interface DispatcherService {
  /** Registers the node; the stream carries the first message at once, and a full one at each change. */
  session(
    caller: Caller,
    request: { readonly description: NodeDescription; readonly sessionId: string },
    signal: AbortSignal,
  ): AsyncIterable<SessionMessage>;
  heartbeat(caller: Caller, sessionId: string): Promise<{ readonly periodMs: number }>;
  /**
   * The node's agent stops in order, and its tasks go on: that its connection closes now is no sign of its death, only
   * that its heartbeats are missing.
   */
  rest(caller: Caller, sessionId: string): Promise<void>;
  updateTaskStatus(caller: Caller, sessionId: string, updates: readonly TaskStatusUpdate[]): Promise<void>;
  assignments(caller: Caller, sessionId: string, signal: AbortSignal): AsyncIterable<AssignmentsMessage>;
}

// --- docker.swarmkit.v1.LogBroker ---

export type LogStream = "stdout" | "stderr";

export interface LogOptions {
  readonly streams: readonly LogStream[];
  readonly follow: boolean;
  /** Lines from the end; undefined is all. (The wire has its own coding of this.) */
  readonly tail: number | undefined;
  /** RFC 3339 with nanoseconds; "" is from the start. */
  readonly since: string;
}

export interface LogSubscription {
  readonly id: string;
  /** The subscription has ended: stop publishing. Then the rest is empty. */
  readonly close: boolean;
  readonly selector: {
    readonly serviceIds: readonly string[];
    readonly nodeIds: readonly string[];
    readonly taskIds: readonly string[];
  };
  readonly options: LogOptions;
}

export interface LogMessage {
  readonly context: { readonly serviceId: string; readonly nodeId: string; readonly taskId: string };
  /** RFC 3339 with nanoseconds, as the Engine gave it. */
  readonly timestamp: string;
  readonly stream: LogStream;
  readonly data: Uint8Array;
  /** `--details`: the log driver's extra attributes. */
  readonly attributes: Readonly<Record<string, string>>;
  /** Not a line: the task's log can't be read, and `data` says why. Without a meaning to stock managers, who skip it. */
  readonly unreadable?: true;
}

export interface LogBrokerService {
  listenSubscriptions(caller: Caller, signal: AbortSignal): AsyncIterable<LogSubscription>;
  /** One stream per node and subscription; resolves when the node has no more to say, or nobody listens. */
  publishLogs(caller: Caller, subscriptionId: string, messages: AsyncIterable<readonly LogMessage[]>): Promise<void>;
}

// --- shoal.v1.Networks: ours, beside swarmkit's; stock managers and nodes don't have it ---

export interface AttachRequest {
  /** Id or name. */
  readonly network: string;
  readonly containerId: string;
  readonly aliases: readonly string[];
  /** Without prefix; "" is any. */
  readonly address: string;
}

/** Calls of a node whose session is with this manager; NotFound for a session that it doesn't know. */
export interface NetworkStateService {
  /** The state of the networks that the node takes part in: a complete message first, then what changes. */
  networks(caller: Caller, sessionId: string, dataPath: DataPath, signal: AbortSignal): AsyncIterable<NetworksMessage>;
  /** The node's kernel is at that revision. */
  applied(caller: Caller, sessionId: string, revision: number): Promise<void>;
  /**
   * The node is about to stop these tasks of its own. Resolves when no node leads anybody to them any more, or when
   * that has taken too long (a node that is cut off is not waited for).
   */
  withdraw(caller: Caller, sessionId: string, taskIds: readonly string[], signal: AbortSignal): Promise<void>;
  /** Attaches a user's container on that node to an attachable network: makes a task, which comes by assignments. */
  attach(caller: Caller, request: AttachRequest): Promise<{ readonly taskId: string }>;
  /** Repeatable. */
  detach(caller: Caller, taskId: string): Promise<void>;
}

export interface ManagerServices {
  readonly ca: CertificateAuthorityService;
  readonly dispatcher: DispatcherService;
  readonly logBroker: LogBrokerService;
  readonly networks: NetworkStateService;
  /** Throws PermissionDenied unless the caller is a node of this cluster that has not been removed. */
  authorize(caller: Caller): void;
}

/** What a node can tell of a manager's machine and process beneath the calls. */
export interface SignsOfLife {
  /** The manager's machine has taken the connection; its process may not have looked at it yet. */
  readonly accepted: boolean;
  /** Bytes that have come from the manager so far: any of them is a sign of life. */
  readonly bytesRead: number;
  /** It pings as ours do: each second, the first time before the first message of a session. Swarm's don't. */
  readonly pings: boolean;
}

/** The agent's side of one connection to a manager. Every call carries the node's certificate. */
export interface ManagerConnection {
  readonly address: string;
  /** Now; absent where nothing is known beneath the calls. */
  signs?(): SignsOfLife;
  session(
    request: { readonly description: NodeDescription; readonly sessionId: string },
    signal: AbortSignal,
  ): AsyncIterable<SessionMessage>;
  heartbeat(sessionId: string, signal: AbortSignal): Promise<{ readonly periodMs: number }>;
  updateTaskStatus(sessionId: string, updates: readonly TaskStatusUpdate[], signal: AbortSignal): Promise<void>;
  assignments(sessionId: string, signal: AbortSignal): AsyncIterable<AssignmentsMessage>;
  listenSubscriptions(signal: AbortSignal): AsyncIterable<LogSubscription>;
  publishLogs(
    subscriptionId: string,
    messages: AsyncIterable<readonly LogMessage[]>,
    signal: AbortSignal,
  ): Promise<void>;
  /** As in `NetworkStateService`, which a stock manager has not: Unimplemented. */
  networks(sessionId: string, dataPath: DataPath, signal: AbortSignal): AsyncIterable<NetworksMessage>;
  applied(sessionId: string, revision: number, signal: AbortSignal): Promise<void>;
  withdraw(sessionId: string, taskIds: readonly string[], signal: AbortSignal): Promise<void>;
  /** As in `DispatcherService`; a stock manager has it not: Unimplemented. */
  rest(sessionId: string, signal: AbortSignal): Promise<void>;
  attach(request: AttachRequest, signal: AbortSignal): Promise<{ readonly taskId: string }>;
  detach(taskId: string, signal: AbortSignal): Promise<void>;
  issue(request: IssueRequest, signal: AbortSignal): Promise<{ readonly nodeId: string }>;
  certificateStatus(nodeId: string, signal: AbortSignal): Promise<CertificateStatus>;
  close(): void;
}

/** The node's identity on the wire, all PEM. `chain`: its certificate, leaf first. */
export interface NodeIdentity {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  readonly chain: string;
  readonly key: string;
  /** Root bundle that peers are verified against. */
  readonly rootCA: string;
}

/** Opens connections; handed to the agent, so that the simulation can hand in another. */
export interface ManagerDialer {
  dial(address: string, identity: NodeIdentity): ManagerConnection;
}

/** The calls of a manager that issue certificates; every `ManagerConnection` has them. */
export type CertificateClient = Pick<ManagerConnection, "issue" | "certificateStatus">;

/** What whoever answers at an address says of itself: to be checked before it is believed. PEM, both. */
export interface ManagerProof {
  readonly rootCertificate: string;
  /** What it has shown: its certificate, and those above it. */
  readonly chain: string;
}

/** A manager, seen by a node that has no certificate yet. */
export interface BootstrapClient {
  proof(address: string, signal: AbortSignal): Promise<ManagerProof>;
  /**
   * A connection without a certificate of our own, to a manager whose certificate is signed by one of those.
   * @param trusted PEM bundle
   */
  connect(address: string, trusted: string): CertificateClient & Pick<ManagerConnection, "close">;
}
