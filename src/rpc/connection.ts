/**
 * One TLS connection to a manager: one HTTP/2 session, opened at once and never again. When it fails, every call on it
 * (running or new) ends with Unavailable, and whoever dialled dials anew.
 */
import { X509Certificate } from "node:crypto";
import http2 from "node:http2";
import { connect, type DetailedPeerCertificate, type SecureContextOptions, type TLSSocket } from "node:tls";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { messageOf } from "../lib/errors.ts";
import { fromConnectError } from "./errors.ts";
import type { SignsOfLife } from "./services.ts";

export interface ConnectionOptions {
  /** host:port; an IPv6 host in brackets. */
  readonly address: string;
  /** The name that the manager's certificate must have. */
  readonly serverName: "swarm-manager" | "swarm-ca";
  readonly tls: SecureContextOptions;
  /** False only to fetch a root that is then checked in another way. */
  readonly verify: boolean;
}

/** What a stock manager may send in one message: as much as its protocol's library takes. */
const receiveBytes = 2 ** 31 - 1;

/**
 * What the pings of our managers carry. A stock manager pings too, but only now and then, to measure the line: nothing
 * follows from its silence.
 */
export const managerPing = Buffer.from("shoal up");

type State =
  | { readonly kind: "open" }
  /** `reason`: the first error, or that we closed it. */
  | { readonly kind: "closed"; readonly reason: ConnectError };

export class Connection {
  readonly transport: Transport;
  readonly #session: http2.ClientHttp2Session;
  readonly #connected: Promise<void>;
  readonly #calls = new Set<AbortController>();
  #state: State = { kind: "open" };
  #socket: TLSSocket | undefined;
  #accepted = false;
  #pings = false;

  constructor(options: ConnectionOptions) {
    const { origin, hostname, port } = new URL(`https://${options.address}`);
    const session = http2.connect(origin, {
      createConnection: () => {
        this.#socket = connect({
          ...options.tls,
          host: hostname.replace(/^\[|\]$/g, ""),
          port: Number(port) || 443,
          ALPNProtocols: ["h2"],
          minVersion: "TLSv1.2",
          servername: options.serverName,
          rejectUnauthorized: options.verify,
        });
        return this.#socket.once("connect", () => (this.#accepted = true));
      },
    });
    this.#session = session;
    session.on("ping", (payload: Buffer) => (this.#pings ||= payload.equals(managerPing)));
    this.#connected = new Promise((resolve) => {
      session.once("connect", () => resolve());
      session.once("close", () => resolve());
    });
    session.on("error", (error) => this.#end(messageOf(error)));
    session.once("close", () => this.#end("the manager closed the connection"));
    this.transport = createGrpcTransport({
      baseUrl: origin,
      acceptCompression: [],
      readMaxBytes: receiveBytes,
      sessionManager: {
        authority: origin,
        request: (method, path, headers, streamOptions) => this.#request(method, path, headers, streamOptions),
        notifyResponseByteRead() {},
      },
    });
  }

  signs(): SignsOfLife {
    return { accepted: this.#accepted, bytesRead: this.#socket?.bytesRead ?? 0, pings: this.#pings };
  }

  /** The certificates that the manager has shown, leaf first, PEM; "" when it has shown none (yet). */
  peerChain(): string {
    const chain: string[] = [];
    let next: DetailedPeerCertificate | undefined = this.#socket?.getPeerCertificate(true);
    while (next?.raw) {
      const above: DetailedPeerCertificate = next.issuerCertificate;
      chain.push(new X509Certificate(next.raw).toString());
      next = above === next ? undefined : above; // the last one is its own issuer
    }
    return chain.join("");
  }

  /** Ends the connection and all its calls at once. */
  close(): void {
    this.#end("the connection was closed");
  }

  /** A call with one answer. What it throws is a ShoalError. */
  async call<T>(signal: AbortSignal, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const running = this.#begin(signal);
    try {
      return await call(running.signal);
    } catch (error) {
      throw fromConnectError(error, signal);
    } finally {
      running.end();
    }
  }

  /** A call with a stream of answers. */
  async *stream<Wire, T>(
    signal: AbortSignal,
    call: (signal: AbortSignal) => AsyncIterable<Wire>,
    fromWire: (message: Wire) => T,
  ): AsyncGenerator<T, void, void> {
    const running = this.#begin(signal);
    try {
      for await (const message of call(running.signal)) yield fromWire(message);
    } catch (error) {
      throw fromConnectError(error, signal);
    } finally {
      running.end();
    }
  }

  /** A call's own signal: it aborts with the caller's, with the connection, and when the call is left. */
  #begin(signal: AbortSignal): { readonly signal: AbortSignal; end(): void } {
    const call = new AbortController();
    if (this.#state.kind === "closed") call.abort(this.#state.reason);
    const onAbort = () => call.abort(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort);
    this.#calls.add(call);
    return {
      signal: call.signal,
      end: () => {
        this.#calls.delete(call);
        signal.removeEventListener("abort", onAbort);
        call.abort();
      },
    };
  }

  #end(reason: string): void {
    if (this.#state.kind === "closed") return;
    const error = new ConnectError(reason, Code.Unavailable);
    this.#state = { kind: "closed", reason: error };
    for (const call of [...this.#calls]) call.abort(error);
    this.#session.destroy(undefined, http2.constants.NGHTTP2_CANCEL);
  }

  async #request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: Omit<http2.ClientSessionRequestOptions, "signal">,
  ): Promise<http2.ClientHttp2Stream> {
    await this.#connected;
    if (this.#state.kind === "closed") throw this.#state.reason;
    if (this.#session.closed) throw new ConnectError("the manager is closing the connection", Code.Unavailable);
    return this.#session.request({ ...headers, ":method": method, ":path": path }, options);
  }
}
