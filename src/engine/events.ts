/**
 * The Engine's events, for as long as the agent lives: one stream, shared by all tasks, opened again whenever it ends
 * (from the last event that was seen). Since an Engine forgets its events when it restarts, events alone are never the
 * whole truth: after each (re)connect the listener is told, and looks at what there is.
 *
 * Invariant: `connected` is called after the subscription stands and before any event of it, so what is listed from
 * then on and what the events say leave no gap between them.
 */
import type { EventMessage } from "@docker/node-sdk";
import { Backoff } from "../lib/backoff.ts";
import { type Clock, pause } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Engine } from "./engine.ts";

export interface EngineEventsListener {
  /** The stream stands (again): look at everything. A failure ends the stream, and it is tried again. */
  connected(): Promise<void>;
  event(event: EventMessage): void;
  /** The stream ended or could not be opened; called once for each failed try. */
  lost(error: unknown): void;
}

export interface EngineEventsOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly filters: Readonly<Record<string, readonly string[]>>;
  readonly listener: EngineEventsListener;
}

/** An Engine restarts within a second or two: looking for it every second costs nothing. */
const reconnect = { baseMs: 50, maxMs: 1000 };

/** Events remembered to know a repeated one (the Engine itself keeps its last 256). */
const rememberedEvents = 512;

export class EngineEvents {
  readonly #options: EngineEventsOptions;
  readonly #abort = new AbortController();
  readonly #backoff: Backoff;
  readonly #seen = new Set<string>();
  #lastNano: number;
  #running: Promise<void> | undefined;

  constructor(options: EngineEventsOptions) {
    this.#options = options;
    this.#backoff = new Backoff(reconnect, options.random);
    // The Engine answers a little before it really listens; a time to start from closes that gap.
    this.#lastNano = options.clock.now() * 1e6;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#abort.abort(new ShoalError("Canceled", "stopped"));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, listener, log } = this.#options;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        await this.#follow(signal);
      } catch (error) {
        if (signal.aborted) return;
        log.debug("the Engine's event stream ended", { error: messageOf(error) });
        listener.lost(error);
      }
      await pause(clock, this.#backoff.nextMs(), signal);
    }
  }

  async #follow(signal: AbortSignal): Promise<never> {
    const { engine, filters, listener } = this.#options;
    // One stream's life: a failed `connected` must end the stream too.
    const stream = new AbortController();
    try {
      const lifetime = AbortSignal.any([signal, stream.signal]);
      const events = await engine.events({ filters, ...this.#since() }, lifetime);
      const connected = listener.connected().then(() => this.#backoff.reset());
      await Promise.all([connected, this.#read(events)]);
      throw new ShoalError("Unavailable", "the Docker Engine closed its event stream");
    } finally {
      stream.abort(new ShoalError("Canceled", "the event stream is done with"));
    }
  }

  async #read(events: AsyncIterable<EventMessage>): Promise<never> {
    for await (const event of events) {
      if (this.#repeated(event)) continue;
      this.#options.listener.event(event);
    }
    throw new ShoalError("Unavailable", "the Docker Engine closed its event stream");
  }

  /** From a little before the last event (a number holds nanoseconds only to the microsecond); repeats are dropped. */
  #since(): { readonly since: string } {
    const micros = Math.floor(this.#lastNano / 1000) - 1;
    return { since: `${Math.floor(micros / 1e6)}.${String(micros % 1e6).padStart(6, "0")}000` };
  }

  #repeated(event: EventMessage): boolean {
    const key = `${event.timeNano} ${event.Actor?.ID} ${event.Action}`;
    if (this.#seen.has(key)) return true;
    this.#seen.add(key);
    this.#lastNano = Math.max(this.#lastNano, event.timeNano ?? 0);
    if (this.#seen.size > rememberedEvents) {
      const oldest = this.#seen.keys().next().value;
      if (oldest !== undefined) this.#seen.delete(oldest);
    }
    return false;
  }
}
