/**
 * The HTTP server of the API: every connection, request and upgrade is either for one of our routes or the Engine's,
 * and that is decided from the first line and the head alone, before any of the body is read.
 *
 * Invariant: a handler's failure is one answer to one client. Whatever it throws becomes an error body (or, after
 * the head is out, a broken connection), never a crash and never an answer that looks complete.
 */
import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { maxHeadBytes } from "../engine/ask.ts";
import { beginsHijack, headOf, splice } from "../engine/hijack.ts";
import { passThrough } from "../engine/passthrough.ts";
import { unreachable } from "../lib/errors.ts";
import { limits } from "../lib/limits.ts";
import { readJson } from "./body.ts";
import type { ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { errorAnswer } from "./errors.ts";
import { askedVersion, type RouteMatch, Router } from "./router.ts";
import { type ApiVersions, versionText } from "./versions.ts";

export interface ApiServerOptions {
  readonly context: ApiContext;
  readonly routes: readonly Route[];
  readonly versions: ApiVersions;
  /** Told before and after each request of ours. */
  readonly onRequest?: () => void;
}

/** What answers on any number of servers (one per `--host`). */
export class ApiServer {
  readonly #options: ApiServerOptions;
  readonly #router: Router;
  /** Connections that no server knows of any more: spliced, or yet without a first line. */
  readonly #connections = new Set<Socket>();
  #closed = false;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#router = new Router(options.routes);
  }

  /** Makes `server` (http or https, not yet listening) answer the API. */
  attach(server: Server): void {
    const tuned: ServerTuning = server;
    tuned.maxHeaderSize = maxHeadBytes;
    tuned.requireHostHeader = false; // the Engine's to demand
    tuned.allowHalfOpen = true; // the end of a hijacked stream's input is not the end of its output
    tuned.requestTimeout = 0; // an image may be loaded for longer than any limit
    tuned.keepAliveTimeout = 0; // as the Engine's: closing an idle connection meets the client's next request
    tuned.shouldUpgradeCallback = ({ method, url }) => !this.#router.match(method ?? "", url ?? "");
    server.on("request", (request, response) => void this.#serve(request, response, false));
    server.on("checkContinue", (request, response) => void this.#serve(request, response, true));
    server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#splice(socket as Socket, Buffer.concat([headOf(request), head])),
    );
    server.on("clientError", refuseConnection);
    this.#lookFirst(server);
  }

  /** Ends the connections that closing the servers would not end. */
  close(): void {
    this.#closed = true;
    for (const connection of this.#connections) connection.destroy();
  }

  /**
   * Looks at the first line of each connection before the parser has it: a connection that begins with an attach or
   * exec request is spliced even where no upgrade is asked for. (On a later request of a connection, attach and exec
   * need the upgrade, else they are passed on as ordinary requests, whose output works and whose input does not.)
   */
  #lookFirst(server: Server): void {
    const event = server.listenerCount("secureConnection") > 0 ? "secureConnection" : "connection";
    const parse = server.listeners(event) as ((socket: Socket) => void)[];
    server.removeAllListeners(event);
    server.on(event, (socket: Socket) => {
      if (this.#closed) return void socket.destroy();
      this.#track(socket);
      let first: Buffer = Buffer.alloc(0);
      const leave = () => {
        socket.pause();
        socket.off("data", onData).off("end", onEnd).off("error", onError);
      };
      const hand = () => {
        this.#connections.delete(socket);
        if (first.length > 0) socket.unshift(first);
        for (const listener of parse) listener.call(server, socket);
        socket.resume();
      };
      const onData = (chunk: Buffer) => {
        first = first.length === 0 ? chunk : Buffer.concat([first, chunk]);
        const verdict = beginsHijack(first);
        if (verdict === "unknown") return;
        leave();
        if (verdict === "yes") this.#splice(socket, first);
        else hand();
      };
      const onEnd = () => socket.destroy();
      const onError = () => socket.destroy();
      socket.on("data", onData).on("end", onEnd).on("error", onError);
    });
  }

  #track(socket: Socket): void {
    this.#connections.add(socket);
    socket.once("close", () => this.#connections.delete(socket));
  }

  #splice(client: Socket, head: Buffer): void {
    this.#track(client);
    splice({ socketPath: this.#options.context.engineSocket, client, head });
  }

  async #serve(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): Promise<void> {
    const match = this.#router.match(request.method ?? "", request.url ?? "");
    if (!match) {
      const { context, versions } = this.#options;
      passThrough(request, response, {
        socketPath: context.engineSocket,
        onAnswer: ({ headers }) => versions.learn(headers["api-version"]),
      });
      return;
    }
    try {
      send(response, await this.#handle(match, request, response, expectsContinue), this.#commonHeaders());
    } catch (error) {
      this.#refuse(request, response, error);
    }
  }

  async #handle(
    { route, params, query, versionText }: RouteMatch,
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ): Promise<ApiAnswer> {
    const gone = new AbortController();
    response.on("close", () => {
      if (!response.writableFinished) gone.abort();
    });
    this.#options.onRequest?.();
    const apiVersion = await this.#options.versions.accept(askedVersion(versionText), gone.signal);
    let body: Promise<unknown> | undefined;
    const apiRequest: ApiRequest = {
      method: request.method ?? "",
      params,
      query,
      apiVersion,
      headers: request.headers,
      body() {
        if (!body && expectsContinue) response.writeContinue();
        body ??= readJson(request, route.bodyBytes ?? limits.specBodyBytes);
        return body;
      },
      signal: gone.signal,
      raw: { request, response },
    };
    const answer = await route.handle(apiRequest);
    this.#options.onRequest?.();
    return answer;
  }

  #commonHeaders(): Record<string, string> {
    return { "Api-Version": versionText(this.#options.versions.known), Ostype: "linux", Server: "Shoal" };
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const { status, message, unexpected } = errorAnswer(error);
    const gone = response.destroyed || request.socket.destroyed;
    if (!gone && (unexpected || status >= 500)) {
      const what = `handler for ${request.method} ${request.url} returned error: ${message}`;
      const { log } = this.#options.context;
      if (unexpected) log.error(what, { stack: error instanceof Error ? error.stack : undefined });
      else log.warn(what);
    }
    if (response.headersSent || gone) {
      response.destroy();
      return;
    }
    const answer = { kind: "json", status, body: { message } } as const;
    const isUnread = !request.complete;
    // A client that waits to be told to continue will not send the rest, and what it sends next would be taken for it.
    const waits = request.headers.expect !== undefined;
    if (isUnread && waits) response.setHeader("Connection", "close");
    if (isUnread && !waits) this.#answerBeforeTheEnd(request, response, answer);
    else send(response, answer, this.#commonHeaders());
  }

  /**
   * Answers at once, and ends the answer when the rest of the body has come and been dropped: a client that writes
   * first, and only then reads, must not find the connection closed. For one that never ends there are bounds.
   */
  #answerBeforeTheEnd(request: IncomingMessage, response: ServerResponse, { status, body }: JsonAnswer): void {
    const text = `${JSON.stringify(body)}\n`;
    response.writeHead(status, { ...this.#commonHeaders(), ...jsonHeaders(text) });
    response.write(text);
    const timer = this.#options.context.clock.after(dropMs, () => response.end());
    let dropped = 0;
    request.on("data", (chunk: Buffer) => {
      dropped += chunk.length;
      if (dropped > dropBytes) response.end();
    });
    request.once("end", () => response.end());
    response.once("close", () => timer.cancel());
    request.resume();
  }
}

type JsonAnswer = Extract<ApiAnswer, { readonly kind: "json" }>;

/** How much of a refused body, and for how long, is read and dropped, until the connection is closed over it. */
const dropBytes = 64 * 1024 * 1024;
const dropMs = 10_000;

/** Members of node's servers that its types leave out. */
interface ServerTuning {
  maxHeaderSize?: number;
  requireHostHeader?: boolean;
  allowHalfOpen?: boolean;
  requestTimeout: number;
  keepAliveTimeout: number;
  shouldUpgradeCallback?: (request: IncomingMessage) => boolean;
}

function send(response: ServerResponse, answer: ApiAnswer, headers: Readonly<Record<string, string>>): void {
  switch (answer.kind) {
    case "json": {
      const body = `${JSON.stringify(answer.body)}\n`;
      response.writeHead(answer.status, { ...headers, ...jsonHeaders(body) });
      response.end(body);
      return;
    }
    case "empty":
      response.writeHead(answer.status, answer.status === 204 ? headers : { ...headers, "Content-Length": 0 });
      response.end();
      return;
    case "handled":
      return;
    default:
      unreachable(answer);
  }
}

function jsonHeaders(body: string) {
  return { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
}

/** What is no HTTP: the status that fits, and the end of the connection. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable || error.code === "ECONNRESET") return void socket.destroy();
  const status = error.code === "HPE_HEADER_OVERFLOW" ? 431 : error.code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
  const body = `${JSON.stringify({ message: `${STATUS_CODES[status]}: ${error.message}` })}\n`;
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body);
}
