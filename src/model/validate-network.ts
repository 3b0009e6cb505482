/**
 * From the body of `POST /networks/create` to the network that is stored. What can be judged without the store is
 * judged here, in Swarm's words where Swarm has any; taken names and subnets are the API's and the allocator's.
 *
 * Differs from Swarm, where some of these networks are made and then never work: a subnet must be IPv4, one, with its
 * host bits zero and room for someone; an MTU must be one.
 */
import { ShoalError } from "../lib/errors.ts";
import { contains, formatRange, parseAddress, parseCidr, type Range } from "../lib/ipv4.ts";
import { defaultIngressSpec, networkOptions, predefinedLabel } from "./networks.ts";
import type { IPAMConfig, NetworkSpec } from "./types.ts";
import { validateName } from "./validate-name.ts";
import { conform, flag, list, object, text, textMap } from "./validate-shape.ts";

const createShape = object("network.CreateRequest", {
  Name: text,
  Driver: text,
  Scope: text,
  EnableIPv4: flag,
  EnableIPv6: flag,
  IPAM: object("network.IPAM", {
    Driver: text,
    Options: textMap,
    Config: list(
      object("network.IPAMConfig", { Subnet: text, IPRange: text, Gateway: text, AuxiliaryAddresses: textMap }),
    ),
  }),
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: flag,
  ConfigFrom: object("network.ConfigReference", { Network: text }),
  Options: textMap,
  Labels: textMap,
});

interface CreateRequest {
  readonly Name?: string;
  readonly Driver?: string;
  readonly Scope?: string;
  readonly EnableIPv4?: boolean;
  readonly EnableIPv6?: boolean;
  readonly IPAM?: {
    readonly Driver?: string;
    readonly Options?: Readonly<Record<string, string>>;
    readonly Config?: readonly IPAMConfig[];
  };
  readonly Internal?: boolean;
  readonly Attachable?: boolean;
  readonly Ingress?: boolean;
  readonly ConfigOnly?: boolean;
  readonly ConfigFrom?: { readonly Network?: string };
  readonly Options?: Readonly<Record<string, string>>;
  readonly Labels?: Readonly<Record<string, string>>;
}

/** A network as a client asks for it, with every default filled in. */
export interface AskedNetwork {
  readonly name: string;
  readonly driver: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: NetworkSpec;
}

const overlay = "overlay";
/** Drivers of the Engine that a network of the swarm may have besides: each node makes its own end, with its own addresses. */
const engineDrivers = ["bridge", "host", "ipvlan", "macvlan"];

/**
 * Whether a create asks for a network of the swarm; anything else is the Engine's, also what is no JSON object. A
 * network that only carries settings (`ConfigOnly`) is of one node.
 */
export function isForTheSwarm(body: unknown): boolean {
  if (typeof body !== "object" || body === null) return false;
  const members = Object.entries(body).map(([name, value]) => [name.toLowerCase(), value]);
  const { driver, scope, ingress, configonly } = Object.fromEntries(members) as Record<string, unknown>;
  if (scope === "swarm" || ingress === true) return true;
  return driver === overlay && configonly !== true;
}

/**
 * The network in `body`, a parsed JSON document, which it may change and keep.
 * @throws ShoalError in Swarm's words
 */
export function decodeNetwork(body: unknown): AskedNetwork {
  const asked = (conform(body, createShape) ?? {}) as CreateRequest;
  const { Name: name = "", Labels: labels = {} } = asked;
  const driver = asked.Driver || overlay;
  const spec = specOf(asked);
  checkKind(driver, spec, asked);
  validateName(name);
  if (Object.hasOwn(labels, predefinedLabel)) {
    const what = `label ${predefinedLabel} is for internally created predefined networks`;
    throw new ShoalError("PermissionDenied", `${what} and cannot be applied by users`);
  }
  if (driver === overlay) checkOverlay(spec, asked);
  return { name, driver, labels, spec };
}

function specOf(asked: CreateRequest): NetworkSpec {
  const { IPAM: ipam = {}, ConfigFrom: from } = asked;
  return {
    Internal: asked.Internal ?? false,
    Attachable: asked.Attachable ?? false,
    Ingress: asked.Ingress ?? false,
    ConfigOnly: asked.ConfigOnly ?? false,
    ...(from?.Network ? { ConfigFrom: from.Network } : {}),
    EnableIPv6: asked.EnableIPv6 ?? false,
    Options: asked.Options ?? {},
    IPAM: {
      Driver: ipam.Driver || defaultIngressSpec.IPAM.Driver,
      Options: ipam.Options ?? {},
      Config: (ipam.Config ?? []).map(({ Subnet, IPRange, Gateway }) => ({
        ...(Subnet ? { Subnet } : {}),
        ...(IPRange ? { IPRange } : {}),
        ...(Gateway ? { Gateway } : {}),
      })),
    },
  };
}

function checkKind(driver: string, spec: NetworkSpec, asked: CreateRequest): void {
  const {
    Ingress: ingress,
    Attachable: attachable,
    Internal: internal,
    ConfigOnly: configOnly,
    ConfigFrom: from,
  } = spec;
  if (ingress && driver !== overlay) {
    throw new ShoalError("Unimplemented", "only overlay driver is currently supported for ingress network");
  }
  if (ingress && attachable) invalid("ingress network cannot be attachable");
  if (ingress && internal) invalid("ingress network cannot be internal");
  if (asked.Scope && asked.Scope !== "swarm") invalid(`network of driver ${driver} cannot have scope ${asked.Scope}`);
  if (configOnly) invalid("configuration-only networks are of one node: they cannot have scope swarm");
  if (from && driver === overlay) invalid("networks of driver overlay cannot be made from a configuration");
  if (driver !== overlay && !engineDrivers.includes(driver)) {
    throw new ShoalError("NotFound", `plugin ${JSON.stringify(driver)} not found`);
  }
}

function checkOverlay({ IPAM: ipam, Options: options, EnableIPv6 }: NetworkSpec, { EnableIPv4 }: CreateRequest): void {
  if (EnableIPv6) throw new ShoalError("Unimplemented", "IPv6 is not supported on networks of driver overlay");
  if (EnableIPv4 === false) invalid("IPv4 cannot be disabled on networks of driver overlay");
  if (ipam.Driver !== "default") invalid(`IPAM driver ${ipam.Driver} is not supported on networks of driver overlay`);
  if (ipam.Config.length > 1) invalid("networks of driver overlay have one subnet");
  for (const config of ipam.Config) checkSubnet(config);
  checkMtu(options[networkOptions.mtu]);
  checkEncrypted(options[networkOptions.encrypted]);
  checkVxlanId(options[networkOptions.vxlanIds]);
}

/** Room for a gateway and for one other, besides the network's own address and that of its broadcasts. */
const longestPrefix = 30;
const loopback = parseCidr("127.0.0.0/8")!.range;
/** From multicast on: addresses that are nobody's. */
const firstMulticast = parseAddress("224.0.0.0")!;

function checkSubnet({ Subnet: subnet = "", IPRange: range, Gateway: gateway }: IPAMConfig): void {
  const parsed = parseCidr(subnet);
  if (!parsed) {
    if (subnet.includes(":")) throw new ShoalError("Unimplemented", `IPv6 is not supported: subnet ${subnet}`);
    invalid(`ipam configuration: invalid subnet ${subnet}`);
  }
  const own = parsed.range;
  if (parsed.address !== own.first) {
    invalid(`ipam configuration: invalid subnet ${subnet}: it should be ${formatRange(own)}`);
  }
  if (own.length > longestPrefix) {
    invalid(`ipam configuration: invalid subnet ${subnet}: it has no room for a gateway and a task`);
  }
  if (own.first === 0 || own.last >= firstMulticast || (own.first <= loopback.last && loopback.first <= own.last)) {
    invalid(`ipam configuration: invalid subnet ${subnet}: it has addresses that no task can have`);
  }
  if (range) checkRange(subnet, own, range);
  if (gateway) checkGateway(subnet, own, gateway);
}

function checkRange(subnet: string, own: Range, text: string): void {
  const range = parseCidr(text)?.range;
  if (!range) invalid(`ipam configuration: invalid range ${text}`);
  if (!contains(own, range.first) || !contains(own, range.last)) {
    invalid(`ipam configuration: subnet ${subnet} does not contain range ${text}`);
  }
}

function checkGateway(subnet: string, own: Range, text: string): void {
  const gateway = parseAddress(text);
  if (gateway === undefined) invalid(`ipam configuration: invalid gateway ${text}`);
  if (!contains(own, gateway)) invalid(`ipam configuration: subnet ${subnet} does not contain gateway ${text}`);
  if (gateway === own.first || gateway === own.last) {
    invalid(`ipam configuration: invalid gateway ${text}: it is the subnet's own or its broadcast address`);
  }
}

const smallestMtu = 68;
const largestMtu = 65_535;

function checkMtu(value: string | undefined): void {
  if (value === undefined) return;
  const mtu = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  if (mtu >= smallestMtu && mtu <= largestMtu) return;
  const rule = `an MTU is a whole number from ${smallestMtu} to ${largestMtu}`;
  invalid(`invalid value for option ${networkOptions.mtu}: ${JSON.stringify(value)}: ${rule}`);
}

/** The words that Go's decoder of flags knows, and nothing at all for a yes. */
const flagWords = ["", "1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];

function checkEncrypted(value: string | undefined): void {
  if (value === undefined || flagWords.includes(value)) return;
  invalid(`invalid value for option ${networkOptions.encrypted}: ${JSON.stringify(value)}: it is true or false`);
}

const largestVxlanId = 2 ** 24 - 1;

function checkVxlanId(value: string | undefined): void {
  if (value === undefined) return;
  const id = /^[1-9]\d{0,7}$/.test(value) ? Number(value) : 0;
  if (id > 0 && id <= largestVxlanId) return;
  const rule = `one id from 1 to ${largestVxlanId}`;
  invalid(`invalid value for option ${networkOptions.vxlanIds}: ${JSON.stringify(value)}: ${rule}`);
}

function invalid(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}
