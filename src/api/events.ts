/**
 * `/events`: the Engine's stream with the swarm's events put in. The Engine judges the query and ends the stream (at
 * `until`, or when it goes down), since its half is passed on line by line as it came; the swarm's half is written
 * between its lines. Past events (`since`) of both halves come in the order of their times.
 *
 * A client that reads too slowly holds back the Engine's half; when more than the limit of the swarm's events wait
 * for it, it is cut off.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { openEngine } from "../engine/ask.ts";
import type { Clock, Timer } from "../lib/clock.ts";
import { isShoalError } from "../lib/errors.ts";
import { limits } from "../lib/limits.ts";
import type { ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { DaemonError } from "./errors.ts";
import { includesEvent } from "./event-filter.ts";
import { parseAnyFilters } from "./filters.ts";
import type { SwarmEvent, SwarmEvents } from "./swarm-events.ts";

export function eventRoutes(context: ApiContext, events: SwarmEvents): Route[] {
  return [{ method: "GET", path: "/events", handle: (request) => streamEvents(context, events, request) }];
}

async function streamEvents(context: ApiContext, events: SwarmEvents, request: ApiRequest): Promise<ApiAnswer> {
  const { query, signal, raw } = request;
  const filters = parseAnyFilters(query.get("filters"));
  const engine = await open(context.engineSocket, raw.request.url ?? "/events", signal);
  if (engine.statusCode !== 200) {
    copyHead(engine, raw.response);
    engine.pipe(raw.response);
    return { kind: "handled" };
  }
  const since = timeOf(query.get("since"));
  const until = timeOf(query.get("until"));
  const wanted = (event: SwarmEvent) =>
    includesEvent(filters, event) &&
    (since === undefined || event.atMs >= since) &&
    (until === undefined || event.atMs <= until);
  const past = since === undefined && until === undefined ? [] : events.kept().filter(wanted);
  copyHead(engine, raw.response);
  const merge = new EventMerge({ response: raw.response, engine, past, clock: context.clock });
  const stop = events.listen((event) => {
    if (wanted(event)) merge.add(event);
  });
  raw.response.on("close", () => {
    stop();
    engine.destroy();
  });
  merge.start();
  return { kind: "handled" };
}

async function open(socketPath: string, path: string, signal: AbortSignal): Promise<IncomingMessage> {
  try {
    return await openEngine(socketPath, { method: "GET", path }, signal);
  } catch (error) {
    throw isShoalError(error) ? new DaemonError(error.code, error.message, { cause: error }) : error;
  }
}

function copyHead(engine: IncomingMessage, response: ServerResponse): void {
  const type = engine.headers["content-type"] ?? "application/json";
  response.writeHead(engine.statusCode ?? 502, { "Content-Type": type });
  response.flushHeaders();
}

/** Seconds and a fraction, as the CLI sends them, to milliseconds; anything else is the Engine's to refuse. */
function timeOf(text: string | null): number | undefined {
  if (!text || !/^\d+(\.\d+)?$/.test(text)) return undefined;
  return Number(text) * 1000;
}

/** An event as a line of the stream. `timeNano` is beyond what a number holds exactly, so it is put in as text. */
export function eventLine({ Type, Action, Actor, atMs }: SwarmEvent): string {
  const members = JSON.stringify({ Type, Action, Actor, scope: "swarm", time: Math.floor(atMs / 1000) });
  return `${members.slice(0, -1)},"timeNano":${atMs}000000}\n`;
}

/**
 * How long the Engine's first past events are waited for, before ours are written: they come in one piece with its
 * head, or there are none.
 */
const pastWaitMs = 100;

interface EventMergeOptions {
  readonly response: ServerResponse;
  readonly engine: IncomingMessage;
  /** Past events of the swarm, oldest first. */
  readonly past: readonly SwarmEvent[];
  readonly clock: Clock;
}

/** Writes the two halves into one response, whole lines only. */
class EventMerge {
  readonly #options: EventMergeOptions;
  #past: SwarmEvent[];
  /** Live events that came while past ones are still to be written, or the client was slow. */
  #waiting: string[] = [];
  #wait: Timer | undefined;
  #rest: Buffer = Buffer.alloc(0);

  constructor(options: EventMergeOptions) {
    this.#options = options;
    this.#past = [...options.past];
  }

  start(): void {
    const { engine, response, clock } = this.#options;
    if (this.#past.length > 0) this.#wait = clock.after(pastWaitMs, () => this.#pastIsOver());
    engine.on("data", (chunk: Buffer) => this.#onEngine(chunk));
    engine.on("end", () => {
      this.#pastIsOver();
      for (const line of this.#waiting) response.write(line);
      response.end(this.#rest);
    });
    engine.on("error", () => response.destroy());
    response.on("drain", () => {
      engine.resume();
      this.#flush();
    });
    response.on("close", () => this.#wait?.cancel());
  }

  add(event: SwarmEvent): void {
    this.#waiting.push(eventLine(event));
    if (this.#waiting.length > limits.streamBacklog) this.#options.response.destroy();
    else this.#flush();
  }

  /** The Engine's lines up to the last whole one, each after our past events of an earlier time. */
  #onEngine(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const end = bytes.lastIndexOf("\n") + 1;
    this.#rest = bytes.subarray(end);
    if (end === 0) return;
    const lines = bytes.subarray(0, end);
    if (this.#past.length > 0) this.#writeWithPast(lines);
    else this.#write(lines);
  }

  #writeWithPast(lines: Buffer): void {
    for (const line of lines.toString("utf8").split("\n").filter(Boolean)) {
      const time = Number(/"timeNano":(\d+)/.exec(line)?.[1] ?? 0) / 1e6;
      while (this.#past[0] && this.#past[0].atMs <= time) this.#write(eventLine(this.#past.shift()!));
      this.#write(`${line}\n`);
    }
  }

  #pastIsOver(): void {
    this.#wait?.cancel();
    this.#wait = undefined;
    for (const event of this.#past) this.#write(eventLine(event));
    this.#past = [];
    this.#flush();
  }

  #flush(): void {
    if (this.#past.length > 0) return;
    while (this.#waiting.length > 0 && !this.#options.response.writableNeedDrain) this.#write(this.#waiting.shift()!);
  }

  #write(data: Buffer | string): void {
    if (!this.#options.response.write(data)) this.#options.engine.pause();
  }
}
