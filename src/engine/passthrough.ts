/**
 * The raw pass-through: a request goes to the Engine as it came, and the answer comes back as the Engine gave it. No
 * body is parsed or held back; each side's back-pressure reaches the other, and so does its end: a client that goes
 * away ends the Engine's request, an Engine that breaks off breaks off the answer. Only the headers that are about
 * one connection and not about the request (RFC 9110, 7.6.1) are each side's own.
 *
 * Requests that take over the connection are in `hijack.ts`.
 */
import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type InformationEvent,
  type ServerResponse,
} from "node:http";
import { messageOf } from "../lib/errors.ts";
import { type EngineAnswer, engineDownText, maxHeadBytes } from "./ask.ts";

export interface PassThroughOptions {
  readonly socketPath: string;
  /** The body where it has been read already (to decide whose request it is); sent in place of the request's. */
  readonly body?: Buffer;
  /** Told of each answer's head, before it is passed on. */
  readonly onAnswer?: (answer: IncomingMessage) => void;
}

/** Passes the request on; returns at once, and ends when both sides have ended. */
export function passThrough(request: IncomingMessage, response: ServerResponse, options: PassThroughOptions): void {
  let upstream: ClientRequest;
  try {
    upstream = httpRequest({
      socketPath: options.socketPath,
      method: request.method ?? "GET",
      path: request.url ?? "/",
      headers: requestHeaders(request, options.body),
      setHost: false,
      agent: false,
      maxHeaderSize: maxHeadBytes,
    });
  } catch (error) {
    // A target or header that the parser let in and that may not be sent on.
    sendMessage(response, 400, `bad request: ${messageOf(error)}`);
    return;
  }
  passAnswer(request, response, upstream, options);
  passBody(request, response, upstream, options.body);
}

/** Passes an answer on that has been read as a whole. */
export function passWhole(response: ServerResponse, { status, rawHeaders, body }: EngineAnswer): void {
  const headers = filterHeaders(rawHeaders, (name) => !connectionHeaders.has(name) && name !== "content-length");
  if (status !== 204 && status !== 304) headers.push("Content-Length", String(body.length));
  response.writeHead(status, headers);
  response.end(body);
}

function passBody(request: IncomingMessage, response: ServerResponse, upstream: ClientRequest, body?: Buffer): void {
  response.on("close", () => {
    if (!response.writableFinished) upstream.destroy();
  });
  if (body || !hasBody(request)) {
    upstream.end(body);
    return;
  }
  // The Engine has to see the head at once: a build's body may take long to begin.
  upstream.flushHeaders();
  request.pipe(upstream, { end: false });
  request.on("end", () => {
    const trailers = pairs(request.rawTrailers);
    if (trailers.length > 0) upstream.addTrailers(trailers);
    upstream.end();
  });
  request.on("error", () => upstream.destroy());
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

function passAnswer(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: ClientRequest,
  { socketPath, onAnswer }: PassThroughOptions,
): void {
  let answered = false;
  let connected = false;
  upstream.on("socket", (socket) => socket.once("connect", () => (connected = true)));
  upstream.on("continue", () => response.writeContinue());
  upstream.on("information", (information: InformationEvent) => passInformation(response, information));
  upstream.on("error", (error) => {
    // What is left of the body has nowhere to go; it is read, so that the client comes to read our answer.
    request.unpipe(upstream);
    request.resume();
    if (answered || response.destroyed) return; // the answer has its own events
    sendMessage(response, connected ? 502 : 503, engineDownText(socketPath, error));
  });
  upstream.on("response", (answer) => {
    answered = true;
    onAnswer?.(answer);
    const headers = answerHeaders(answer);
    if (readsUntilClose(answer)) {
      // Framed by the connection's end: a raw stream, which chunking would change for a client that takes it as such.
      response.shouldKeepAlive = false;
      response.useChunkedEncodingByDefault = false;
    }
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, headers);
    response.flushHeaders(); // a log that is followed may have no first byte for hours
    answer.pipe(response, { end: false });
    answer.on("end", () => {
      const trailers = pairs(answer.rawTrailers);
      if (trailers.length > 0) response.addTrailers(trailers);
      response.end();
    });
    // Cut off in the middle: the client must not take it for the whole.
    answer.on("error", () => response.destroy());
    answer.on("close", () => {
      if (!answer.complete) response.destroy();
    });
  });
}

function passInformation(response: ServerResponse, { statusCode, headers }: InformationEvent): void {
  if (statusCode === 102) response.writeProcessing();
  const { link } = headers;
  if (statusCode === 103 && link) response.writeEarlyHints({ link });
}

/** An answer of this program's own, in the Engine API's form; for failures before the Engine's head has come. */
function sendMessage(response: ServerResponse, status: number, message: string): void {
  const body = `${JSON.stringify({ message })}\n`;
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}

/** Headers about one connection only. */
const connectionHeaders = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "upgrade",
  "http2-settings",
  "transfer-encoding",
]);

function requestHeaders(request: IncomingMessage, body: Buffer | undefined): string[] {
  const { headers } = request;
  const kept = filterHeaders(request.rawHeaders, (name) => {
    if (body && (name === "content-length" || name === "trailer" || name === "expect")) return false;
    return !connectionHeaders.has(name);
  });
  // One request a connection, but it is for us to close it: an Engine that answers and closes while the last bytes of
  // the body are on their way makes their write fail, and the answer that is there would be lost with the connection.
  kept.push("Connection", "keep-alive");
  if (body) kept.push("Content-Length", String(body.length));
  else if (headers["transfer-encoding"] !== undefined) kept.push("Transfer-Encoding", "chunked");
  // Without either there is no body; said in words, else the client of node:http would announce a chunked one.
  else if (headers["content-length"] === undefined && hasBodyByDefault(request.method))
    kept.push("Content-Length", "0");
  return kept;
}

function hasBodyByDefault(method: string | undefined): boolean {
  return !["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"].includes(method ?? "GET");
}

function answerHeaders(answer: IncomingMessage): string[] {
  return filterHeaders(answer.rawHeaders, (name) => !connectionHeaders.has(name));
}

function readsUntilClose({ headers, statusCode }: IncomingMessage): boolean {
  if (statusCode === 204 || statusCode === 304) return false;
  return headers["content-length"] === undefined && headers["transfer-encoding"] === undefined;
}

/** The raw list (names and values in turn) without the names, in lower case, that `keep` refuses. */
function filterHeaders(raw: readonly string[], keep: (name: string) => boolean): string[] {
  return pairs(raw)
    .filter(([name]) => keep(name.toLowerCase()))
    .flat();
}

function pairs(raw: readonly string[]): [string, string][] {
  const list: [string, string][] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) list.push([raw[at] ?? "", raw[at + 1] ?? ""]);
  return list;
}
