/**
 * A container's log as the Engine sends it, as messages with time, stream and attributes. Each line comes as
 * "TIME ATTRIBUTES text": TIME is RFC 3339 with nanoseconds, ATTRIBUTES is `key=value,...` percent-encoded or nothing.
 * Without a TTY every line is in a frame of its own (one byte stream, three zero, four length); with one the lines
 * come one after another, all as stdout.
 */
import type { LogMessage, LogStream } from "../../rpc/services.ts";

type Context = LogMessage["context"];

const headerBytes = 8;
const space = 0x20;
const newline = 0x0a;

/** A line is at most 16 KiB of log and its prefix; a TTY's may be longer, and is then cut. */
const longestLineBytes = 1024 * 1024;

/** One batch for each chunk that the Engine sent. */
export async function* logMessages(
  chunks: AsyncIterable<Uint8Array>,
  tty: boolean,
  context: Context,
): AsyncGenerator<readonly LogMessage[], void, void> {
  let rest: Uint8Array = new Uint8Array();
  for await (const chunk of chunks) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    const batch: LogMessage[] = [];
    rest = bytes.subarray(tty ? takeLines(bytes, context, batch) : takeFrames(bytes, context, batch));
    if (batch.length > 0) yield batch;
  }
  if (tty && rest.length > 0) yield [message(context, "stdout", rest)];
}

/** @returns bytes that were taken */
function takeFrames(bytes: Uint8Array, context: Context, batch: LogMessage[]): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (bytes.length - at >= headerBytes) {
    const end = at + headerBytes + view.getUint32(at + 4);
    if (end > bytes.length) break;
    const stream = view.getUint8(at) === 2 ? "stderr" : "stdout";
    batch.push(message(context, stream, bytes.subarray(at + headerBytes, end)));
    at = end;
  }
  return at;
}

function takeLines(bytes: Uint8Array, context: Context, batch: LogMessage[]): number {
  let at = 0;
  for (;;) {
    const found = bytes.indexOf(newline, at);
    const end = found >= 0 ? found + 1 : bytes.length - at > longestLineBytes ? bytes.length : -1;
    if (end < 0) return at;
    batch.push(message(context, "stdout", bytes.subarray(at, end)));
    at = end;
  }
}

function message(context: Context, stream: LogStream, line: Uint8Array): LogMessage {
  const timeEnd = line.indexOf(space);
  const attributesEnd = timeEnd < 0 ? -1 : line.indexOf(space, timeEnd + 1);
  if (attributesEnd < 0) return { context, timestamp: "", stream, data: line.slice(), attributes: {} };
  return {
    context,
    timestamp: Buffer.from(line.subarray(0, timeEnd)).toString(),
    stream,
    data: line.slice(attributesEnd + 1), // a copy: the chunk is given back to the socket
    attributes: attributes(Buffer.from(line.subarray(timeEnd + 1, attributesEnd)).toString()),
  };
}

function attributes(text: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const pair of text.split(",")) {
    const equals = pair.indexOf("=");
    if (equals > 0) found[decode(pair.slice(0, equals))] = decode(pair.slice(equals + 1));
  }
  return found;
}

/** The Engine encodes as a form does: a space is a plus. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text; // a lone percent sign: not what the Engine writes, and still worth showing
  }
}

/** RFC 3339 with up to nanoseconds as the Engine wants a `since`: Unix seconds with a fraction. */
export function unixTime(timestamp: string): string | undefined {
  const ms = Date.parse(timestamp);
  if (Number.isNaN(ms)) return undefined;
  const fraction = /\.(\d+)/.exec(timestamp)?.[1] ?? "";
  return `${Math.floor(ms / 1000)}.${fraction.slice(0, 9).padEnd(9, "0")}`;
}
