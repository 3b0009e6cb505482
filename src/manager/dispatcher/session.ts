/**
 * A node's session: from its registration until it registers anew, is lost, is removed, or the dispatcher stops.
 * Its streams end with it. It says what changed to the sources of its streams and rings; a source that finds nothing
 * new stays silent.
 */
import { ShoalError } from "../../lib/errors.ts";
import { sameMembers } from "../../lib/same.ts";
import type { Node } from "../../model/types.ts";
import type { AssignmentsMessage, SessionMessage, WeightedPeer } from "../../rpc/services.ts";
import type { View } from "../../store/store.ts";
import { AssignmentSource } from "./assignments.ts";
import { type Source, Streams } from "./stream.ts";

export class Session {
  readonly id: string;
  readonly nodeId: string;
  readonly #view: View;
  readonly #managers: () => readonly WeightedPeer[];
  readonly #messageStreams = new Streams();
  readonly #assignmentStreams = new Streams();
  readonly #assignments = new Set<AssignmentSource>();
  readonly #ended = new AbortController();

  constructor(id: string, nodeId: string, view: View, managers: () => readonly WeightedPeer[]) {
    this.id = id;
    this.nodeId = nodeId;
    this.#view = view;
    this.#managers = managers;
  }

  get endedBy(): ShoalError | undefined {
    return this.#messageStreams.endedBy;
  }

  /** Aborts with the session; the reason is what its streams end with. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }

  end(error: ShoalError): void {
    this.#messageStreams.end(error);
    this.#assignmentStreams.end(error);
    this.#ended.abort(error);
  }

  /** The node, the managers or the root CA may have changed. */
  touchSession(): void {
    this.#messageStreams.ring();
  }

  touchTask(taskId: string): void {
    for (const source of this.#assignments) source.touch(taskId);
    this.#assignmentStreams.ring();
  }

  /** What it needed may be needed no longer. */
  taskEnded(taskId: string): void {
    for (const source of this.#assignments) source.ended(taskId);
    this.#assignmentStreams.ring();
  }

  touchAllTasks(): void {
    for (const source of this.#assignments) source.touchAll();
    this.#assignmentStreams.ring();
  }

  messages(signal: AbortSignal): AsyncIterable<SessionMessage> {
    return this.#messageStreams.run(new SessionSource(this.id, this.nodeId, this.#view, this.#managers), signal);
  }

  async *assignments(signal: AbortSignal): AsyncGenerator<AssignmentsMessage, void, void> {
    const source = new AssignmentSource(this.#view, this.nodeId);
    this.#assignments.add(source);
    try {
      yield* this.#assignmentStreams.run(source, signal);
    } finally {
      this.#assignments.delete(source);
    }
  }
}

/** What changes without the agent having to know: its own reports come back as these. */
const notForAgents: ReadonlySet<string> = new Set(["Status", "Version", "UpdatedAt", "SessionManager"]);

/** Weights change with every session: they go along with what else is new. */
const notNews: ReadonlySet<string> = new Set(["weight"]);

/** Always the whole message, and only when something in it differs from the last one. */
class SessionSource implements Source<SessionMessage> {
  readonly #sessionId: string;
  readonly #nodeId: string;
  readonly #view: View;
  readonly #managers: () => readonly WeightedPeer[];
  #last: SessionMessage | undefined;

  constructor(sessionId: string, nodeId: string, view: View, managers: () => readonly WeightedPeer[]) {
    this.#sessionId = sessionId;
    this.#nodeId = nodeId;
    this.#view = view;
    this.#managers = managers;
  }

  take(): SessionMessage | undefined {
    const node = this.#view.get("nodes", this.#nodeId);
    const cluster = this.#view.cluster();
    const managers = [...this.#managers()];
    if (!node || !cluster) throw new ShoalError("NotFound", "node not found");
    // An agent keeps exactly the managers that it is told: with none it could never come back.
    if (managers.length === 0) throw new ShoalError("Unavailable", "no manager is known yet");
    const message = { sessionId: this.#sessionId, node, managers, rootCA: cluster.RootCA.Certificate };
    if (this.#last && sameMessage(this.#last, message)) return undefined;
    return (this.#last = message);
  }
}

function sameMessage(left: SessionMessage, right: SessionMessage): boolean {
  return left.rootCA === right.rootCA && sameNode(left.node, right.node) && samePeers(left.managers, right.managers);
}

function samePeers(left: readonly WeightedPeer[], right: readonly WeightedPeer[]): boolean {
  return left.length === right.length && left.every((peer, index) => sameMembers(peer, right[index]!, notNews));
}

function sameNode(left: Node, right: Node): boolean {
  return left === right || sameMembers(left, right, notForAgents);
}
