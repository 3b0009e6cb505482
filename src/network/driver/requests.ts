/**
 * The Engine's remote network driver protocol: which request says what, and what is answered. The Engine takes part in
 * nothing but plugging: it says when a container needs a cable, takes its end, and says when it is done with it.
 *
 * Networks are made by the data plane as the managers say, so the Engine's creating and deleting of its own network
 * object means nothing here. Addresses are the managers' too: they come with the container, as options of its endpoint.
 */
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { type ContainerNames, driverOption, namesFromOptions } from "../../model/driver-options.ts";
import { addressOf } from "../../model/networks.ts";
import { macOf } from "../names.ts";

export interface EndpointRequest extends ContainerNames {
  readonly endpointId: string;
  readonly networkId: string;
  readonly taskId: string;
  /** CIDR. */
  readonly address: string;
}

/** A port that the container wants of the node itself. */
export interface PortRequest {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly hostPort: number;
  readonly port: number;
}

/** What the requests are about; each may be repeated, and may speak of what is gone. */
export interface Endpoints {
  create(request: EndpointRequest): Promise<void>;
  /** @returns the interface that the Engine takes, and the way out where it goes through this network */
  join(endpointId: string): Promise<{ readonly interfaceName: string; readonly gateway?: string }>;
  leave(endpointId: string): Promise<void>;
  remove(endpointId: string): Promise<void>;
  expose(endpointId: string, ports: readonly PortRequest[]): Promise<void>;
  /** The Engine has (re)started, or looks at the driver for the first time. */
  activated(): void;
}

interface Body {
  readonly NetworkID?: string;
  readonly EndpointID?: string;
  readonly Interface?: { readonly Address?: string; readonly MacAddress?: string } | null;
  readonly Options?: Readonly<Record<string, unknown>> | null;
}

interface PortMapping {
  readonly Proto?: number;
  readonly Port?: number;
  readonly HostPort?: number;
}

const portMap = "com.docker.network.portmap";
const protocols: Readonly<Record<number, PortRequest["protocol"]>> = { 6: "tcp", 17: "udp", 132: "sctp" };
/** The Engine numbers interfaces itself: eth0, eth1 ... */
const interfacePrefix = "eth";

/**
 * The answer to a request: its JSON; a failure is an answer too, with the text that the Engine shows.
 * @param path as `/NetworkDriver.Join`
 * @param text the request's body, which may be empty
 */
export async function answer(path: string, text: string, endpoints: Endpoints): Promise<object> {
  try {
    return await act(path, text.trim() === "" ? {} : (JSON.parse(text) as Body), endpoints);
  } catch (error) {
    return { Err: messageOf(error) };
  }
}

async function act(path: string, body: Body, endpoints: Endpoints): Promise<object> {
  const { EndpointID: endpointId = "", Options: options } = body;
  switch (path) {
    case "/Plugin.Activate":
      endpoints.activated();
      return { Implements: ["NetworkDriver"] };
    case "/NetworkDriver.GetCapabilities":
      return { Scope: "local", ConnectivityScope: "global" };
    case "/NetworkDriver.CreateEndpoint": {
      const request = endpointRequest(endpointId, options ?? {});
      const { Address: asked, MacAddress: wanted } = body.Interface ?? {};
      const mac = macOf(addressOf(request.address));
      if (wanted && wanted !== mac) {
        throw new ShoalError("InvalidArgument", "hardware addresses on a network of the swarm can't be chosen");
      }
      await endpoints.create(request);
      // What the request has already must not be in the answer.
      return { Interface: { ...(!asked && { Address: request.address }), ...(!wanted && { MacAddress: mac }) } };
    }
    case "/NetworkDriver.Join": {
      const { interfaceName, gateway } = await endpoints.join(endpointId);
      const InterfaceName = { SrcName: interfaceName, DstPrefix: interfacePrefix };
      return { InterfaceName, ...(gateway === undefined ? {} : { Gateway: gateway }) };
    }
    case "/NetworkDriver.Leave":
      await endpoints.leave(endpointId);
      return {};
    case "/NetworkDriver.DeleteEndpoint":
      await endpoints.remove(endpointId);
      return {};
    case "/NetworkDriver.ProgramExternalConnectivity":
      await endpoints.expose(endpointId, portRequests(options ?? {}));
      return {};
    case "/NetworkDriver.RevokeExternalConnectivity":
      await endpoints.expose(endpointId, []);
      return {};
    case "/NetworkDriver.EndpointOperInfo":
      return { Value: {} };
    case "/NetworkDriver.CreateNetwork":
    case "/NetworkDriver.DeleteNetwork":
    case "/NetworkDriver.AllocateNetwork":
    case "/NetworkDriver.FreeNetwork":
    case "/NetworkDriver.DiscoverNew":
    case "/NetworkDriver.DiscoverDelete":
      return {};
    default:
      throw new ShoalError("Unimplemented", `the driver knows no ${path}`);
  }
}

/** @param options as the agent gave them to the Engine */
export function endpointRequest(endpointId: string, options: Readonly<Record<string, unknown>>): EndpointRequest {
  const given = texts(options);
  const {
    [driverOption.network]: networkId,
    [driverOption.task]: taskId,
    [driverOption.address]: address,
  } = given as Partial<Record<string, string>>;
  if (!networkId || !taskId || !address) {
    const why = "a container on a network of the swarm gets its address from the swarm";
    throw new ShoalError("InvalidArgument", `${why}: run it through Shoal's socket, not through the Engine's`);
  }
  return { endpointId, networkId, taskId, address, ...namesFromOptions(given) };
}

function texts(options: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(Object.entries(options).filter((entry): entry is [string, string] => isText(entry[1])));
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function portRequests(options: Readonly<Record<string, unknown>>): PortRequest[] {
  const mappings = options[portMap];
  if (!Array.isArray(mappings)) return [];
  return (mappings as PortMapping[]).map(({ Proto = 0, Port = 0, HostPort = 0 }) => {
    const protocol = protocols[Proto];
    if (!protocol)
      throw new ShoalError("InvalidArgument", `a port of the unknown protocol ${Proto} can't be published`);
    // Nobody could be told which one it has become.
    if (HostPort === 0) {
      const rule = `port ${Port} needs a published port of its own in mode=host`;
      throw new ShoalError("InvalidArgument", `${rule}: the service also has ports on the ingress network`);
    }
    return { protocol, hostPort: HostPort, port: Port };
  });
}
