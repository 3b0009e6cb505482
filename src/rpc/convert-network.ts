/** Networks, attachments, ports and endpoints, wire <-> model. */
import { predefinedLabel } from "../model/networks.ts";
import type {
  AttachedNetwork,
  EndpointPortConfig,
  Network,
  NetworkAttachmentConfig,
  ServiceEndpoint,
} from "../model/types.ts";
import {
  coding,
  compact,
  dictionary,
  fromInt32,
  type Init,
  list,
  mapped,
  metaFromWire,
  metaToWire,
  text,
} from "./convert-basics.ts";
import {
  type Endpoint,
  type EndpointSchema,
  EndpointSpec_ResolutionMode,
  type NetworkAttachment,
  type NetworkAttachmentConfigSchema,
  type NetworkAttachmentSchema,
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type PortConfigSchema,
  type NetworkAttachmentConfig as WireAttachmentConfig,
  type Network as WireNetwork,
} from "./gen/network_pb.js";

/** What marks the Engine's own networks (`host`, `bridge`, `none`) among the swarm's. */

const protocols = coding("port protocol", {
  tcp: PortConfig_Protocol.TCP,
  udp: PortConfig_Protocol.UDP,
  sctp: PortConfig_Protocol.SCTP,
});
const publishModes = coding("publish mode", {
  ingress: PortConfig_PublishMode.INGRESS,
  host: PortConfig_PublishMode.HOST,
});
const endpointModes = coding("endpoint mode", {
  vip: EndpointSpec_ResolutionMode.VIP,
  dnsrr: EndpointSpec_ResolutionMode.DNSRR,
});

export function portToWire(port: EndpointPortConfig): Init<typeof PortConfigSchema> {
  return {
    name: port.Name ?? "",
    protocol: protocols.encode(port.Protocol ?? "tcp"),
    targetPort: port.TargetPort ?? 0,
    publishedPort: port.PublishedPort ?? 0,
    publishMode: publishModes.encode(port.PublishMode ?? "ingress"),
  };
}

export function portFromWire(port: PortConfig): EndpointPortConfig {
  return compact({
    Name: text(port.name),
    Protocol: protocols.decode(port.protocol),
    TargetPort: fromInt32(port.targetPort),
    PublishedPort: fromInt32(port.publishedPort),
    PublishMode: publishModes.decode(port.publishMode),
  });
}

export function endpointToWire(endpoint: ServiceEndpoint): Init<typeof EndpointSchema> {
  return {
    spec: endpoint.Spec && {
      mode: endpointModes.encode(endpoint.Spec.Mode ?? "vip"),
      ports: (endpoint.Spec.Ports ?? []).map(portToWire),
    },
    ports: (endpoint.Ports ?? []).map(portToWire),
    virtualIps: (endpoint.VirtualIPs ?? []).map((ip) => ({ networkId: ip.NetworkID ?? "", addr: ip.Addr ?? "" })),
  };
}

export function endpointFromWire(endpoint: Endpoint): ServiceEndpoint {
  return compact({
    Spec:
      endpoint.spec &&
      compact({
        Mode: endpointModes.decode(endpoint.spec.mode),
        Ports: mapped(endpoint.spec.ports, portFromWire),
      }),
    Ports: mapped(endpoint.ports, portFromWire),
    VirtualIPs: mapped(endpoint.virtualIps, (ip) => ({ NetworkID: ip.networkId, Addr: ip.addr })),
  });
}

export function attachmentConfigToWire(config: NetworkAttachmentConfig): Init<typeof NetworkAttachmentConfigSchema> {
  return {
    target: config.Target ?? "",
    aliases: config.Aliases ?? [],
    driverAttachmentOpts: config.DriverOpts ?? {},
  };
}

export function attachmentConfigFromWire(config: WireAttachmentConfig): NetworkAttachmentConfig {
  return compact({
    Target: text(config.target),
    Aliases: list(config.aliases),
    DriverOpts: dictionary(config.driverAttachmentOpts),
  });
}

/**
 * Stock agents follow `network` and its `driver_state` without a look whether they are there, so both always are;
 * `ipam` is left out altogether, as a predefined network has none.
 */
export function attachedNetworkToWire(attached: AttachedNetwork): Init<typeof NetworkAttachmentSchema> {
  const { Network: network } = attached;
  const labels = network.Predefined ? { ...network.Labels, [predefinedLabel]: "true" } : { ...network.Labels };
  return {
    network: {
      id: network.ID,
      meta: metaToWire(network),
      spec: { annotations: { name: network.Name, labels }, driverConfig: { name: network.Driver } },
      driverState: { name: network.Driver },
    },
    addresses: [...attached.Addresses],
    aliases: [...attached.Aliases],
  };
}

/** Undefined for an attachment without a network: there is nothing to attach to. */
export function attachedNetworkFromWire(attachment: NetworkAttachment): AttachedNetwork | undefined {
  if (!attachment.network) return undefined;
  return {
    Network: networkFromWire(attachment.network),
    Addresses: [...attachment.addresses],
    Aliases: [...attachment.aliases],
  };
}

function networkFromWire(network: WireNetwork): Network {
  const labels = { ...network.spec?.annotations?.labels };
  return {
    ID: network.id,
    ...metaFromWire(network.meta),
    Name: network.spec?.annotations?.name ?? "",
    Labels: labels,
    Driver: network.driverState?.name || (network.spec?.driverConfig?.name ?? ""),
    Predefined: labels[predefinedLabel] === "true",
  };
}
