/**
 * Requests that take over their connection (attach, exec, BuildKit's session): the two sockets are spliced byte for
 * byte, and each direction ends by itself, so that the end of a `docker run -i`'s input reaches the container while
 * its output goes on.
 *
 * Only the head of the Engine's answer is looked at. An answer that takes nothing over (an error, a detached exec) is
 * passed on with `Connection: close`: were the connection kept, its next request would go to the Engine unseen.
 */
import type { IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { engineDownText, maxHeadBytes } from "./ask.ts";

export interface Splice {
  readonly socketPath: string;
  /** The client's connection, nobody else's any more. It must allow half-open ends. */
  readonly client: Socket;
  /** The request's head, and what of its body has been read. */
  readonly head: Buffer;
}

/** Connects the client with the Engine. Returns at once; both sockets are closed when both sides have ended. */
export function splice({ socketPath, client, head }: Splice): void {
  const engine = connect({ path: socketPath, allowHalfOpen: true });
  let passed = false;
  let waiting: Buffer = Buffer.alloc(0);

  const onData = (chunk: Buffer) => {
    waiting = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk]);
    for (;;) {
      const end = waiting.indexOf("\r\n\r\n");
      if (end < 0) {
        if (waiting.length > maxHeadBytes) fail(new Error("its answer's head does not end"));
        return;
      }
      const answer = waiting.subarray(0, end + 4);
      const rest = waiting.subarray(end + 4);
      const kind = kindOfAnswer(answer.toString("latin1"));
      if (kind !== "interim") {
        engine.off("data", onData);
        engine.pause();
        passed = true;
        if (rest.length > 0) engine.unshift(rest);
        if (kind === "hijacked") client.write(answer);
        else giveUpConnection(answer);
        engine.pipe(client);
        return;
      }
      client.write(answer);
      waiting = rest;
    }
  };

  /** Passes an ordinary answer on; what the client still sends is of no use to anybody. */
  const giveUpConnection = (answer: Buffer) => {
    client.unpipe(engine);
    client.resume();
    client.write(withConnectionClose(answer));
    engine.end();
  };

  const fail = (error: Error) => {
    engine.destroy();
    if (passed || client.destroyed) return void client.destroy();
    passed = true;
    client.unpipe(engine);
    client.resume();
    client.end(errorAnswer(engineDownText(socketPath, error)));
  };

  engine.on("data", onData);
  engine.on("error", fail);
  engine.on("end", () => {
    if (!passed) fail(new Error("it closed the connection without an answer"));
  });
  client.on("error", () => engine.destroy());
  client.on("close", () => engine.destroy());
  engine.write(head);
  client.pipe(engine);
}

/** The request's head as it came, rebuilt from what the parser has kept of it. */
export function headOf(request: IncomingMessage): Buffer {
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let at = 0; at + 1 < request.rawHeaders.length; at += 2) {
    lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
  }
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
}

/** Only the beginnings of requests that can be one are held back until their first line is whole. */
const longestFirstLine = 8 * 1024;
const hijackingLine = /^POST (?:\/v[0-9.]+)?\/(?:containers\/[^/? ]+\/attach|exec\/[^/? ]+\/start)[? ]/;

/**
 * Whether a connection that begins with these bytes is one to splice: attach and exec take over the connection even
 * where the client does not ask for an upgrade (old clients), and then what follows the request is not HTTP.
 * `unknown`: more bytes are needed.
 */
export function beginsHijack(bytes: Buffer): "yes" | "no" | "unknown" {
  const post = "POST ";
  const start = bytes.subarray(0, post.length).toString("latin1");
  if (!post.startsWith(start.slice(0, post.length))) return "no";
  const end = bytes.indexOf("\n");
  if (end < 0) return bytes.length < longestFirstLine ? "unknown" : "no";
  return hijackingLine.test(bytes.subarray(0, end).toString("latin1")) ? "yes" : "no";
}

/** `hijacked`: what follows is a raw stream. An answer that says where it ends is an ordinary one. */
function kindOfAnswer(head: string): "interim" | "hijacked" | "ordinary" {
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0);
  if (status === 101) return "hijacked";
  if (status >= 100 && status < 200) return "interim";
  return status === 200 && !/\r\n(?:content-length|transfer-encoding):/i.test(head) ? "hijacked" : "ordinary";
}

function withConnectionClose(head: Buffer): Buffer {
  const lines = head.toString("latin1").slice(0, -4).split("\r\n");
  const kept = lines.filter((line) => !/^connection:/i.test(line));
  return Buffer.from(`${[...kept, "Connection: close"].join("\r\n")}\r\n\r\n`, "latin1");
}

function errorAnswer(message: string): string {
  const body = `${JSON.stringify({ message })}\n`;
  const head = [
    "HTTP/1.1 503 Service Unavailable",
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
  ];
  return `${head.join("\r\n")}\r\n\r\n${body}`;
}
