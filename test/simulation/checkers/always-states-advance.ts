/** Observed states and wishes only ever grow; a task keeps its node, its place and its spec; versions only grow. */

import { rank } from "../../../src/model/state.ts";
import type { Task } from "../../../src/model/types.ts";
import { type CheckerFactory, describeTask, type Finding } from "../checker.ts";

export const statesAdvance: CheckerFactory = () => ({
  name: "states advance",
  when: "always",
  commit({ revision, changes }) {
    for (const change of changes) {
      const { before, after } = change;
      if (after && after.Version.Index !== revision) return `${change.table} ${change.id} has not the commit's version`;
      if (before && before.Version.Index >= revision) return `${change.table} ${change.id}: its version does not grow`;
      if (change.table !== "tasks" || !change.before || !change.after) continue;
      const finding = compare(change.before, change.after);
      if (finding) return `${finding}: ${describeTask(change.before)} => ${describeTask(change.after)}`;
    }
    return undefined;
  },
});

function compare(before: Task, after: Task): Finding {
  if (rank(after.Status.State) < rank(before.Status.State)) return "an observed state goes back";
  if (rank(after.DesiredState) < rank(before.DesiredState)) return "a desired state goes back";
  if (before.NodeID !== "" && after.NodeID !== before.NodeID) return "a task changes its node";
  if (before.ServiceID !== after.ServiceID || before.Slot !== after.Slot) return "a task changes its place";
  if (before.SpecVersion.Index !== after.SpecVersion.Index) return "a task changes its spec";
  if (before.JobIteration?.Index !== after.JobIteration?.Index) return "a task changes its iteration";
  return undefined;
}
