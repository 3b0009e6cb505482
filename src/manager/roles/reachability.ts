/**
 * Which of the other managers this one reaches: it pings each of them every second, over a connection that it keeps.
 * What is found is this manager's own view, answered when it is asked for and never stored, so that a manager that is
 * cut off says of the others what it sees itself. Each answer says for how long the managers have been in service.
 */
import { type Clock, pause, within } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Node } from "../../model/types.ts";
import type { Store } from "../../store/store.ts";

const everyMs = 1_000;
const answerMs = 1_000;
/** As long as two answers may be missed: a manager that is only slow for a moment stays reachable. */
const unreachableAfterMs = 2_500;

export interface Pinged {
  /** For how long the managers have been in service, as far as the one that is asked knows, in milliseconds. */
  ping(signal: AbortSignal): Promise<number>;
  close(): void;
}

export interface ReachabilityOptions<Connection extends Pinged> {
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** @param address host:port of a manager */
  readonly connect: (address: string) => Connection;
  /** Told when what `isReachable` answers has changed. */
  readonly onChange: () => void;
  /** Told with each answer. */
  readonly onInService: (ms: number) => void;
}

/** Another manager's node, and whether this one reaches it from now on. */
export type ReachabilityListener = (nodeId: string, reachable: boolean) => void;

interface Probe<Connection> {
  readonly address: string;
  connection: Connection | undefined;
  readonly abort: AbortController;
  /** Until the contrary is known. */
  reachable: boolean;
}

export class Reachability<Connection extends Pinged = Pinged> {
  readonly #options: ReachabilityOptions<Connection>;
  readonly #probes = new Map<string, Probe<Connection>>();
  readonly #listeners = new Set<ReachabilityListener>();
  #unwatch = () => {};

  constructor(options: ReachabilityOptions<Connection>) {
    this.#options = options;
  }

  start(): void {
    const { store } = this.#options;
    this.#unwatch = store.watch(({ changes }) => {
      for (const change of changes) if (change.table === "nodes") this.#look(change.id, change.after);
    });
    for (const node of store.view.all("nodes")) this.#look(node.ID, node);
  }

  stop(): void {
    this.#unwatch();
    for (const { abort } of this.#probes.values()) abort.abort();
    this.#probes.clear();
  }

  isReachable(nodeId: string): boolean {
    return nodeId === this.#options.nodeId || (this.#probes.get(nodeId)?.reachable ?? false);
  }

  /** Calls `listener` with each change, until what it returns is called. */
  listen(listener: ReachabilityListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #changed(nodeId: string, probe: Probe<Connection>, reachable: boolean): void {
    probe.reachable = reachable;
    this.#options.onChange();
    for (const listener of this.#listeners) listener(nodeId, reachable);
  }

  /** To each of the others that is reachable: the connection that it is pinged over. */
  *connections(): Generator<Connection> {
    for (const { reachable, connection } of this.#probes.values()) if (reachable && connection) yield connection;
  }

  #look(nodeId: string, node: Node | undefined): void {
    const address = node?.ManagerStatus?.Addr;
    const probe = this.#probes.get(nodeId);
    if (probe?.address === address || nodeId === this.#options.nodeId) return;
    probe?.abort.abort();
    this.#probes.delete(nodeId);
    if (!address) return;
    const started = { address, connection: undefined, abort: new AbortController(), reachable: true };
    this.#probes.set(nodeId, started);
    void this.#run(nodeId, started);
  }

  async #run(nodeId: string, probe: Probe<Connection>): Promise<void> {
    const { clock, log, connect, onInService } = this.#options;
    const { signal } = probe.abort;
    let answeredAt = clock.now();
    while (!signal.aborted) {
      try {
        probe.connection ??= connect(probe.address);
        const inServiceMs = await within(clock, answerMs, probe.connection.ping(signal), () => {
          throw new ShoalError("DeadlineExceeded", "no answer");
        });
        answeredAt = clock.now();
        if (!signal.aborted) onInService(inServiceMs);
        if (!probe.reachable) {
          log.info("a manager is reachable again", { "node.id": nodeId });
          this.#changed(nodeId, probe, true);
        }
      } catch (error) {
        probe.connection?.close();
        probe.connection = undefined;
        if (probe.reachable && !signal.aborted && clock.now() - answeredAt >= unreachableAfterMs) {
          log.warn("a manager cannot be reached", { "node.id": nodeId, error: messageOf(error) });
          this.#changed(nodeId, probe, false);
        }
      }
      await pause(clock, everyMs, signal);
    }
    probe.connection?.close();
  }
}
