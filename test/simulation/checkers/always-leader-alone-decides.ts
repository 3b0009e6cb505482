/**
 * What only a leader decides (new tasks, wishes, placements) is never written but under a lead: a deposed leader's
 * writes are then refused by the store.
 */
import type { Task } from "../../../src/model/types.ts";
import { leadLock } from "../../../src/store/view.ts";
import type { CheckerFactory } from "../checker.ts";

export const leaderAloneDecides: CheckerFactory = () => ({
  name: "the leader alone decides",
  when: "always",
  attempt({ writer, view, batch }) {
    const decision = batch.puts.find(({ table, object }) => {
      if (table !== "tasks") return false;
      const before = view.get("tasks", object.ID);
      const after = object as Task;
      return before?.DesiredState !== after.DesiredState || before.NodeID !== after.NodeID;
    });
    if (!decision || batch.guards.some(({ table, id }) => table === "locks" && id === leadLock)) return undefined;
    return `${writer} decides about task ${decision.object.ID} without the lead`;
  },
});
