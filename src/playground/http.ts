/** One request with a whole answer, to a unix socket or an address: all that the playground and the command line need of HTTP. */
import { request } from "node:http";
import type { Readable } from "node:stream";
import { ShoalError } from "../lib/errors.ts";

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

export interface HttpRequest {
  /** Either the path of a unix socket, or host and port. */
  readonly to: { readonly socket: string } | { readonly host: string; readonly port: number };
  readonly method?: string;
  readonly path: string;
  /** Sent as JSON; a stream is sent as it is. */
  readonly body?: unknown;
  readonly stream?: Readable;
  /** For the whole exchange (default 10 s). */
  readonly limitMs?: number;
}

/** Any status is an answer; Unavailable when there is none within the limit. */
export function exchange(options: HttpRequest): Promise<HttpAnswer> {
  const { to, path, method = "GET", limitMs = 10_000 } = options;
  const target = "socket" in to ? { socketPath: to.socket } : { host: to.host, port: to.port };
  const where = "socket" in to ? to.socket : `${to.host}:${to.port}`;
  const payload = options.body === undefined ? undefined : JSON.stringify(options.body);
  const headers: Record<string, string> = {};
  if (payload !== undefined) headers["Content-Type"] = "application/json";
  if (options.stream) headers["Content-Type"] = "application/x-tar";
  return new Promise((resolve, reject) => {
    const fail = (error: Error) =>
      reject(new ShoalError("Unavailable", `${method} ${where}${path}: ${error.message}`, { cause: error }));
    const call = request({ ...target, method, path, headers, agent: false }, (response) => {
      response.setEncoding("utf8");
      let text = "";
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
      response.on("error", fail);
    });
    const timer = setTimeout(() => call.destroy(new Error(`no answer within ${limitMs / 1000} s`)), limitMs);
    call.on("close", () => clearTimeout(timer));
    call.on("error", fail);
    if (options.stream) {
      options.stream.on("error", (error) => call.destroy(error));
      options.stream.pipe(call);
    } else {
      call.end(payload);
    }
  });
}

/** The JSON of an answer below 300; else Unknown with the server's own message. */
export async function exchangeJson<T>(options: HttpRequest): Promise<T> {
  const answer = await exchange(options);
  if (answer.status >= 300) {
    throw new ShoalError(
      "Unknown",
      `${options.method ?? "GET"} ${options.path}: ${answer.status} ${serverMessage(answer.text)}`,
    );
  }
  return (answer.text === "" ? undefined : JSON.parse(answer.text)) as T;
}

function serverMessage(text: string): string {
  try {
    const body = JSON.parse(text) as { message?: string };
    return body.message ?? text;
  } catch {
    return text; // not JSON: what the server said is the best message there is
  }
}
