/**
 * Which of the other managers this one reaches: it pings each of them every second, over a connection that it keeps.
 * What is found is this manager's own view, answered when it is asked for and never stored, so that a manager that is
 * cut off says of the others what it sees itself.
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
  ping(signal: AbortSignal): Promise<void>;
  close(): void;
}

export interface ReachabilityOptions {
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** @param address host:port of a manager */
  readonly connect: (address: string) => Pinged;
  /** Told when what `isReachable` answers has changed. */
  readonly onChange: () => void;
}

interface Probe {
  readonly address: string;
  readonly abort: AbortController;
  /** Until the contrary is known. */
  reachable: boolean;
}

export class Reachability {
  readonly #options: ReachabilityOptions;
  readonly #probes = new Map<string, Probe>();
  #unwatch = () => {};

  constructor(options: ReachabilityOptions) {
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

  #look(nodeId: string, node: Node | undefined): void {
    const address = node?.ManagerStatus?.Addr;
    const probe = this.#probes.get(nodeId);
    if (probe?.address === address || nodeId === this.#options.nodeId) return;
    probe?.abort.abort();
    this.#probes.delete(nodeId);
    if (!address) return;
    const started = { address, abort: new AbortController(), reachable: true };
    this.#probes.set(nodeId, started);
    void this.#run(nodeId, started);
  }

  async #run(nodeId: string, probe: Probe): Promise<void> {
    const { clock, log, connect, onChange } = this.#options;
    const { signal } = probe.abort;
    let connection: Pinged | undefined;
    let answeredAt = clock.now();
    while (!signal.aborted) {
      try {
        connection ??= connect(probe.address);
        await within(clock, answerMs, connection.ping(signal), () => {
          throw new ShoalError("DeadlineExceeded", "no answer");
        });
        answeredAt = clock.now();
        if (!probe.reachable) {
          log.info("a manager is reachable again", { "node.id": nodeId });
          probe.reachable = true;
          onChange();
        }
      } catch (error) {
        connection?.close();
        connection = undefined;
        if (probe.reachable && !signal.aborted && clock.now() - answeredAt >= unreachableAfterMs) {
          log.warn("a manager cannot be reached", { "node.id": nodeId, error: messageOf(error) });
          probe.reachable = false;
          onChange();
        }
      }
      await pause(clock, everyMs, signal);
    }
    connection?.close();
  }
}
