/**
 * The server's side of gRPC calls that have one request (all but the publishing of logs), straight on HTTP/2 streams:
 * frame in, message, service, message, frame out, trailers. What a manager of thousands of agents does all day are
 * such calls, and the general machinery of the library (adapters, web streams, an abort for each) costs several times
 * what they themselves do.
 *
 * Invariants: a call that fails before its first message answers with headers alone, later with trailers; nothing is
 * written to a stream that its caller has left; a caller that does not read is waited for.
 */
import type { ServerHttp2Stream } from "node:http2";
import {
  create,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, type ContextValues, type HandlerContext } from "@connectrpc/connect";
import { messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

type Method = DescService["methods"][number];
type Answer = MessageInitShape<DescMessage>;
type Implementation = (
  request: unknown,
  context: Pick<HandlerContext, "values" | "signal" | "service" | "method">,
) => Promise<Answer> | AsyncIterable<Answer>;

export interface DirectCall {
  readonly service: DescService;
  readonly method: Method;
  readonly run: Implementation;
}

/** Compression flag and length in front of each message. */
const prefixBytes = 5;

/** Hands every service on to `router`, and gives the calls with one request by their path. */
export function directCalls(
  router: ConnectRouter,
  addRoutes: (router: ConnectRouter) => void,
): Map<string, DirectCall> {
  const calls = new Map<string, DirectCall>();
  const service: ConnectRouter["service"] = (described, implementation) => {
    router.service(described, implementation);
    for (const method of described.methods as readonly Method[]) {
      const run = (implementation as Record<string, unknown>)[method.localName] as Implementation | undefined;
      if (!run || (method.methodKind !== "unary" && method.methodKind !== "server_streaming")) continue;
      calls.set(`/${described.typeName}/${method.name}`, { service: described, method, run });
    }
    return router;
  };
  addRoutes({ ...router, service });
  return calls;
}

/** Answers one call. Never throws: what can't be answered is logged. */
export async function answerDirectly(
  stream: ServerHttp2Stream,
  call: DirectCall,
  options: { readonly values: ContextValues; readonly receiveBytes: number; readonly log: Logger },
): Promise<void> {
  const { values, receiveBytes, log } = options;
  const gone = new AbortController();
  stream.on("error", (error) => log.debug("a call broke", { method: call.method.name, error: messageOf(error) }));
  stream.once("close", () => gone.abort(new ConnectError("the caller has gone", Code.Canceled)));
  try {
    const request = fromBinary(call.method.input, await readRequest(stream, receiveBytes));
    const context = { values, signal: gone.signal, service: call.service, method: call.method };
    const answer = call.run(request, context);
    if (answer instanceof Promise) send(stream, call, await answer);
    else for await (const message of answer) if (!send(stream, call, message)) await drained(stream);
    finish(stream, undefined);
  } catch (error) {
    finish(stream, ConnectError.from(error));
  }
}

function readRequest(stream: ServerHttp2Stream, limitBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    stream.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= limitBytes + prefixBytes) chunks.push(chunk);
      else reject(new ConnectError(`message is larger than ${limitBytes} bytes`, Code.ResourceExhausted));
    });
    stream.once("close", () => reject(new ConnectError("the caller has gone", Code.Canceled)));
    stream.once("end", () => {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      if (body.length < prefixBytes) return reject(new ConnectError("the request has no message", Code.Unimplemented));
      if (body[0] !== 0) return reject(new ConnectError("compression is not supported", Code.Unimplemented));
      if (body.readUInt32BE(1) !== body.length - prefixBytes) {
        return reject(new ConnectError("the request is not exactly one message", Code.Unimplemented));
      }
      resolve(body.subarray(prefixBytes));
    });
  });
}

/** False when the caller has to be waited for. */
function send(stream: ServerHttp2Stream, { method }: DirectCall, answer: Answer): boolean {
  if (stream.destroyed) throw new ConnectError("the caller has gone", Code.Canceled);
  begin(stream);
  const payload = toBinary(method.output, create(method.output, answer));
  const frame = Buffer.allocUnsafe(prefixBytes + payload.length);
  frame[0] = 0;
  frame.writeUInt32BE(payload.length, 1);
  frame.set(payload, prefixBytes);
  return stream.write(frame);
}

function begin(stream: ServerHttp2Stream): void {
  if (stream.headersSent) return;
  stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
}

function finish(stream: ServerHttp2Stream, error: ConnectError | undefined): void {
  if (stream.destroyed) return;
  const status = error
    ? { "grpc-status": String(error.code), "grpc-message": encodeURIComponent(error.rawMessage) }
    : { "grpc-status": "0" };
  if (error && !stream.headersSent) {
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto", ...status }, { endStream: true });
    return;
  }
  begin(stream);
  stream.once("wantTrailers", () => stream.sendTrailers(status));
  stream.end();
}

function drained(stream: ServerHttp2Stream): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.once("drain", done);
    stream.once("close", done);
    if (stream.destroyed) done();
  });
}
