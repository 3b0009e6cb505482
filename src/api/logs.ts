/**
 * `/services/{id}/logs` and `/tasks/{id}/logs`: the lines of tasks wherever they run, as one stream. A line is written
 * the moment it comes; when the client leaves, everything behind the stream ends.
 *
 * A line is `[TIMESTAMP ][ATTRIBUTES ]LINE` (the CLI splits it at the spaces), in a frame of Docker's multiplexed
 * stream unless the service has a TTY. A failure after the first byte, such as a node that cannot be reached, is a
 * frame of stream 3.
 */
import type { ServerResponse } from "node:http";
import { joinTask } from "../model/join.ts";
import { isBefore } from "../model/service-version.ts";
import type { TaskSpec } from "../model/types.ts";
import type { LogMessage, LogOptions, LogStream } from "../rpc/services.ts";
import type { View } from "../store/store.ts";
import type { ApiAnswer, ApiContext, ApiRequest, LogSelector, Route } from "./context.ts";
import { badRequest, errorAnswer } from "./errors.ts";
import { lookupService, lookupTask } from "./lookup.ts";
import { requireManager } from "./membership.ts";
import { looseFlag } from "./query.ts";

interface Source {
  readonly selector: LogSelector;
  readonly template: TaskSpec | undefined;
}

export function logRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/services/:id/logs", handle: (request) => streamLogs(context, request, serviceSource) },
    { method: "GET", path: "/tasks/:id/logs", handle: (request) => streamLogs(context, request, taskSource) },
  ];
}

function serviceSource(view: View, name: string): Source {
  const service = lookupService(view, name);
  return { selector: { serviceIds: [service.ID], taskIds: [] }, template: view.specOf(service).Spec.TaskTemplate };
}

function taskSource(view: View, name: string): Source {
  const task = lookupTask(view, name);
  return { selector: { serviceIds: [], taskIds: [task.ID] }, template: joinTask(task, view)?.Spec };
}

async function streamLogs(
  context: ApiContext,
  request: ApiRequest,
  sourceOf: (view: View, name: string) => Source,
): Promise<ApiAnswer> {
  const options = logOptions(request.query);
  const manager = requireManager(context.node);
  await manager.store.caughtUp();
  const { selector, template } = sourceOf(manager.store.view, request.params.id ?? "");
  const isTty = template?.ContainerSpec?.TTY === true;
  const { response } = request.raw;
  const multiplexed = !isTty && !isBefore(request.apiVersion, 42);
  const contentType = `application/vnd.docker.${multiplexed ? "multiplexed" : "raw"}-stream`;
  response.writeHead(200, { "Content-Type": contentType });
  // At once: a client that follows a silent service has to know that it is connected.
  response.flushHeaders();
  const writer = new LogWriter(response, { isTty, ...decorations(request.query) }, request.signal);
  try {
    for await (const message of manager.logs(selector, options, request.signal)) await writer.line(message);
  } catch (error) {
    if (!request.signal.aborted) {
      const { message, unexpected } = errorAnswer(error);
      if (unexpected && error instanceof Error)
        context.log.error(`log stream failed: ${message}`, { stack: error.stack });
      await writer.failure(`Error grabbing logs: ${message}\n`);
    }
  }
  response.end();
  return { kind: "handled" };
}

function decorations(query: URLSearchParams) {
  return { details: looseFlag(query, "details"), timestamps: looseFlag(query, "timestamps") };
}

function logOptions(query: URLSearchParams): LogOptions {
  const streams: LogStream[] = [];
  if (looseFlag(query, "stdout")) streams.push("stdout");
  if (looseFlag(query, "stderr")) streams.push("stderr");
  if (streams.length === 0) throw badRequest("Bad parameters: you must choose at least one stream");
  return {
    streams,
    follow: looseFlag(query, "follow"),
    tail: tailLines(query.get("tail") ?? ""),
    since: sinceTime(query.get("since") ?? ""),
  };
}

function tailLines(text: string): number | undefined {
  if (text === "" || text === "all") return undefined;
  if (/^-\d+$/.test(text)) throw badRequest("negative tail values not supported");
  const lines = Number(text);
  if (!/^\+?\d+$/.test(text) || !Number.isSafeInteger(lines)) {
    throw badRequest('tail value must be a positive integer or "all"');
  }
  return lines;
}

/** `seconds[.fraction]` of the Unix epoch as RFC 3339 with nanoseconds; "" (from the start) where it is not given. */
function sinceTime(text: string): string {
  if (text === "") return "";
  const [, seconds = "", fraction = ""] = /^(-?\d{1,12})(?:\.(\d{0,20}))?$/.exec(text) ?? [];
  const date = new Date(Number(seconds) * 1000);
  if (seconds === "" || Number.isNaN(date.getTime())) {
    throw badRequest(`invalid value for "since": invalid timestamp ${JSON.stringify(text)}`);
  }
  return `${date.toISOString().slice(0, -"000Z".length)}${fraction.slice(0, 9).padEnd(9, "0")}Z`;
}

/** Docker's numbers of the streams in a frame's header. */
const streamNumbers = { stdout: 1, stderr: 2, system: 3 } as const;

interface LineForm {
  /** No frames: the bytes as they are. */
  readonly isTty: boolean;
  readonly details: boolean;
  readonly timestamps: boolean;
}

class LogWriter {
  readonly #response: ServerResponse;
  readonly #form: LineForm;
  readonly #signal: AbortSignal;

  constructor(response: ServerResponse, form: LineForm, signal: AbortSignal) {
    this.#response = response;
    this.#form = form;
    this.#signal = signal;
  }

  /** Resolves when there is room for more. */
  line(message: LogMessage): Promise<void> | undefined {
    const { details, timestamps } = this.#form;
    const prefix = `${timestamps ? `${fixedNanoseconds(message.timestamp)} ` : ""}${details ? `${attributes(message)} ` : ""}`;
    return this.#write(streamNumbers[message.stream], Buffer.from(prefix), message.data);
  }

  failure(text: string): Promise<void> | undefined {
    return this.#write(streamNumbers.system, Buffer.from(text), new Uint8Array());
  }

  #write(stream: number, prefix: Buffer, data: Uint8Array): Promise<void> | undefined {
    const parts = this.#form.isTty ? [prefix, data] : [frameHeader(stream, prefix.length + data.length), prefix, data];
    return this.#response.write(Buffer.concat(parts)) ? undefined : this.#drained();
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#response.off("drain", done);
        this.#response.off("close", done);
        this.#signal.removeEventListener("abort", done);
        resolve();
      };
      this.#response.once("drain", done);
      this.#response.once("close", done);
      this.#signal.addEventListener("abort", done, { once: true });
    });
  }
}

function frameHeader(stream: number, length: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(stream, 0);
  header.writeUInt32BE(length, 4);
  return header;
}

/** RFC 3339 with exactly nine digits, so that lines are aligned. */
function fixedNanoseconds(timestamp: string): string {
  const [, seconds, fraction = "", zone] = /^([^.Z+]*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(timestamp) ?? [];
  return seconds === undefined ? timestamp : `${seconds}.${fraction.slice(0, 9).padEnd(9, "0")}${zone}`;
}

const contextPrefix = "com.docker.swarm";

/** The attributes of a line, sorted by their names: where it comes from, and what the log driver adds. */
function attributes({ context, attributes: own }: LogMessage): string {
  const all: Record<string, string> = {
    ...own,
    [`${contextPrefix}.node.id`]: context.nodeId,
    [`${contextPrefix}.service.id`]: context.serviceId,
    [`${contextPrefix}.task.id`]: context.taskId,
  };
  const names = Object.keys(all).sort();
  return names.map((name) => `${queryEscape(name)}=${queryEscape(all[name] ?? "")}`).join(",");
}

/** As Go's url.QueryEscape: a space is `+`, and only letters, digits and `-_.~` stay. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%20", "+");
}
