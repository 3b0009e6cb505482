/**
 * The constraint enforcer: rejects tasks on a node that no longer meets their service's constraints, or no longer has
 * what they reserve (of generic resources: the very ones that they were given), so that they are restarted elsewhere.
 * It looks at a node when the node changes, and only where the node is active: a drained one loses its tasks anyway,
 * and a paused one is to be left alone.
 *
 * Constraints are the service's current ones, because an update of constraints alone leaves tasks of older revisions
 * on the nodes that still satisfy them. It writes the observed state, not the desired one: that is the orchestrator's.
 *
 * Better than Swarm: while an update is under way, or paused, it leaves the tasks that are still to be replaced to the
 * updater, which does that one by one (Swarm rejects them all when their node happens to change).
 */
import { isDeepStrictEqual } from "node:util";
import type { Node, Service, SpecRevision, Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, Planner } from "../planner.ts";
import { matchesNode } from "./constraint.ts";
import { type Demand, demandOf } from "./demand.ts";
import { GenericUse, isStillOffered } from "./generic.ts";
import { bearing } from "./load.ts";

export const constraintEnforcer: Planner = {
  name: "constraint enforcer",

  *wakes(change: Change): Iterable<string> {
    if (change.table !== "nodes" || !change.after) return;
    if (!change.before || !isDeepStrictEqual(facts(change.before), facts(change.after))) yield change.id;
  },

  *keys(view: View): Iterable<string> {
    for (const node of view.all("nodes")) yield node.ID;
  },

  plan(view: View, nodeId: string, { nowText }: PlanContext): Plan {
    const node = view.get("nodes", nodeId);
    if (!node || (node.Spec.Availability ?? "active") !== "active") return { changes: [] };
    const Status = {
      Timestamp: nowText,
      State: "rejected",
      Message: "task rejected by constraint enforcer",
      Err: "assigned node no longer meets constraints",
    } as const;
    return {
      changes: noncompliantTasks(view, node).map((task) => ({
        kind: "update",
        table: "tasks",
        object: { ...task, Status: { ...task.Status, ...Status } },
      })),
    };
  },
};

/** What of a node constraints and reservations look at. */
function facts({ Spec, Role, Description, Status }: Node): unknown {
  return [Spec.Labels, Spec.Availability, Role, Description, Status.Addr];
}

function noncompliantTasks(view: View, node: Node): Task[] {
  const demands = new Map<SpecRevision, Demand>();
  const demandFor = (spec: SpecRevision | undefined) => {
    let demand = spec && demands.get(spec);
    if (spec && !demand) demands.set(spec, (demand = demandOf(spec, view)));
    return demand;
  };
  const offered = node.Description?.Resources;
  let nanoCpus = offered?.NanoCPUs ?? 0;
  let memoryBytes = offered?.MemoryBytes ?? 0;
  const use = new GenericUse();
  const rejected: Task[] = [];
  for (const task of oldestFirst(view.tasksOfNode(node.ID))) {
    if (bearing(task) !== "active") continue;
    const service = view.service(task.ServiceID);
    const own = demandFor(view.spec(task.ServiceID, task.SpecVersion.Index));
    const current = service && !isUpdatersTask(service, task) ? demandFor(view.specOf(service)) : own;
    const held = task.AssignedGenericResources ?? [];
    const fits =
      (!current || matchesNode(current.constraints, node)) &&
      (!own?.nanoCpus || own.nanoCpus <= nanoCpus) &&
      (!own?.memoryBytes || own.memoryBytes <= memoryBytes) &&
      isStillOffered(held, offered?.GenericResources, use);
    if (!fits) {
      rejected.push(task);
      continue;
    }
    nanoCpus -= own?.nanoCpus ?? 0;
    memoryBytes -= own?.memoryBytes ?? 0;
    use.take(held);
  }
  return rejected;
}

/** Of an older revision, and the service's update has yet to come to it. */
function isUpdatersTask({ SpecVersion, UpdateStatus }: Service, task: Task): boolean {
  if (task.SpecVersion.Index === SpecVersion.Index || !UpdateStatus) return false;
  return UpdateStatus.State !== "completed" && UpdateStatus.State !== "rollback_completed";
}

/** Where resources have become too few, those that have run longest stay. */
function oldestFirst(tasks: Iterable<Task>): Task[] {
  return [...tasks].sort((a, b) => compare(a.CreatedAt, b.CreatedAt) || compare(a.ID, b.ID));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
