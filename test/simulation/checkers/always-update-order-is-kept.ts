/**
 * A task that runs, and may go on running where it is, is told to stop for its slot's next task only: with start-first
 * when that one runs, with stop-first when it is prepared, or finds no room beside it, or has ended for good.
 */

import { matchesNode, parseConstraints } from "../../../src/manager/scheduler/constraint.ts";
import { isRunnableDesire, isTerminal, rank } from "../../../src/model/state.ts";
import type { Node, ServiceSpec, Task } from "../../../src/model/types.ts";
import type { Change } from "../../../src/store/store.ts";
import { type CheckerFactory, describeTask, type Finding, placeOf } from "../checker.ts";

/** A leader that is slow may still act upon what its node was so long ago. */
const staleMs = 60_000;

export const updateOrderIsKept: CheckerFactory = ({ view, now }) => {
  const nodeChangedAt = new Map<string, number>();
  const check = (changes: readonly Change[]): Finding => {
    for (const change of changes) {
      if (change.table === "nodes") nodeChangedAt.set(change.id, now());
      if (change.table !== "tasks") continue;
      const { before, after } = change;
      if (before?.DesiredState !== "running" || after?.DesiredState !== "shutdown") continue;
      if (before.Status.State !== "running" || after.Status.State !== "running") continue;
      const service = view.service(after.ServiceID);
      const node = view.get("nodes", after.NodeID);
      if (!service || !node || now() < (nodeChangedAt.get(node.ID) ?? -staleMs) + staleMs) continue;
      const { Spec } = view.specOf(service);
      if (!mayStay(node, Spec)) continue;
      const rivals = [...view.tasksOfSlot(after.ServiceID, after.Slot)].filter(
        (task) => task.SpecVersion.Index >= after.SpecVersion.Index && placeOf(task) === placeOf(after),
      );
      const isRollback = service.UpdateStatus?.State.startsWith("rollback") ?? false;
      const order = (isRollback ? Spec.RollbackConfig : Spec.UpdateConfig)?.Order ?? "stop-first";
      const others = rivals.filter((task) => task.ID !== after.ID);
      const live = others.filter((task) => isRunnableDesire(task.DesiredState));
      if (live.some((task) => mayTakeOver(task, order))) continue;
      if (live.length === 0 && order === "stop-first" && others.some(hasEndedForGood)) continue;
      return `${describeTask(after)} is to stop (${order}), and nothing takes over: ${others.map(describeTask).join("; ")}`;
    }
    return undefined;
  };
  return { name: "the update order is kept", when: "always", commit: ({ changes }) => check(changes) };
};

function mayStay(node: Node, spec: ServiceSpec): boolean {
  if (node.Status.State === "down" || node.Spec.Availability === "drain") return false;
  return matchesNode(parseConstraints(spec.TaskTemplate?.Placement?.Constraints ?? []), node);
}

/** With nothing in its place, so its restart policy wants nothing there. */
function hasEndedForGood({ Status: { State } }: Task): boolean {
  return State === "complete" || State === "failed" || State === "rejected";
}

function mayTakeOver({ Status: { State, Err } }: Task, order: string): boolean {
  if (order === "start-first") return State === "running";
  return (rank(State) >= rank("ready") && !isTerminal(State)) || (rank(State) < rank("assigned") && Err !== undefined);
}
