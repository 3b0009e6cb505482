/** A request's JSON body: read only when a handler asks for it, up to the limit, with the Engine's words for its faults. */
import type { IncomingMessage } from "node:http";
import { messageOf } from "../lib/errors.ts";
import { limits } from "../lib/limits.ts";
import { conform, type Shape } from "../model/validate-shape.ts";
import type { ApiRequest } from "./context.ts";
import { badRequest, DaemonError, inDaemonsWords } from "./errors.ts";

/** The whole body as it came. Throws 413 above the limit, 400 where the client breaks off. */
export async function readBody(
  request: IncomingMessage,
  limitBytes: number = limits.requestBodyBytes,
): Promise<Buffer> {
  const announced = Number(request.headers["content-length"] ?? 0);
  if (announced > limitBytes) throw tooLarge(limitBytes);
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    // Not destroyed when we leave early: the client has yet to read the 413.
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > limitBytes) throw tooLarge(limitBytes);
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof DaemonError) throw error;
    throw badRequest(`the request body ended early: ${messageOf(error)}`, error);
  }
  return Buffer.concat(chunks);
}

/** The body as a JSON value. Throws 400 for an empty one and for what is not JSON. */
export async function readJson(request: IncomingMessage, limitBytes: number): Promise<unknown> {
  return parseJson(await readBody(request, limitBytes));
}

export function parseJson(body: Buffer): unknown {
  const text = body.toString("utf8");
  if (text.trim() === "") throw badRequest("invalid JSON: got EOF while reading request body");
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badRequest(`invalid JSON: ${messageOf(error)}`, error);
  }
}

/** The body in a shape; members that it does not know are dropped. Throws 400 in the words of Go's decoder. */
export async function shapedBody<T extends object>(request: ApiRequest, shape: Shape): Promise<T> {
  const body = await request.body();
  try {
    return (conform(body, shape) ?? {}) as T;
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

/** Throws 413 for a body that was read for something else, and is too large for a spec. */
export function requireSpecSize(body: Buffer): void {
  if (body.length > limits.specBodyBytes) throw tooLarge(limits.specBodyBytes);
}

function tooLarge(limitBytes: number): DaemonError {
  const message = `http: request body too large: more than ${limitBytes} bytes`;
  return new DaemonError("InvalidArgument", message, { status: 413 });
}
