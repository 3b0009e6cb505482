/**
 * Whether the nodes of this manager live, and the verdict on those that do not: a node whose heartbeats
 * (`liveness.ts`), or whose connection (`connections.ts`), have been silent for too long is down. A verdict on a node
 * that has come back, or moved to another manager meanwhile, writes nothing; one that could not be written is tried
 * again.
 */
import type { Clock } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { CallerConnection } from "../../rpc/services.ts";
import type { Store } from "../../store/store.ts";
import { ConnectionWatch } from "./connections.ts";
import { Liveness } from "./liveness.ts";
import { markDown } from "./node-status.ts";

const retryMs = 1_000;

export interface VigilOptions {
  /** Id of this manager's node. */
  readonly nodeId: string;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** Its registration is being written: it ends with a new grace, whatever comes of it. */
  readonly isRegistering: (nodeId: string) => boolean;
  readonly hasSession: (nodeId: string) => boolean;
  /** The node is about to be taken for down: its session ends. */
  readonly onLost: (nodeId: string) => void;
}

export class Vigil {
  readonly #options: VigilOptions;
  readonly #liveness: Liveness;
  readonly #connections: ConnectionWatch;
  #stopped = false;

  constructor(options: VigilOptions) {
    this.#options = options;
    this.#liveness = new Liveness(options.clock, (nodeId) => void this.#lose(nodeId, "heartbeat failure"));
    this.#connections = new ConnectionWatch(options.clock, (nodeId, why) => void this.#lose(nodeId, why));
  }

  /** The node lives, or is waited for: it is lost unless it beats again within `graceMs`. */
  beat(nodeId: string, graceMs: number): void {
    if (!this.#stopped) this.#liveness.beat(nodeId, graceMs);
  }

  watchConnection(nodeId: string, connection: CallerConnection): void {
    this.#connections.watch(nodeId, connection);
  }

  /** The node's session has ended, or its agent is stopping: its connection says nothing any more. */
  forgetConnection(nodeId: string): void {
    this.#connections.forget(nodeId);
  }

  /** The node is not this manager's to judge any more. */
  forget(nodeId: string): void {
    this.#liveness.forget(nodeId);
  }

  stop(): void {
    this.#stopped = true;
    this.#liveness.stop();
    this.#connections.stop();
  }

  async #lose(nodeId: string, why: string): Promise<void> {
    const { nodeId: self, store, log, isRegistering, hasSession, onLost } = this.#options;
    if (isRegistering(nodeId)) return;
    onLost(nodeId);
    const isBack = () => hasSession(nodeId) || isRegistering(nodeId);
    try {
      const lost = await store.update((tx) => !isBack() && markDown(tx, nodeId, self, why));
      if (lost) log.info("node is down", { node: nodeId, reason: why });
    } catch (error) {
      log.error("marking a lost node down failed", { node: nodeId, error: messageOf(error) });
      if (!isBack()) this.beat(nodeId, retryMs);
    }
  }
}
