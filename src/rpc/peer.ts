/**
 * Who is at the other end of a TLS connection. Certificates are optional on our port (a node that joins has none), so
 * node:tls lets everybody in: this is the one place where a certificate becomes a caller, and only a verified one does.
 */
import type { TLSSocket } from "node:tls";
import type { NodeRole } from "../model/types.ts";
import type { Caller, CallerConnection } from "./services.ts";

export type Peer =
  | { readonly kind: "node"; readonly caller: Caller }
  /** `reason`: why it is not a node. */
  | { readonly kind: "anonymous"; readonly reason: string };

const rolesByUnit: Readonly<Record<string, NodeRole>> = { "swarm-worker": "worker", "swarm-manager": "manager" };

/** Once per connection: a certificate can't change on it (TLS has no renegotiation here, and no resumed sessions). */
export function peerOf(socket: TLSSocket, connection: CallerConnection): Peer {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return { kind: "anonymous", reason: "no client certificates in request" };
  if (!socket.authorized) {
    return { kind: "anonymous", reason: `the certificate is not valid: ${socket.authorizationError}` };
  }
  const {
    O: clusterId,
    OU: unit,
    CN: nodeId,
  } = certificate.toLegacyObject().subject as unknown as Record<string, unknown>;
  const role = typeof unit === "string" ? rolesByUnit[unit] : undefined;
  if (typeof clusterId !== "string" || typeof nodeId !== "string" || !role) {
    return { kind: "anonymous", reason: "the certificate names no cluster, role and node" };
  }
  const address = (socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/, "");
  const caller = { nodeId, role, clusterId, address, certificate: certificate.toString(), connection };
  return { kind: "node", caller };
}
