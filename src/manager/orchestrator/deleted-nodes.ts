/**
 * Tasks of nodes that were deleted: nobody will ever report on them. Those of global services and jobs have lost their
 * place and go; the others become orphaned, which ends them, and their orchestrator replaces what has to be replaced.
 * (Tasks of nodes that are down for long are the dispatcher's.)
 */
import { isTerminal } from "../../model/state.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";

/** Keys are ids of nodes. */
export const deletedNodesPlanner: Planner = {
  name: "deleted-nodes",
  *keys(view) {
    const gone = new Set<string>();
    for (const { NodeID } of view.all("tasks")) if (NodeID !== "" && !view.get("nodes", NodeID)) gone.add(NodeID);
    yield* gone;
  },
  *wakes(change: Change, view: View) {
    if (change.table === "nodes" && !change.after) yield change.id;
    // A task that was given to the node while that was deleted.
    if (change.table === "tasks" && change.after && change.after.NodeID !== (change.before?.NodeID ?? "")) {
      if (!view.get("nodes", change.after.NodeID)) yield change.after.NodeID;
    }
  },
  plan,
};

function plan(view: View, key: string, context: PlanContext): Plan {
  if (view.get("nodes", key)) return { changes: [] };
  const changes: PlannedChange[] = [];
  for (const task of view.tasksOfNode(key)) {
    if (changes.length > context.room) break; // one too many says that there is more
    const service = view.service(task.ServiceID);
    const mode = service && view.specOf(service).Spec.Mode;
    if (mode?.Global || mode?.GlobalJob) {
      changes.push({ kind: "delete", table: "tasks", id: task.ID });
      continue;
    }
    if (isTerminal(task.Status.State)) continue;
    const Status = {
      ...task.Status,
      Timestamp: context.nowText,
      State: "orphaned" as const,
      Message: "Task belonged to a node that has been deleted",
    };
    changes.push({ kind: "update", table: "tasks", object: { ...task, Status } });
  }
  return { changes };
}
