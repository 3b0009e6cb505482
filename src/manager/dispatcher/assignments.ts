/**
 * One node's assignments as a chain of messages: first the complete set, then what changed. Each message says which
 * one it applies to, so an agent that missed one notices.
 *
 * The invariant: after applying a message the agent has exactly the tasks of its node that were assigned when the
 * message was taken. A complete set is destructive (the agent removes every task that is not in it), so it is only
 * made from a store that has been loaded.
 *
 * Secrets and configs come in the message that brings the first task that needs them, and go when the last one has
 * ended (`payload-needs.ts`).
 *
 * Swarm gathers changes for 100 ms; here a change is on its way in the turn of its commit, and what happens while a
 * message is being written goes into the next one.
 */

import { sameMembers } from "../../lib/same.ts";
import { joinTask } from "../../model/join.ts";
import { payloadReferences } from "../../model/payload-references.ts";
import { rank } from "../../model/state.ts";
import type { Task } from "../../model/types.ts";
import type { AssignmentChange, AssignmentsMessage } from "../../rpc/services.ts";
import type { View } from "../../store/store.ts";
import { PayloadNeeds } from "./payload-needs.ts";
import type { Source } from "./stream.ts";

/** Swarm's number; it bounds how long an agent's first change waits for the last one of a large update. */
const changesPerMessage = 100;
/** What one message may bring of secrets and configs before it is sent, for the same reason; one task may have more. */
const payloadBytesPerMessage = 4 * 1024 * 1024;

/** What the agent itself reports, and what only managers look at: no reason to send a task again. */
const notForAgents: ReadonlySet<string> = new Set(["Status", "Version", "UpdatedAt", "StartAfter"]);

function assignedTo(task: Task | undefined, nodeId: string): task is Task {
  return task !== undefined && task.NodeID === nodeId && rank(task.Status.State) >= rank("assigned");
}

/** Whether an agent on `nodeId` has to hear of the change of a task from `before` to `after`. */
export function concernsNode(nodeId: string, before: Task | undefined, after: Task | undefined): boolean {
  if (assignedTo(before, nodeId) !== assignedTo(after, nodeId)) return true;
  return assignedTo(before, nodeId) && assignedTo(after, nodeId) && !sameMembers(before, after, notForAgents);
}

/** Whether the change is the end of the task: what it needed may go. */
export function endsTask(before: Task | undefined, after: Task | undefined): boolean {
  return before !== undefined && after !== undefined && !hasEnded(before) && hasEnded(after);
}

function hasEnded({ Status }: Pick<Task, "Status">): boolean {
  return rank(Status.State) > rank("running");
}

export class AssignmentSource implements Source<AssignmentsMessage> {
  readonly #view: View;
  readonly #nodeId: string;
  /** Tasks that the agent has. */
  readonly #sent = new Set<string>();
  /** Tasks to look at again. */
  readonly #touched = new Set<string>();
  /** Tasks that have ended since. */
  readonly #ended = new Set<string>();
  readonly #needs: PayloadNeeds;
  #sequence = 0;

  constructor(view: View, nodeId: string) {
    this.#view = view;
    this.#nodeId = nodeId;
    this.#needs = new PayloadNeeds(view);
  }

  /** The task may have changed for the agent. */
  touch(taskId: string): void {
    this.#touched.add(taskId);
  }

  /** The task has ended, of which the agent itself has told. */
  ended(taskId: string): void {
    if (this.#sent.has(taskId)) this.#ended.add(taskId);
  }

  /** Something that tasks are joined with has changed. */
  touchAll(): void {
    for (const id of this.#sent) this.#touched.add(id);
  }

  take(): AssignmentsMessage | undefined {
    if (this.#sequence === 0) return this.#takeComplete();
    for (const id of this.#ended) this.#needs.set(id, []);
    this.#ended.clear();
    const changes: AssignmentChange[] = [];
    for (const id of this.#touched) {
      if (changes.length === changesPerMessage || this.#needs.waitingBytes > payloadBytesPerMessage) break;
      this.#touched.delete(id);
      const change = this.#changeOf(id);
      if (change) changes.push(change);
    }
    return this.#message("incremental", changes);
  }

  #takeComplete(): AssignmentsMessage {
    this.#touched.clear();
    const changes: AssignmentChange[] = [];
    for (const task of this.#view.tasksOfNode(this.#nodeId)) {
      const change = this.#changeOf(task.ID);
      if (change) changes.push(change);
    }
    return this.#message("complete", changes)!;
  }

  #changeOf(id: string): AssignmentChange | undefined {
    const task = this.#view.get("tasks", id);
    // A task that cannot be joined any more is one whose service and spec are gone: the agent is to drop it, too.
    const joined = assignedTo(task, this.#nodeId) ? joinTask(task, this.#view) : undefined;
    const isOver = !joined || hasEnded(joined);
    this.#needs.set(id, isOver ? [] : payloadReferences(joined.Spec.ContainerSpec));
    if (joined) {
      this.#sent.add(id);
      return { kind: "update-task", task: joined };
    }
    return this.#sent.delete(id) ? { kind: "remove-task", id } : undefined;
  }

  /** Undefined where an incremental one would say nothing. */
  #message(type: AssignmentsMessage["type"], tasks: readonly AssignmentChange[]): AssignmentsMessage | undefined {
    const { come, go } = this.#needs.take();
    const changes = [...come, ...tasks, ...go];
    if (type === "incremental" && changes.length === 0) return undefined;
    const appliesTo = this.#sequence === 0 ? "" : String(this.#sequence);
    this.#sequence++;
    return { type, appliesTo, resultsIn: String(this.#sequence), changes };
  }
}
