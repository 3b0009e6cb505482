/**
 * What Shoal asks of the node's own Docker Engine: just the calls that the executor needs, so that a test can hand in
 * a fake one. Shapes are the Engine API's. Failures are ShoalErrors whose message is the Engine's own text:
 *
 * - `Unavailable`: the Engine can't be reached (not running, restarting, the connection broke). Worth another try.
 * - `NotFound`, `AlreadyExists`, `InvalidArgument`, ...: the Engine's answer, by its status.
 * - `Internal`: the Engine tried and failed (its 500).
 * - `Canceled`: the caller's signal.
 */
import type {
  ContainerCreateRequest,
  ContainerInspectResponse,
  ContainerSummary,
  EndpointSettings,
  EventMessage,
  ImageInspect,
  NetworkCreateRequest,
  NetworkInspect,
  NetworkSummary,
  SystemInfo,
  SystemVersion,
} from "@docker/node-sdk";

/** The body of a create. */
export type ContainerCreateBody = ContainerCreateRequest;

/** One line of the stream that a pull answers with. */
export interface PullProgress {
  readonly status?: string;
  readonly id?: string;
}

export interface ContainerLogsOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Lines from the end; undefined is all. */
  readonly tail?: number;
  /** Unix seconds with a fraction of nanoseconds, as text; undefined is from the start. */
  readonly since?: string;
}

export interface EventsOptions {
  /** Unix seconds with a fraction of nanoseconds, as text: what came after it is sent first. */
  readonly since?: string;
  readonly filters: Readonly<Record<string, readonly string[]>>;
}

export interface Engine {
  /** @returns the new container's id. `AlreadyExists`: the name is taken; `NotFound`: the image is missing. */
  createContainer(name: string, body: ContainerCreateBody): Promise<string>;
  /** Resolves also when it runs already. */
  startContainer(id: string): Promise<void>;
  /**
   * TERM (or the container's stop signal), then KILL. Resolves when it has stopped, also when it had before.
   * @param graceSeconds whole seconds until KILL; undefined leaves it to the Engine (10 s)
   */
  stopContainer(id: string, graceSeconds: number | undefined): Promise<void>;
  /** Kills it when it runs (`force`), and removes its anonymous volumes too. */
  removeContainer(id: string): Promise<void>;
  /**
   * Connects a container, running or not. Repeatable before its start; `PermissionDenied` once it runs and is connected.
   * @param network the Engine's, by name or id
   */
  connectNetwork(network: string, containerId: string, endpoint: EndpointSettings): Promise<void>;
  /** Disconnects a container, running or not. `NotFound`: either is gone. */
  disconnectNetwork(network: string, containerId: string): Promise<void>;
  inspectContainer(idOrName: string): Promise<ContainerInspectResponse>;
  /** Containers in any state that carry all of `labels` (each `key` or `key=value`). */
  listContainers(labels: readonly string[]): Promise<readonly ContainerSummary[]>;
  /**
   * Pulls; the iteration ends when the image is there and throws when the pull failed.
   * @param registryAuth X-Registry-Auth as the client made it
   */
  pullImage(reference: string, registryAuth: string | undefined, signal: AbortSignal): AsyncIterable<PullProgress>;
  /** `NotFound` when there is none: "No such image: x". */
  inspectImage(reference: string): Promise<ImageInspect>;
  /**
   * The container's log with a timestamp before each line and its attributes (`timestamps`, `details`): framed, or
   * raw when the container has a TTY. Ends with the log, or (`follow`) when the container stops.
   */
  containerLogs(id: string, options: ContainerLogsOptions, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /**
   * Events; resolves when the Engine has accepted the subscription, so that what happens after it can't be missed.
   */
  events(options: EventsOptions, signal: AbortSignal): Promise<AsyncIterable<EventMessage>>;
  /** @returns the new network's id. `AlreadyExists`: the name is taken. */
  createNetwork(body: NetworkCreateRequest): Promise<string>;
  /** The Engine's own networks that carry all of `labels` (each `key` or `key=value`). */
  listNetworks(labels: readonly string[]): Promise<readonly NetworkSummary[]>;
  /** With the containers that run on it. */
  inspectNetwork(idOrName: string): Promise<NetworkInspect>;
  /** `PermissionDenied` while containers run on it. */
  removeNetwork(idOrName: string): Promise<void>;
  /**
   * Asks for a sign of life over a new connection. An Engine on its way out still answers on old ones (and stops its
   * containers meanwhile), but takes no new one: `Unavailable`.
   */
  ping(): Promise<void>;
  info(): Promise<SystemInfo>;
  version(): Promise<SystemVersion>;
  /** Drops idle connections. Calls under way end by themselves. */
  close(): void;
}
