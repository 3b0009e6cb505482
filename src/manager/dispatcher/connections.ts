/**
 * Whether the connections of the nodes' sessions live: each is pinged at once, and every second. One from which nothing
 * comes for three seconds in spite of it is dead (its host is cut off, or its process hangs); the node of one that has
 * closed has a moment to come back, here or at another manager.
 *
 * Silence is counted in turns of our own timer, never in time: a manager that was itself held up for seconds finds
 * the answers that have come meanwhile before it judges.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import type { CallerConnection } from "../../rpc/services.ts";

const pingEveryMs = 1_000;
const silentTurns = 3;
/** An agent that lives is back in well under a second; a daemon that is restarted needs one or two. */
const closedGraceMs = 2_500;

interface Watched {
  readonly connection: CallerConnection;
  readonly onClosed: () => void;
  timer: Timer;
  /** Turns in a row in which an answer was awaited and nothing at all came. */
  silent: number;
  waiting: boolean;
  bytesRead: number;
}

export class ConnectionWatch {
  readonly #clock: Clock;
  readonly #onLost: (nodeId: string, why: string) => void;
  readonly #watched = new Map<string, Watched>();

  /** @param onLost called once for a connection that is lost; it is then no longer watched */
  constructor(clock: Clock, onLost: (nodeId: string, why: string) => void) {
    this.#clock = clock;
    this.#onLost = onLost;
  }

  /**
   * The node's session is on this connection from now on; the one that it was on before no longer counts. The first
   * ping goes out before this returns: an agent to which the session's first message comes without one (a stock
   * manager's) takes silence for no sign of death.
   */
  watch(nodeId: string, connection: CallerConnection): void {
    if (this.#watched.get(nodeId)?.connection === connection) return;
    this.forget(nodeId);
    const watched: Watched = {
      connection,
      onClosed: () => this.#closed(nodeId, watched),
      timer: this.#clock.after(pingEveryMs, () => this.#turn(nodeId, watched)),
      silent: 0,
      waiting: false,
      bytesRead: connection.bytesRead?.() ?? 0,
    };
    this.#watched.set(nodeId, watched);
    if (connection.closed.aborted) watched.onClosed();
    else connection.closed.addEventListener("abort", watched.onClosed, { once: true });
    ping(watched);
  }

  forget(nodeId: string): void {
    const watched = this.#watched.get(nodeId);
    if (!watched) return;
    this.#watched.delete(nodeId);
    watched.timer.cancel();
    watched.connection.closed.removeEventListener("abort", watched.onClosed);
  }

  stop(): void {
    for (const nodeId of [...this.#watched.keys()]) this.forget(nodeId);
  }

  #turn(nodeId: string, watched: Watched): void {
    const bytesRead = watched.connection.bytesRead?.() ?? 0;
    watched.silent = watched.waiting && bytesRead === watched.bytesRead ? watched.silent + 1 : 0;
    watched.bytesRead = bytesRead;
    if (watched.silent === silentTurns) {
      this.#lose(nodeId, "the node does not answer");
      return;
    }
    if (!watched.waiting) ping(watched);
    watched.timer = this.#clock.after(pingEveryMs, () => this.#turn(nodeId, watched));
  }

  #closed(nodeId: string, watched: Watched): void {
    watched.timer.cancel();
    watched.timer = this.#clock.after(closedGraceMs, () => this.#lose(nodeId, "the node's connection was closed"));
  }

  #lose(nodeId: string, why: string): void {
    this.forget(nodeId);
    this.#onLost(nodeId, why);
  }
}

function ping(watched: Watched): void {
  watched.waiting = true;
  watched.connection.ping(() => {
    watched.waiting = false;
  });
}
