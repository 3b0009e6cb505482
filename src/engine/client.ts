/**
 * The Engine's client: dockerode over the unix socket, with kept-alive connections. Every failure leaves here as a
 * ShoalError (errors.ts). No retries: whoever calls knows whether a second try is harmless.
 */

import type { IncomingMessage } from "node:http";
import { Agent } from "node:http";
import { inspect } from "node:util";
import type {
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
import Dockerode from "dockerode";
import { ShoalError } from "../lib/errors.ts";
import type { ContainerCreateBody, ContainerLogsOptions, Engine, EventsOptions, PullProgress } from "./engine.ts";
import { canceled, engineError, statusOf } from "./errors.ts";
import { jsonLines } from "./json-lines.ts";
import { pullTarget } from "./reference.ts";

/** Idle connections that are kept: more than the calls that are made at once in a quiet swarm. */
const idleConnections = 8;

/**
 * dockerode's transport formats the options of every request for a debug line that nobody reads, the agent with all its
 * sockets included: 30 ms of a core each time. This agent has nothing to show.
 */
class OpaqueAgent extends Agent {
  [inspect.custom](): string {
    return "Agent";
  }
}

/** The status that answers a start of what runs, and a stop of what has stopped. */
const notModified = 304;

/**
 * The Engine behind a unix socket.
 * @param socketPath for example `/var/run/docker.sock`
 */
export function dockerEngine(socketPath: string): Engine {
  return new DockerodeEngine(socketPath);
}

/** dockerode's request, where its own methods don't do (it buffers and parses a log that isn't followed). */
interface ModemRequest {
  readonly path: string;
  readonly method: "GET";
  readonly isStream: true;
  readonly abortSignal: AbortSignal;
  readonly statusCodes: Readonly<Record<number, true | string>>;
  readonly options: object;
}

class DockerodeEngine implements Engine {
  readonly #address: string;
  readonly #connections = new OpaqueAgent({ keepAlive: true, maxFreeSockets: idleConnections });
  readonly #docker: Dockerode;
  /** Without kept-alive connections: each call makes its own. */
  readonly #unpooled: Dockerode;

  constructor(socketPath: string) {
    this.#address = `unix://${socketPath}`;
    // All places are named, so that DOCKER_HOST in the environment of the daemon (its own socket!) is not taken.
    const options = { socketPath, host: undefined, port: undefined, protocol: "http" as const };
    this.#docker = new Dockerode({ ...options, agent: this.#connections } as Dockerode.DockerOptions);
    this.#unpooled = new Dockerode({
      ...options,
      agent: new OpaqueAgent({ keepAlive: false }),
    } as Dockerode.DockerOptions);
  }

  async createContainer(name: string, body: ContainerCreateBody): Promise<string> {
    // Split in two, else dockerode writes the whole body into the query as well.
    const request = { _query: { name }, _body: body } as unknown as Dockerode.ContainerCreateOptions;
    const container = await this.#call(this.#docker.createContainer(request));
    return container.id;
  }

  async startContainer(id: string): Promise<void> {
    await this.#changed(this.#docker.getContainer(id).start());
  }

  async stopContainer(id: string, graceSeconds: number | undefined): Promise<void> {
    await this.#changed(this.#docker.getContainer(id).stop(graceSeconds === undefined ? {} : { t: graceSeconds }));
  }

  async removeContainer(id: string): Promise<void> {
    await this.#call(this.#docker.getContainer(id).remove({ force: true, v: true }));
  }

  async connectNetwork(network: string, containerId: string, endpoint: EndpointSettings): Promise<void> {
    const request = { Container: containerId, EndpointConfig: endpoint } as Dockerode.NetworkConnectOptions;
    await this.#call(this.#docker.getNetwork(encodeURIComponent(network)).connect(request));
  }

  async disconnectNetwork(network: string, containerId: string): Promise<void> {
    const request = { Container: containerId, Force: true };
    await this.#call(this.#docker.getNetwork(encodeURIComponent(network)).disconnect(request));
  }

  async inspectContainer(idOrName: string): Promise<ContainerInspectResponse> {
    const found = await this.#call(this.#docker.getContainer(encodeURIComponent(idOrName)).inspect());
    return found as unknown as ContainerInspectResponse;
  }

  async listContainers(labels: readonly string[]): Promise<readonly ContainerSummary[]> {
    const filters = JSON.stringify({ label: labels });
    const found = await this.#call(this.#docker.listContainers({ all: true, filters }));
    return found as unknown as readonly ContainerSummary[];
  }

  async *pullImage(reference: string, registryAuth: string | undefined, signal: AbortSignal) {
    const query = { ...pullTarget(reference), abortSignal: signal };
    const auth = registryAuth ? { key: registryAuth } : {};
    const answer = await this.#call(this.#docker.createImage(auth, query as object));
    // The status was 200 before the pull began: a failure comes as a line of the stream.
    for await (const line of jsonLines<PullProgress & { error?: string }>(this.#bytes(answer, signal))) {
      if (line.error !== undefined) throw new ShoalError("Unknown", line.error);
      yield line;
    }
  }

  async inspectImage(reference: string): Promise<ImageInspect> {
    const found = await this.#call(this.#docker.getImage(reference).inspect());
    return found as unknown as ImageInspect;
  }

  async *containerLogs(id: string, options: ContainerLogsOptions, signal: AbortSignal) {
    const { tail, ...rest } = options;
    const answer = await this.#stream({
      path: `/containers/${id}/logs?`,
      method: "GET",
      isStream: true,
      abortSignal: signal,
      statusCodes: { 200: true },
      options: { ...rest, tail: tail ?? "all", timestamps: true, details: true },
    });
    yield* this.#bytes(answer, signal);
  }

  async events(options: EventsOptions, signal: AbortSignal): Promise<AsyncIterable<EventMessage>> {
    const answer = await this.#stream({
      path: "/events?",
      method: "GET",
      isStream: true,
      abortSignal: signal,
      statusCodes: { 200: true },
      options: { filters: JSON.stringify(options.filters), ...(options.since ? { since: options.since } : {}) },
    });
    return jsonLines<EventMessage>(this.#bytes(answer, signal));
  }

  async createNetwork(body: NetworkCreateRequest): Promise<string> {
    // As with a container, else the body is in the query as well.
    const request = { _query: {}, _body: body } as unknown as Dockerode.NetworkCreateOptions;
    const network = await this.#call(this.#docker.createNetwork(request));
    return network.id;
  }

  async listNetworks(labels: readonly string[]): Promise<readonly NetworkSummary[]> {
    const filters = JSON.stringify({ label: labels });
    const found = await this.#call(this.#docker.listNetworks({ filters }));
    return found as unknown as readonly NetworkSummary[];
  }

  async inspectNetwork(idOrName: string): Promise<NetworkInspect> {
    return (await this.#call(this.#network(idOrName).inspect())) as NetworkInspect;
  }

  async removeNetwork(idOrName: string): Promise<void> {
    await this.#call(this.#network(idOrName).remove());
  }

  #network(idOrName: string): Dockerode.Network {
    return this.#docker.getNetwork(encodeURIComponent(idOrName));
  }

  async ping(): Promise<void> {
    await this.#call(this.#unpooled.ping());
  }

  async info(): Promise<SystemInfo> {
    return (await this.#call(this.#docker.info())) as SystemInfo;
  }

  async version(): Promise<SystemVersion> {
    return (await this.#call(this.#docker.version())) as unknown as SystemVersion;
  }

  close(): void {
    this.#connections.destroy();
  }

  async #call<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      throw engineError(error, this.#address);
    }
  }

  /** A call whose "not modified" is as good as done. */
  async #changed(answer: Promise<unknown>): Promise<void> {
    try {
      await answer;
    } catch (error) {
      if (statusOf(error) !== notModified) throw engineError(error, this.#address);
    }
  }

  #stream(request: ModemRequest): Promise<NodeJS.ReadableStream> {
    return this.#call(
      new Promise((resolve, reject) => {
        this.#docker.modem.dial(request, (error: Error | null, answer: unknown) => {
          if (error) reject(error);
          else resolve(answer as IncomingMessage);
        });
      }),
    );
  }

  async *#bytes(answer: NodeJS.ReadableStream, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    try {
      yield* answer as AsyncIterable<Buffer>;
    } catch (error) {
      // An answer that has begun does not say that it was the signal that broke it off.
      if (signal.aborted) throw canceled(signal.reason);
      throw engineError(error, this.#address);
    }
  }
}
