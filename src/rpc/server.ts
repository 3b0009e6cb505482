/**
 * The managers' port (2377): swarmkit's gRPC services over HTTP/2 and TLS.
 *
 * Invariants: a service is called only for a caller whose certificate was verified when it connected and which, at
 * this very call, is of this cluster and not removed (`services.authorize`); only the CA's calls come without one.
 * Sessions are never resumed, as a resumed one would not be verified anew. After `close` nothing holds the port.
 *
 * Differs from Swarm's: nothing that its agents could see.
 */
import { constants } from "node:crypto";
import http2 from "node:http2";
import type { Socket } from "node:net";
import type { SecureContextOptions, TLSSocket } from "node:tls";
import { createConnectRouter, createContextKey, createContextValues } from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { listening } from "../lib/listen.ts";
import type { Logger } from "../lib/log.ts";
import { managerPing } from "./connection.ts";
import { answerDirectly, directCalls } from "./direct.ts";
import { type Peer, peerOf } from "./peer.ts";
import type { PeerService } from "./peers.ts";
import { addManagerRoutes } from "./routes.ts";
import type { CallerConnection, ManagerServices, NodeIdentity } from "./services.ts";

export interface RpcServerOptions {
  readonly services: ManagerServices;
  /** For other managers; without it there are no calls for them. */
  readonly peers?: PeerService;
  /** Of a manager: its certificate answers as `swarm-manager` and `swarm-ca`. */
  readonly identity: NodeIdentity;
  readonly log: Logger;
}

export interface RpcServer {
  /** Resolves when it listens. `port` 0 takes a free one. Rejects with the system's error (EADDRINUSE). */
  listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }>;
  /** The renewed certificate (or a new root), for connections from now on; open ones go on with the old. */
  setIdentity(identity: NodeIdentity): void;
  /** Cuts all connections of a node, its open streams with them. */
  disconnect(nodeId: string): void;
  /** Ends everything at once; resolves when the port is free. */
  close(): Promise<void>;
}

/** One message of a node: as much as Swarm's managers take. */
const receiveBytes = 4 * 1024 * 1024;
/** Streams that a node has open at once are a handful, and one per followed log; more is not a node. */
const streamsPerConnection = 1_000;
/** To finish a TLS handshake: as long as an agent gives a call. */
const handshakeMs = 5_000;

const peerKey = createContextKey<Peer>({ kind: "anonymous", reason: "no connection" });

export function createRpcServer(options: RpcServerOptions): RpcServer {
  return new Http2RpcServer(options);
}

class Http2RpcServer implements RpcServer {
  readonly #log: Logger;
  readonly #server: http2.Http2SecureServer;
  /** All TCP connections, also those whose handshake is not done. */
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Map<http2.ServerHttp2Session, Peer>();
  #identity: NodeIdentity;

  constructor(options: RpcServerOptions) {
    this.#log = options.log;
    this.#identity = options.identity;
    this.#server = http2.createSecureServer({
      ...secureContext(options.identity),
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: handshakeMs,
      settings: { maxConcurrentStreams: streamsPerConnection },
    });
    this.#server.prependListener("secureConnection", assumeHttp2);
    this.#server.on("connection", (socket: Socket) => this.#track(socket));
    this.#server.on("session", (session) => this.#open(session));
    this.#server.on("stream", this.#handler(options));
    this.#server.on("tlsClientError", (error) => this.#log.debug("TLS handshake failed", { error: messageOf(error) }));
    this.#server.on("sessionError", (error) => this.#log.debug("connection failed", { error: messageOf(error) }));
  }

  async listen(host: string, port: number): Promise<{ readonly host: string; readonly port: number }> {
    await listening(this.#server, { host, port });
    this.#server.on("error", (error) => this.#log.error("server failed", { error: messageOf(error) }));
    const address = this.#server.address();
    return { host, port: address !== null && typeof address === "object" ? address.port : port };
  }

  setIdentity(identity: NodeIdentity): void {
    this.#identity = identity;
    this.#server.setSecureContext(secureContext(identity));
  }

  disconnect(nodeId: string): void {
    for (const [session, peer] of this.#sessions) {
      if (peer.kind === "node" && peer.caller.nodeId === nodeId) session.destroy();
    }
  }

  async close(): Promise<void> {
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : Promise.resolve();
    for (const session of this.#sessions.keys()) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #open(session: http2.ServerHttp2Session): void {
    const peer = peerOf(session.socket as TLSSocket, connectionOf(session));
    this.#sessions.set(session, peer);
    session.once("close", () => this.#sessions.delete(session));
    if (peer.kind === "node") {
      this.#log.debug("node connected", { "node.id": peer.caller.nodeId, address: peer.caller.address });
    }
  }

  /** Calls with one request directly; the rest through connect's adapter, with our log, and only the gRPC protocol. */
  #handler(options: RpcServerOptions): (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void {
    const router = createConnectRouter({
      grpc: true,
      grpcWeb: false,
      connect: false,
      acceptCompression: [],
      readMaxBytes: receiveBytes,
    });
    const direct = directCalls(router, (adding) =>
      addManagerRoutes(adding, {
        services: options.services,
        peers: options.peers,
        log: this.#log,
        peer: (values) => values.get(peerKey),
        clusterId: () => this.#identity.clusterId,
      }),
    );
    const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
    return (stream, headers) => {
      const path = headers[":path"] ?? "";
      const handler = handlers.get(path);
      const peer = stream.session && this.#sessions.get(stream.session as http2.ServerHttp2Session);
      if (!handler || !peer) {
        stream.respond({ ":status": 404 }, { endStream: true });
        return;
      }
      const values = createContextValues().set(peerKey, peer);
      const call = direct.get(path);
      if (call && isGrpc(headers)) {
        void answerDirectly(stream, call, { values, receiveBytes, log: this.#log });
        return;
      }
      const request = new http2.Http2ServerRequest(stream, headers, {}, []);
      const response = new http2.Http2ServerResponse(stream);
      handler(universalRequestFromNodeRequest(request, response, undefined, values))
        .then((answer) => universalResponseToNodeResponse(answer, response))
        .catch((error: unknown) => {
          // The answer could not be written: the node has gone, which its next connection mends.
          this.#log.debug("answer not sent", { method: request.url, error: messageOf(error) });
        });
    };
  }
}

/** Anything else is refused by the library, in its words. */
function isGrpc(headers: http2.IncomingHttpHeaders): boolean {
  const type = headers["content-type"] ?? "";
  return headers[":method"] === "POST" && (type === "application/grpc" || type === "application/grpc+proto");
}

function connectionOf(session: http2.ServerHttp2Session): CallerConnection {
  const closed = new AbortController();
  session.once("close", () => closed.abort());
  return {
    closed: closed.signal,
    bytesRead: () => (session.destroyed ? 0 : (session.socket as TLSSocket).bytesRead),
    ping(onAnswer) {
      if (session.destroyed || session.closed) return;
      session.ping(managerPing, (error) => {
        if (!error) onAnswer();
      });
    },
  };
}

function secureContext(identity: NodeIdentity): SecureContextOptions {
  if (identity.role !== "manager") throw new ShoalError("FailedPrecondition", "only a manager serves");
  return {
    key: identity.key,
    cert: identity.chain,
    ca: identity.rootCA,
    minVersion: "TLSv1.2",
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/**
 * After its first certificate renewal a stock agent dials without ALPN. node:http2 would answer it in HTTP/1 and the
 * node would be lost for ever; nothing but HTTP/2 is spoken here, so that is what it means.
 */
function assumeHttp2(socket: TLSSocket): void {
  if (socket.alpnProtocol === false) socket.alpnProtocol = "h2";
}
