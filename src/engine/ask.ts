/**
 * Single questions to the Engine over its unix socket, for the API's own answers (`/_ping`, `/info`, `/events`). Each
 * has a connection of its own: a kept one may be closed by the Engine in the moment that it is used again, and
 * opening a unix socket costs less than dealing with that.
 */
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { messageOf, ShoalError } from "../lib/errors.ts";

/** Bytes of a head (request line or status line, and headers), as Go's server takes them: build sends all registries' credentials in one. */
export const maxHeadBytes = 1024 * 1024;

/** Bytes of an answer that is read as a whole; `/info` of a big host has some 100 KiB. */
const answerBytes = 16 * 1024 * 1024;

export interface EngineAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Names and values in turn, as they came. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
}

export interface EngineQuestion {
  readonly method: string;
  /** With its query, not decoded. */
  readonly path: string;
  /** Beside those that every question has. */
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON; none where it is absent. */
  readonly body?: Buffer;
}

/** One clear sentence for an Engine that does not answer, whatever the reason. */
export function engineDown(socketPath: string, cause: unknown): ShoalError {
  return new ShoalError("Unavailable", engineDownText(socketPath, cause), { cause });
}

export function engineDownText(socketPath: string, cause: unknown): string {
  return `Cannot connect to the Docker Engine at unix://${socketPath}: ${messageOf(cause)}`;
}

/**
 * Asks, and resolves when the answer's head is there.
 * @throws ShoalError Unavailable where the Engine does not answer
 */
export function openEngine(
  socketPath: string,
  question: EngineQuestion,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { method, path, body } = question;
    const headers = {
      Host: "docker",
      ...question.headers,
      ...(body && { "Content-Type": "application/json", "Content-Length": body.length }),
    };
    const request = httpRequest(
      { socketPath, method, path, agent: false, signal, maxHeaderSize: maxHeadBytes, headers },
      resolve,
    );
    request.on("error", (error) => reject(engineDown(socketPath, error)));
    request.end(body);
  });
}

/**
 * Asks, and reads the whole answer (of any status).
 * @throws ShoalError Unavailable where the Engine does not answer, or not to the end
 */
export async function askEngine(
  socketPath: string,
  question: EngineQuestion,
  signal: AbortSignal,
): Promise<EngineAnswer> {
  const answer = await openEngine(socketPath, question, signal);
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > answerBytes) throw new Error(`an answer of more than ${answerBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw engineDown(socketPath, error);
  }
  const { statusCode = 502, headers, rawHeaders } = answer;
  return { status: statusCode, headers, rawHeaders, body: Buffer.concat(chunks) };
}
