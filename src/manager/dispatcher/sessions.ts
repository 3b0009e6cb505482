/**
 * The sessions that this manager has, at most one for each node, and which of them a change in the store concerns: the
 * cost of a commit grows with what it changed.
 */
import type { ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster, Task } from "../../model/types.ts";
import type { Caller, WeightedPeer } from "../../rpc/services.ts";
import type { Change, View } from "../../store/store.ts";
import { concernsNode, endsTask } from "./assignments.ts";
import { notRegistered, sessionInvalid } from "./refusals.ts";
import { Session } from "./session.ts";

export interface SessionsOptions {
  readonly view: View;
  readonly random: Random;
  /** As each session's messages are to name them. */
  readonly managers: () => readonly WeightedPeer[];
}

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #sessions = new Map<string, Session>();

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  has(nodeId: string): boolean {
    return this.#sessions.has(nodeId);
  }

  nodeIds(): string[] {
    return [...this.#sessions.keys()];
  }

  /** Whether that is the id of the node's session. */
  keeps(nodeId: string, sessionId: string): boolean {
    return sessionId !== "" && this.#sessions.get(nodeId)?.id === sessionId;
  }

  /** The node's session goes on if that is its id; else it ends, and a new one begins. */
  open(nodeId: string, sessionId: string): Session {
    const current = this.#sessions.get(nodeId);
    if (current && this.keeps(nodeId, sessionId)) return current;
    current?.end(sessionInvalid());
    const { random, view, managers } = this.#options;
    const session = new Session(newId(random), nodeId, view, managers);
    this.#sessions.set(nodeId, session);
    return session;
  }

  /** NotFound where the node has none, InvalidArgument where it is another one. */
  require({ nodeId }: Caller, sessionId: string): Session {
    const session = this.#sessions.get(nodeId);
    if (!session) throw notRegistered();
    if (session.id !== sessionId) throw sessionInvalid();
    return session;
  }

  end(nodeId: string, error: ShoalError): void {
    this.#sessions.get(nodeId)?.end(error);
    this.#sessions.delete(nodeId);
  }

  /** The managers, or the root CA, may be others. */
  touchAll(): void {
    for (const session of this.#sessions.values()) session.touchSession();
  }

  /** Something that is not the node's own may have changed in what its session says. */
  touch(nodeId: string): void {
    this.#sessions.get(nodeId)?.touchSession();
  }

  observe(change: Change): void {
    switch (change.table) {
      case "tasks":
        this.#observeTask(change.id, change.before, change.after);
        return;
      case "nodes":
        this.touch(change.id);
        return;
      case "cluster":
        if (rootOf(change.before) !== rootOf(change.after)) this.touchAll();
        return;
      default: // services reach agents as tasks; what a task has of its spec, networks and payloads never changes
        return;
    }
  }

  #observeTask(id: string, before: Task | undefined, after: Task | undefined): void {
    const nodeIds = before?.NodeID === after?.NodeID ? [after?.NodeID] : [before?.NodeID, after?.NodeID];
    for (const nodeId of nodeIds) {
      const session = nodeId ? this.#sessions.get(nodeId) : undefined;
      if (!session) continue;
      if (concernsNode(session.nodeId, before, after)) session.touchTask(id);
      else if (endsTask(before, after)) session.taskEnded(id);
    }
  }
}

function rootOf(cluster: Cluster | undefined): string | undefined {
  return cluster?.RootCA.Certificate;
}
