/**
 * What an agent's report does to its task. The observed state only grows, a report that says nothing new writes
 * nothing (agents repeat themselves at each registration), and a node can only speak of its own tasks.
 */
import { ShoalError } from "../../lib/errors.ts";
import { sameMembers } from "../../lib/same.ts";
import { rank } from "../../model/state.ts";
import type { Task, TaskStatus } from "../../model/types.ts";
import type { TaskStatusUpdate } from "../../rpc/services.ts";
import type { Transaction } from "../../store/store.ts";

/** Set by the managers; and a repeated report has a new time. */
const notNews: ReadonlySet<string> = new Set(["Timestamp", "AppliedBy", "AppliedAt"]);

/** The task's new status; undefined where the report is old, or says nothing new. */
export function newStatus(task: Task, reported: TaskStatus, managerId: string, now: string): TaskStatus | undefined {
  if (rank(reported.State) < rank(task.Status.State)) return undefined;
  if (sameMembers(task.Status, reported, notNews)) return undefined;
  return { ...reported, Timestamp: reported.Timestamp || now, AppliedBy: managerId, AppliedAt: now };
}

/** All or nothing: PermissionDenied when one of the tasks is another node's. Tasks that are gone are passed over. */
export function applyReports(
  tx: Transaction,
  nodeId: string,
  updates: readonly TaskStatusUpdate[],
  managerId: string,
): void {
  for (const { taskId, status } of updates) {
    const task = tx.get("tasks", taskId);
    if (!task) continue;
    if (task.NodeID !== nodeId) {
      throw new ShoalError("PermissionDenied", "cannot update a task not assigned this node");
    }
    const Status = newStatus(task, status, managerId, tx.now);
    if (Status) tx.put("tasks", { ...task, Status });
  }
}
