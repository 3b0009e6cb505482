/**
 * An Engine without containers, for tests: keeps what it is told to create, start, stop and remove, and sends the
 * events that a real one sends. Whatever a test needs beyond that, it sets.
 */
import type {
  ContainerInspectResponse,
  ContainerSummary,
  EndpointSettings,
  EventMessage,
  ImageInspect,
  NetworkCreateRequest,
  NetworkInspect,
  NetworkSummary,
} from "@docker/node-sdk";
import { ShoalError } from "../lib/errors.ts";
import { AsyncQueue } from "../lib/queue.ts";
import type { ContainerCreateBody, ContainerLogsOptions, Engine, EventsOptions, PullProgress } from "./engine.ts";

/** More events than any test makes. */
const backlog = 10_000;

export interface FakeContainer {
  readonly id: string;
  readonly name: string;
  readonly body: ContainerCreateBody;
  /** By the Engine's network: those of the create, and those connected since. */
  readonly networks: Map<string, EndpointSettings>;
  state: "created" | "running" | "exited";
  exitCode: number;
  error: string;
  health: "starting" | "healthy" | "unhealthy" | undefined;
}

export class FakeEngine implements Engine {
  readonly containers = new Map<string, FakeContainer>();
  apiVersion = "1.41";
  readonly images = new Set<string>();
  /** By id. */
  readonly networks = new Map<string, NetworkCreateRequest>();
  /** Each call, as "name argument". */
  readonly calls: string[] = [];
  /** The `since` of each subscription to events. */
  readonly sinces: (string | undefined)[] = [];
  /** Every call fails with this, and the event stream ends, as of an Engine that is gone. */
  down = false;
  /** On its way out: takes no new connection. */
  closing = false;
  /** Whether events are sent by themselves; a test that wants them late sends them itself. */
  quiet = false;
  /** What a pull does; it may wait for the signal. */
  pull: (reference: string, signal: AbortSignal) => AsyncIterable<PullProgress> = failingPull;
  /** Awaited in each call of that name before it is answered. */
  readonly gates = new Map<string, Promise<void>>();
  #streams = new Set<AsyncQueue<EventMessage>>();
  #next = 1;
  #nano = 1e18;

  async createContainer(name: string, body: ContainerCreateBody): Promise<string> {
    await this.#called("create", name);
    if ([...this.containers.values()].some((container) => container.name === name)) {
      throw new ShoalError("AlreadyExists", `Conflict. The container name "/${name}" is already in use`);
    }
    if (!this.images.has(body.Image ?? "")) throw new ShoalError("NotFound", `No such image: ${body.Image}`);
    const id = `container${this.#next++}`;
    const networks = new Map(Object.entries(body.NetworkingConfig?.EndpointsConfig ?? {}));
    this.containers.set(id, { id, name, body, networks, state: "created", exitCode: 0, error: "", health: undefined });
    this.#event("create", id);
    return id;
  }

  async startContainer(id: string): Promise<void> {
    await this.#called("start", id);
    const container = this.#get(id);
    container.state = "running";
    if (container.body.Healthcheck) container.health = "starting";
    this.#event("start", id);
  }

  async stopContainer(id: string, graceSeconds: number | undefined): Promise<void> {
    await this.#called("stop", graceSeconds === undefined ? id : `${id} ${graceSeconds}`);
    this.#get(id);
    this.terminate(id);
  }

  async removeContainer(id: string): Promise<void> {
    await this.#called("remove", id);
    this.#get(id);
    this.containers.delete(id);
    this.#event("destroy", id);
  }

  async connectNetwork(network: string, containerId: string, endpoint: EndpointSettings): Promise<void> {
    await this.#called("connect", `${network} ${containerId}`);
    const { networks, state } = this.#get(containerId);
    if (networks.has(network) && state === "running") {
      throw new ShoalError(
        "PermissionDenied",
        `endpoint with name ${containerId} already exists in network ${network}`,
      );
    }
    networks.set(network, endpoint);
  }

  async disconnectNetwork(network: string, containerId: string): Promise<void> {
    await this.#called("disconnect", `${network} ${containerId}`);
    this.#get(containerId).networks.delete(network);
    this.disconnected(network, containerId);
  }

  /** Tells of a container's end on a network, as also a stop does. */
  disconnected(network: string, containerId: string): void {
    this.#nano += 1_000_000;
    const Actor = { ID: network, Attributes: { container: containerId } };
    this.send({ Type: "network", Action: "disconnect", Actor, timeNano: this.#nano });
  }

  async createNetwork(body: NetworkCreateRequest): Promise<string> {
    await this.#called("create-network", body.Name);
    if ([...this.networks.values()].some(({ Name }) => Name === body.Name)) {
      throw new ShoalError("AlreadyExists", `network with name ${body.Name} already exists`);
    }
    const id = `network${this.#next++}`;
    this.networks.set(id, body);
    return id;
  }

  async listNetworks(labels: readonly string[]): Promise<readonly NetworkSummary[]> {
    await this.#called("list-networks", "");
    return [...this.networks]
      .filter(([, { Labels }]) => labels.every((label) => hasLabel(Labels ?? {}, label)))
      .map(([Id, body]) => ({ Id, ...body }) as NetworkSummary);
  }

  async inspectNetwork(idOrName: string): Promise<NetworkInspect> {
    await this.#called("inspect-network", idOrName);
    const [Id, body] = this.#getNetwork(idOrName);
    const on = [...this.containers.values()].filter(
      ({ state, networks }) => state === "running" && networks.has(body.Name),
    );
    return {
      Id,
      ...body,
      Containers: Object.fromEntries(on.map(({ id, name }) => [id, { Name: name }])),
    } as NetworkInspect;
  }

  async removeNetwork(idOrName: string): Promise<void> {
    const { Containers = {} } = await this.inspectNetwork(idOrName);
    await this.#called("remove-network", idOrName);
    const [id, { Name }] = this.#getNetwork(idOrName);
    if (Object.keys(Containers).length > 0) {
      throw new ShoalError("PermissionDenied", `error while removing network: network ${Name} has active endpoints`);
    }
    this.networks.delete(id);
  }

  async inspectContainer(idOrName: string): Promise<ContainerInspectResponse> {
    await this.#called("inspect", idOrName);
    const { id, name, body, networks, state, exitCode, error, health } = this.#get(idOrName);
    return {
      Id: id,
      Name: `/${name}`,
      Config: { Labels: body.Labels, Healthcheck: body.Healthcheck },
      State: {
        Status: state,
        Running: state === "running",
        Pid: state === "running" ? 42 : 0,
        ExitCode: exitCode,
        Error: error,
        Health: health && { Status: health },
      },
      HostConfig: body.HostConfig,
      ResolvConfPath: `/containers/${id}/resolv.conf`,
      NetworkSettings: {
        Networks: Object.fromEntries(networks),
        Ports: { "80/tcp": [{ HostPort: "32768" }, { HostPort: "32768" }], "81/tcp": null },
      },
    };
  }

  async listContainers(labels: readonly string[]): Promise<readonly ContainerSummary[]> {
    const list = [...this.containers.values()]
      .filter(({ body }) => labels.every((label) => hasLabel(body.Labels ?? {}, label)))
      .map(({ id, body, networks, state }) => ({
        Id: id,
        Labels: body.Labels,
        State: state,
        NetworkSettings: { Networks: Object.fromEntries(networks) },
      }));
    await this.#called("list", ""); // answered late, the list is an old one
    return list;
  }

  async *pullImage(reference: string, registryAuth: string | undefined, signal: AbortSignal) {
    await this.#called("pull", registryAuth ? `${reference} ${registryAuth}` : reference);
    yield* this.pull(reference, signal);
    this.images.add(reference);
  }

  async inspectImage(reference: string): Promise<ImageInspect> {
    await this.#called("image", reference);
    if (!this.images.has(reference)) throw new ShoalError("NotFound", `No such image: ${reference}`);
    return { Id: `sha256:${reference}` };
  }

  async *containerLogs(id: string, options: ContainerLogsOptions) {
    await this.#called("logs", `${id} ${JSON.stringify(options)}`);
    yield new Uint8Array();
  }

  async events({ since }: EventsOptions, signal: AbortSignal): Promise<AsyncIterable<EventMessage>> {
    await this.#called("events", "");
    this.sinces.push(since);
    const stream = new AsyncQueue<EventMessage>(backlog);
    this.#streams.add(stream);
    signal.addEventListener("abort", () => stream.fail(signal.reason), { once: true });
    return stream;
  }

  async ping(): Promise<void> {
    await this.#called("ping", "");
    if (this.closing) throw gone();
  }

  async info() {
    await this.#called("info", "");
    return { Name: "host1" };
  }

  async version() {
    return { Version: "20.10.24", ApiVersion: this.apiVersion };
  }

  close(): void {}

  /** A container ends by itself. */
  exit(id: string, exitCode: number, error = ""): void {
    const container = this.#get(id);
    if (container.state !== "running") return;
    Object.assign(container, { state: "exited", exitCode, error, health: undefined });
    this.#event("die", id, { exitCode: String(exitCode) });
  }

  /** Somebody else, or the Engine on its way out, stops a container, which obeys. */
  terminate(id: string): void {
    this.#event("kill", id, { signal: "15" });
    this.exit(id, 0);
  }

  setHealth(id: string, health: "healthy" | "unhealthy"): void {
    this.#get(id).health = health;
    this.#event(`health_status: ${health}`, id);
  }

  /** The Engine goes away; containers with it, unless `survivors`. */
  stop(survivors = false): void {
    this.down = true;
    for (const stream of this.#streams) stream.fail(gone());
    this.#streams.clear();
    if (survivors) return;
    for (const container of this.containers.values()) if (container.state === "running") container.state = "exited";
  }

  send(event: EventMessage): void {
    for (const stream of this.#streams) stream.push(event);
  }

  async #called(name: string, argument: string): Promise<void> {
    this.calls.push(`${name} ${argument}`.trim());
    await this.gates.get(name);
    if (this.down) throw gone();
  }

  #get(idOrName: string): FakeContainer {
    const byName = () => [...this.containers.values()].find(({ name }) => name === idOrName);
    const container = this.containers.get(idOrName) ?? byName();
    if (!container) throw new ShoalError("NotFound", `No such container: ${idOrName}`);
    return container;
  }

  #getNetwork(idOrName: string): [string, NetworkCreateRequest] {
    const found = [...this.networks].find(([id, { Name }]) => id === idOrName || Name === idOrName);
    if (!found) throw new ShoalError("NotFound", `network ${idOrName} not found`);
    return found;
  }

  #event(Action: string, id: string, attributes: Readonly<Record<string, string>> = {}): void {
    const labels = this.containers.get(id)?.body.Labels;
    if (labels) this.#labels.set(id, labels);
    this.#nano += 1_000_000;
    const Attributes = { ...this.#labels.get(id), ...attributes };
    const event: EventMessage = { Type: "container", Action, Actor: { ID: id, Attributes }, timeNano: this.#nano };
    if (!this.quiet) this.send(event);
  }

  /** Labels of containers, also of those that are gone: their `destroy` still carries them. */
  readonly #labels = new Map<string, Readonly<Record<string, string>>>();
}

function hasLabel(labels: Readonly<Record<string, string>>, label: string): boolean {
  const [key = "", value] = label.split("=");
  return value === undefined ? labels[key] !== undefined : labels[key] === value;
}

function gone(): ShoalError {
  return new ShoalError("Unavailable", "Cannot connect to the Docker Engine at unix:///fake.sock");
}

// biome-ignore lint/correctness/useYield: a pull that fails before its first line
async function* failingPull(): AsyncGenerator<PullProgress> {
  throw new ShoalError("Unknown", "no registry");
}
