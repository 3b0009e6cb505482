/** Nodes, their descriptions and certificates, wire <-> model. */
import type { Node, NodeAvailability, NodeCertificate, NodeDescription, NodeRole } from "../model/types.ts";
import {
  coding,
  compact,
  dictionary,
  type Init,
  mapped,
  metaFromWire,
  metaToWire,
  resourcesFromWire,
  resourcesToWire,
  text,
} from "./convert-basics.ts";
import { NodeRole as WireNodeRole } from "./gen/common_pb.js";
import {
  type Certificate,
  type CertificateSchema,
  IssuanceStatus_State,
  type NodeDescriptionSchema,
  type NodeSchema,
  NodeSpec_Availability,
  NodeSpec_Membership,
  NodeStatus_State,
  RaftMemberStatus_Reachability,
  type Node as WireNode,
  type NodeDescription as WireNodeDescription,
} from "./gen/node_pb.js";

export const roles = coding<NodeRole>("node role", { worker: WireNodeRole.WORKER, manager: WireNodeRole.MANAGER });
export const availabilities = coding<NodeAvailability>("node availability", {
  active: NodeSpec_Availability.ACTIVE,
  pause: NodeSpec_Availability.PAUSE,
  drain: NodeSpec_Availability.DRAIN,
});
export const issuanceStates = coding("issuance state", {
  unknown: IssuanceStatus_State.UNKNOWN,
  renew: IssuanceStatus_State.RENEW,
  pending: IssuanceStatus_State.PENDING,
  issued: IssuanceStatus_State.ISSUED,
  failed: IssuanceStatus_State.FAILED,
  rotate: IssuanceStatus_State.ROTATE,
});
const nodeStates = coding("node state", {
  unknown: NodeStatus_State.UNKNOWN,
  down: NodeStatus_State.DOWN,
  ready: NodeStatus_State.READY,
  disconnected: NodeStatus_State.DISCONNECTED,
});
const reachabilities = coding("reachability", {
  unknown: RaftMemberStatus_Reachability.UNKNOWN,
  unreachable: RaftMemberStatus_Reachability.UNREACHABLE,
  reachable: RaftMemberStatus_Reachability.REACHABLE,
});

export function nodeDescriptionToWire(description: NodeDescription): Init<typeof NodeDescriptionSchema> {
  const { Platform: platform, Engine: engine, TLSInfo: tls } = description;
  return {
    hostname: description.Hostname ?? "",
    platform: platform && { architecture: platform.Architecture ?? "", os: platform.OS ?? "" },
    resources: description.Resources && resourcesToWire(description.Resources),
    engine: engine && {
      engineVersion: engine.EngineVersion ?? "",
      labels: engine.Labels ?? {},
      plugins: (engine.Plugins ?? []).map((plugin) => ({ type: plugin.Type ?? "", name: plugin.Name ?? "" })),
    },
    tlsInfo: tls && {
      trustRoot: Buffer.from(tls.TrustRoot ?? ""),
      certIssuerSubject: Buffer.from(tls.CertIssuerSubject ?? "", "base64"),
      certIssuerPublicKey: Buffer.from(tls.CertIssuerPublicKey ?? "", "base64"),
    },
  };
}

export function nodeDescriptionFromWire(description: WireNodeDescription): NodeDescription {
  const { platform, engine, tlsInfo: tls } = description;
  return compact<NodeDescription>({
    Hostname: text(description.hostname),
    Platform: platform && compact({ Architecture: text(platform.architecture), OS: text(platform.os) }),
    Resources: description.resources && resourcesFromWire(description.resources),
    Engine:
      engine &&
      compact({
        EngineVersion: text(engine.engineVersion),
        Labels: dictionary(engine.labels),
        Plugins: mapped(engine.plugins, (plugin) => ({ Type: plugin.type, Name: plugin.name })),
      }),
    TLSInfo:
      tls &&
      compact({
        TrustRoot: text(Buffer.from(tls.trustRoot).toString()),
        CertIssuerSubject: text(Buffer.from(tls.certIssuerSubject).toString("base64")),
        CertIssuerPublicKey: text(Buffer.from(tls.certIssuerPublicKey).toString("base64")),
      }),
  });
}

export function nodeToWire(node: Node): Init<typeof NodeSchema> {
  const manager = node.ManagerStatus;
  return {
    id: node.ID,
    meta: metaToWire(node),
    spec: {
      annotations: { name: node.Spec.Name ?? "", labels: node.Spec.Labels ?? {} },
      desiredRole: roles.encode(node.Spec.Role ?? "worker"),
      // A node that asks with a valid token is a member: Swarm no longer knows any other.
      membership: NodeSpec_Membership.ACCEPTED,
      availability: availabilities.encode(node.Spec.Availability ?? "active"),
    },
    description: node.Description && nodeDescriptionToWire(node.Description),
    status: {
      state: nodeStates.encode(node.Status.State),
      message: node.Status.Message ?? "",
      addr: node.Status.Addr ?? "",
    },
    managerStatus: manager && {
      addr: manager.Addr ?? "",
      leader: manager.Leader ?? false,
      reachability: reachabilities.encode(manager.Reachability ?? "unknown"),
    },
    certificate: node.Certificate && certificateToWire(node.ID, node.Certificate),
    role: roles.encode(node.Role),
  };
}

export function nodeFromWire(node: WireNode): Node {
  const { spec, status, managerStatus: manager } = node;
  return compact<Node>({
    ID: node.id,
    ...metaFromWire(node.meta),
    Spec: compact({
      Name: text(spec?.annotations?.name ?? ""),
      Labels: { ...spec?.annotations?.labels },
      Role: roles.decode(spec?.desiredRole ?? WireNodeRole.WORKER),
      Availability: availabilities.decode(spec?.availability ?? NodeSpec_Availability.ACTIVE),
    }),
    Description: node.description && nodeDescriptionFromWire(node.description),
    Status: compact({
      State: nodeStates.decode(status?.state ?? NodeStatus_State.UNKNOWN),
      Message: text(status?.message ?? ""),
      Addr: text(status?.addr ?? ""),
    }),
    Role: roles.decode(node.role),
    ManagerStatus:
      manager &&
      compact({
        Leader: manager.leader,
        Reachability: reachabilities.decode(manager.reachability),
        Addr: text(manager.addr),
      }),
    Certificate: node.certificate && certificateFromWire(node.certificate),
  });
}

export function certificateToWire(nodeId: string, certificate: NodeCertificate): Init<typeof CertificateSchema> {
  return {
    role: roles.encode(certificate.Role),
    csr: Buffer.from(certificate.CSR),
    status: { state: issuanceStates.encode(certificate.State), err: certificate.Err ?? "" },
    certificate: Buffer.from(certificate.Certificate),
    cn: nodeId,
  };
}

export function certificateFromWire(certificate: Certificate): NodeCertificate {
  return compact<NodeCertificate>({
    State: issuanceStates.decode(certificate.status?.state ?? IssuanceStatus_State.UNKNOWN),
    Role: roles.decode(certificate.role),
    CSR: Buffer.from(certificate.csr).toString(),
    Certificate: Buffer.from(certificate.certificate).toString(),
    Err: text(certificate.status?.err ?? ""),
  });
}
