/** What the API's resources are built from: the node that they act on, and the shape of a route. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ContainerAttachments } from "../agent/attachments.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { GenericResource, SwarmInfo, SwarmInitRequest, SwarmJoinRequest } from "../model/types.ts";
import type { LogMessage, LogOptions } from "../rpc/services.ts";
import type { Store } from "../store/store.ts";

/** This daemon as a member of a swarm (or not yet one). Implemented by `daemon/node.ts`. */
export interface LocalNode {
  /** The Swarm section of `/info` as far as this node knows it without asking the store (no Cluster, no counts). */
  info(): LocalNodeInfo;
  /** Present while this node is an active manager. */
  manager(): ActiveManager | undefined;
  /** For containers on networks of the swarm; undefined where this node takes part in none. */
  attachments(): ContainerAttachments | undefined;
  /** What of its networks is not as the managers have it, a line each; undefined where it is in no swarm. */
  auditNetworks(): Promise<readonly string[] | undefined>;
  /** Starts a new swarm; resolves to the node id when the node is Ready. Nothing stays behind when it fails. */
  init(request: SwarmInitRequest): Promise<string>;
  /**
   * Enters a swarm; resolves when a manager has taken the node in. Unavailable where that takes too long: then it goes
   * on (state `pending`). Nothing stays behind when it fails before that.
   */
  join(request: SwarmJoinRequest): Promise<void>;
  /**
   * Opens a locked manager's files and takes up its part in the swarm. Throws InvalidArgument for what is no key,
   * Unauthenticated for the key of another lock.
   */
  unlock(key: string): Promise<void>;
  /** Leaves; removes the node's task containers and all of its state. */
  leave(force: boolean): Promise<void>;
}

export type LocalNodeState = "inactive" | "pending" | "active" | "error" | "locked";

export type LocalNodeInfo = Pick<SwarmInfo, "NodeID" | "NodeAddr" | "ControlAvailable" | "Error" | "RemoteManagers"> & {
  readonly LocalNodeState: LocalNodeState;
};

export interface ActiveManager {
  readonly nodeId: string;
  readonly store: Store;
  /** Resolves when this manager's own files are sealed with the unlock key that the store has by now. */
  sealed(): Promise<void>;
  /** Whether another manager is there, as this one sees it; this one itself always is. */
  isReachable(nodeId: string): boolean;
  /** Tells of each change of what `isReachable` answers. Returns the way to stop. */
  watchReachability(listener: (nodeId: string, reachable: boolean) => void): () => void;
  /** Lines of the matching tasks from all nodes that have them; ends when all have said theirs, or on abort. */
  logs(selector: LogSelector, options: LogOptions, signal: AbortSignal): AsyncIterable<LogMessage>;
}

export interface LogSelector {
  readonly serviceIds: readonly string[];
  readonly taskIds: readonly string[];
}

export interface ApiContext {
  readonly node: LocalNode;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  /** What this daemon declares of its node beside what the Engine does. */
  readonly genericResources?: readonly GenericResource[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface ApiRequest {
  readonly method: string;
  /** Path parameters, decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** The version of the path (`/v1.41/...` -> [1, 41]); the newest that we speak where the path has none. */
  readonly apiVersion: readonly [number, number];
  readonly headers: IncomingMessage["headers"];
  /** The parsed JSON body; InvalidArgument where it is not JSON, or over the limit. */
  body(): Promise<unknown>;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
  /** For answers that stream or hijack. */
  readonly raw: { readonly request: IncomingMessage; readonly response: ServerResponse };
}

export type ApiAnswer =
  | { readonly kind: "json"; readonly status: number; readonly body: unknown }
  | { readonly kind: "empty"; readonly status: number }
  /** The handler has written (or is writing) the response itself. */
  | { readonly kind: "handled" };

export interface Route {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** Without the version, in find-my-way's form: `/services/:id`. */
  readonly path: string;
  /** The largest body that is read; by default `limits.specBodyBytes`. */
  readonly bodyBytes?: number;
  readonly handle: (request: ApiRequest) => Promise<ApiAnswer>;
}

export function json(status: number, body: unknown): ApiAnswer {
  return { kind: "json", status, body };
}
