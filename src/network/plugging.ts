/**
 * Containers' ends on the networks, as the Engine asks for them: a cable for each, taken away when the container is done
 * with it. What is known of an endpoint besides its cable (ports of the node, name servers of its own) is with the
 * container in the Engine, and is read there after a restart.
 *
 * A cable whose container is gone without a word (the Engine was killed) is found by comparing with the Engine's
 * containers. A young one is left alone: a container that is being started has its cable before the Engine shows it.
 */
import type { ContainerInspectResponse, ContainerSummary, EndpointSettings } from "@docker/node-sdk";
import type { Engine } from "../engine/engine.ts";
import { type Clock, within } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { driverOption } from "../model/driver-options.ts";
import { addressOf } from "../model/networks.ts";
import type { TaskDns } from "./dns/resolver.ts";
import { type EndpointRequest, type Endpoints, endpointRequest, type PortRequest } from "./driver/requests.ts";
import type { HostPort } from "./ingress-table.ts";
import type { Networks } from "./networks.ts";
import type { OverlayNetwork } from "./overlay-network.ts";

export interface PluggingOptions {
  readonly networks: Networks;
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  /** The network once it is ready; rejects with why it is not. */
  readonly ready: (networkId: string) => Promise<OverlayNetwork>;
  /** It may be that something is no longer needed. */
  readonly onLess: () => void;
  /** The Engine has (re)started. */
  readonly onActivated: () => void;
}

interface Endpoint extends EndpointRequest {
  readonly ports: readonly PortRequest[];
}

/** A start takes far less. */
const youngMs = 30_000;
/** An Engine that does not answer holds up the daemon's start no longer than that. */
const restoreLimitMs = 5_000;

export class Plugging implements Endpoints {
  readonly #options: PluggingOptions;
  readonly #endpoints = new Map<string, Endpoint>();
  /** By endpoint: when its cable was plugged in, or found. */
  readonly #pluggedAt = new Map<string, number>();
  #isWaiting = false;

  constructor(options: PluggingOptions) {
    this.#options = options;
  }

  /** Name servers and search domains of a task that has its own. */
  dnsOf(taskId: string): TaskDns | undefined {
    for (const endpoint of this.#endpoints.values()) {
      const { nameservers, search } = endpoint;
      if (endpoint.taskId === taskId && nameservers.length + search.length > 0) return { nameservers, search };
    }
    return undefined;
  }

  /** The Engine looks at the driver for the first time: it has restarted, and no start from before goes on. */
  activated(): void {
    for (const network of this.#options.networks) {
      for (const endpointId of network.cables.keys()) this.#pluggedAt.set(endpointId, Number.NEGATIVE_INFINITY);
    }
    this.#options.onLess();
    this.#options.onActivated();
  }

  async create(request: EndpointRequest): Promise<void> {
    const network = await this.#options.ready(request.networkId);
    this.#endpoints.set(request.endpointId, { ...request, ports: [] });
    this.#pluggedAt.set(request.endpointId, this.#options.clock.now());
    await network.plug(request.endpointId, request.taskId, addressOf(request.address));
  }

  async join(endpointId: string) {
    const network = this.#networkOf(endpointId);
    const endpoint = this.#endpoints.get(endpointId);
    let cable = network?.cables.get(endpointId);
    if (!cable && network && endpoint) {
      cable = await network.plug(endpointId, endpoint.taskId, addressOf(endpoint.address));
    }
    if (!network || !cable) throw new ShoalError("NotFound", `there is no endpoint ${endpointId}`);
    // On the ingress network the node is the way out: answers must go back the way the question came.
    const gateway = network.table?.network.ingress ? network.ownAddress : undefined;
    return { interfaceName: cable.outside, ...(gateway === undefined ? {} : { gateway }) };
  }

  async leave(endpointId: string): Promise<void> {
    await this.expose(endpointId, []);
    await this.#networkOf(endpointId)?.unplug(endpointId);
  }

  async remove(endpointId: string): Promise<void> {
    const network = this.#networkOf(endpointId);
    await this.leave(endpointId);
    this.#endpoints.delete(endpointId);
    this.#pluggedAt.delete(endpointId);
    if (network?.isLeaving) this.#options.onLess();
  }

  async expose(endpointId: string, ports: readonly PortRequest[]): Promise<void> {
    const endpoint = this.#endpoints.get(endpointId);
    if (!endpoint || endpoint.ports.length + ports.length === 0) return;
    this.#endpoints.set(endpointId, { ...endpoint, ports });
    await this.#publish(endpoint.networkId);
  }

  /** Learns from the Engine what containers with a cable have besides. An Engine that can't be asked is asked later. */
  async restore(): Promise<void> {
    const { clock, log } = this.#options;
    try {
      await within(clock, restoreLimitMs, this.#restore(await this.#liveContainers()), () => {
        throw new ShoalError("DeadlineExceeded", "the Engine takes too long");
      });
    } catch (error) {
      log.warn("the Engine can't say yet which containers are on networks", { error: messageOf(error) });
    }
  }

  /** Takes cables away whose containers are gone. */
  async sweep(): Promise<void> {
    const { clock, log, networks } = this.#options;
    const containers = await this.#liveContainers();
    await this.#restore(containers);
    const live = new Set(containers.flatMap(endpointIds));
    const plugged = new Set<string>();
    this.#isWaiting = false;
    for (const network of networks) {
      for (const { endpointId, taskId } of network.cables.values()) {
        plugged.add(endpointId);
        const pluggedAt = this.#pluggedAt.get(endpointId) ?? clock.now();
        this.#pluggedAt.set(endpointId, pluggedAt);
        if (live.has(endpointId)) continue;
        if (clock.now() - pluggedAt < youngMs) {
          this.#isWaiting = true;
          continue;
        }
        log.info("a container has gone without a word", { network: network.namespace, task: taskId });
        await this.remove(endpointId);
      }
    }
    for (const id of this.#endpoints.keys()) if (!plugged.has(id) && !live.has(id)) this.#endpoints.delete(id);
    for (const id of this.#pluggedAt.keys()) if (!plugged.has(id)) this.#pluggedAt.delete(id);
  }

  /** There is a cable that no container seems to have, and that is too young to tell. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  async #liveContainers(): Promise<ContainerSummary[]> {
    const all = await this.#options.engine.listContainers([]);
    return all.filter(({ State }) => State !== "exited" && State !== "dead");
  }

  async #restore(containers: readonly ContainerSummary[]): Promise<void> {
    const plugged = new Set([...this.#options.networks].flatMap((network) => [...network.cables.keys()]));
    const touched = new Set<string>();
    for (const container of containers) {
      const unknown = endpointIds(container).filter((id) => plugged.has(id) && !this.#endpoints.has(id));
      if (unknown.length === 0) continue;
      for (const endpoint of await this.#endpointsOf(container.Id ?? "")) {
        if (!unknown.includes(endpoint.endpointId)) continue;
        this.#endpoints.set(endpoint.endpointId, endpoint);
        if (endpoint.ports.length > 0) touched.add(endpoint.networkId);
      }
    }
    for (const networkId of touched) await this.#publish(networkId);
  }

  async #endpointsOf(containerId: string): Promise<Endpoint[]> {
    try {
      const container = await this.#options.engine.inspectContainer(containerId);
      const settings = Object.values(container.NetworkSettings?.Networks ?? {});
      return settings.flatMap((one) => endpointOf(container, one));
    } catch (error) {
      if (isShoalError(error, "NotFound")) return []; // it has just gone
      throw error;
    }
  }

  /** All ports of the node that lead to tasks by the network's own gateway. */
  async #publish(networkId: string): Promise<void> {
    const ports = [...this.#endpoints.values()]
      .filter((endpoint) => endpoint.networkId === networkId)
      .flatMap(({ address, ports }) => ports.map((port): HostPort => ({ address: addressOf(address), ...port })));
    await this.#options.networks.get(networkId)?.setHostPorts(ports);
  }

  #networkOf(endpointId: string): OverlayNetwork | undefined {
    const known = this.#endpoints.get(endpointId);
    if (known) return this.#options.networks.get(known.networkId);
    return [...this.#options.networks].find(({ cables }) => cables.has(endpointId));
  }
}

function endpointIds({ NetworkSettings }: ContainerSummary): string[] {
  return Object.values(NetworkSettings?.Networks ?? {}).flatMap(({ EndpointID }) => EndpointID || []);
}

/** An endpoint as its container has it; nothing for one that is not ours. */
function endpointOf({ HostConfig }: ContainerInspectResponse, settings: EndpointSettings): Endpoint[] {
  const { EndpointID, Gateway, DriverOpts } = settings;
  if (!EndpointID || !DriverOpts?.[driverOption.network]) return [];
  // Only the network that is the container's way out is asked for ports of the node.
  const ports = Gateway ? portsOf(HostConfig?.PortBindings ?? {}) : [];
  return [{ ...endpointRequest(EndpointID, DriverOpts), ports }];
}

/** "80/tcp": [{ HostPort: "8080" }] */
function portsOf(bindings: Readonly<Record<string, readonly { HostPort?: string }[] | null>>): PortRequest[] {
  return Object.entries(bindings).flatMap(([key, list]) => {
    const [port, protocol = "tcp"] = key.split("/");
    return (list ?? [])
      .filter(({ HostPort }) => HostPort)
      .map(({ HostPort }) => ({
        protocol: protocol as PortRequest["protocol"],
        hostPort: Number(HostPort),
        port: Number(port),
      }));
  });
}
