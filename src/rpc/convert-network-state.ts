/** What managers tell nodes of overlay networks (shoal.v1.Networks), wire <-> model. */
import { ShoalError, unreachable } from "../lib/errors.ts";
import type {
  DataPath,
  NetworkChange,
  NetworkEndpoint,
  NetworkNode,
  NetworkPort,
  NetworkService,
  NetworkState,
  NetworksMessage,
} from "../model/network-state.ts";
import { coding, type Init } from "./convert-basics.ts";
import {
  type DataPathSchema,
  type NetworkChangeSchema,
  NetworkPort_Protocol,
  type NetworksMessageSchema,
  type NetworkChange as WireChange,
  type DataPath as WireDataPath,
  type NetworkEndpoint as WireEndpoint,
  type NetworksMessage as WireMessage,
  type NetworkState as WireNetwork,
  type NetworkNode as WireNode,
  type NetworkService as WireService,
} from "./gen/shoal_pb.js";

const protocols = coding<NetworkPort["protocol"]>("protocol", {
  tcp: NetworkPort_Protocol.TCP,
  udp: NetworkPort_Protocol.UDP,
  sctp: NetworkPort_Protocol.SCTP,
});

export function networksMessageToWire(message: NetworksMessage): Init<typeof NetworksMessageSchema> {
  return {
    complete: message.type === "complete",
    revision: BigInt(message.revision),
    changes: message.changes.map(changeToWire),
  };
}

/** Changes of a kind that this version doesn't know are left out. */
export function networksMessageFromWire(message: WireMessage): NetworksMessage {
  return {
    type: message.complete ? "complete" : "incremental",
    revision: Number(message.revision),
    changes: message.changes.map(changeFromWire).filter((change): change is NetworkChange => change !== undefined),
  };
}

function changeToWire(change: NetworkChange): Init<typeof NetworkChangeSchema> {
  switch (change.kind) {
    case "network": {
      const { id: networkId, ...network } = change.network;
      return { networkId, change: { case: "network", value: network } };
    }
    case "remove-network":
      return { networkId: change.networkId, change: { case: "removeNetwork", value: true } };
    case "node":
      return { networkId: change.networkId, change: { case: "node", value: change.node } };
    case "remove-node":
      return { networkId: change.networkId, change: { case: "removeNode", value: change.nodeId } };
    case "endpoint":
      return {
        networkId: change.networkId,
        change: { case: "endpoint", value: { ...change.endpoint, names: [...change.endpoint.names] } },
      };
    case "remove-endpoint":
      return { networkId: change.networkId, change: { case: "removeEndpoint", value: change.taskId } };
    case "service":
      return { networkId: change.networkId, change: { case: "service", value: serviceToWire(change.service) } };
    case "remove-service":
      return { networkId: change.networkId, change: { case: "removeService", value: change.serviceId } };
    case "key": {
      const key = Buffer.from(change.key.key, "base64");
      return { change: { case: "key", value: { key, revision: BigInt(change.key.revision) } } };
    }
    default:
      return unreachable(change);
  }
}

function serviceToWire({ aliases, ports, ...service }: NetworkService) {
  return {
    ...service,
    aliases: [...aliases],
    ports: ports.map(({ protocol, published, target }) => ({
      protocol: protocols.encode(protocol),
      published,
      target,
    })),
  };
}

function changeFromWire({ networkId, change }: WireChange): NetworkChange | undefined {
  switch (change.case) {
    case "network":
      return { kind: "network", network: networkFromWire(networkId, change.value) };
    case "removeNetwork":
      return { kind: "remove-network", networkId };
    case "node":
      return { kind: "node", networkId, node: nodeFromWire(change.value) };
    case "removeNode":
      return { kind: "remove-node", networkId, nodeId: change.value };
    case "endpoint":
      return { kind: "endpoint", networkId, endpoint: endpointFromWire(change.value) };
    case "removeEndpoint":
      return { kind: "remove-endpoint", networkId, taskId: change.value };
    case "service":
      return { kind: "service", networkId, service: serviceFromWire(change.value) };
    case "removeService":
      return { kind: "remove-service", networkId, serviceId: change.value };
    case "key": {
      const key = Buffer.from(change.value.key).toString("base64");
      return { kind: "key", key: { key, revision: Number(change.value.revision) } };
    }
    case undefined:
      return undefined;
    default:
      return unreachable(change);
  }
}

function networkFromWire(id: string, network: WireNetwork): NetworkState {
  const { name, vxlanId, dataPathPort, subnet, gateway, mtu, internal, ingress, encrypted } = network;
  return {
    id,
    name,
    vxlanId,
    ...(dataPathPort !== 0 && { dataPathPort }),
    subnet,
    gateway,
    ...(mtu !== 0 && { mtu }),
    internal,
    ingress,
    encrypted,
  };
}

function nodeFromWire({ nodeId, address, ownAddress, publicKey }: WireNode): NetworkNode {
  return { nodeId, address, ...(ownAddress && { ownAddress }), ...(publicKey && { publicKey }) };
}

function endpointFromWire({ taskId, serviceId, nodeId, address, names, active }: WireEndpoint): NetworkEndpoint {
  return { taskId, serviceId, nodeId, address, names, active };
}

function serviceFromWire({ serviceId, name, aliases, virtualAddress, ports }: WireService): NetworkService {
  return {
    serviceId,
    name,
    aliases,
    ...(virtualAddress && { virtualAddress }),
    ports: ports.map(({ protocol, published, target }) => ({
      protocol: protocols.decode(protocol),
      published,
      target,
    })),
  };
}

export function dataPathToWire(dataPath: DataPath): Init<typeof DataPathSchema> {
  return { ...dataPath };
}

/** Throws InvalidArgument for a request without one. */
export function dataPathFromWire(dataPath: WireDataPath | undefined): DataPath {
  if (!dataPath) throw new ShoalError("InvalidArgument", "the node says nothing of its data path");
  const { address, publicKey, encryptionProblem } = dataPath;
  return { address, ...(publicKey && { publicKey }), ...(encryptionProblem && { encryptionProblem }) };
}
