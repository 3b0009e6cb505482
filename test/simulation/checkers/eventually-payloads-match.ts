/** Secrets and configs are where a task that has not ended needs them, and on no other node. */
import { payloadReferences } from "../../../src/model/payload-references.ts";
import { rank } from "../../../src/model/state.ts";
import type { CheckerFactory } from "../checker.ts";

export const payloadsMatch: CheckerFactory = ({ view, nodes, specOf }) => ({
  name: "payloads match",
  when: "eventually",
  state() {
    for (const { name, nodeId, payloads } of nodes) {
      if (!payloads) return `${name} is down`;
      for (const table of ["secrets", "configs"] as const) {
        const needed = new Set<string>();
        for (const task of view.tasksOfNode(nodeId)) {
          const { State } = task.Status;
          if (rank(State) < rank("assigned") || rank(State) > rank("running")) continue;
          for (const reference of payloadReferences(specOf(task)?.TaskTemplate?.ContainerSpec)) {
            if (reference.table === table) needed.add(reference.id);
          }
        }
        const there = [...payloads.ids(table)].sort().join();
        const wanted = [...needed].sort().join();
        if (there !== wanted) return `${name} has ${table} "${there}", its tasks need "${wanted}"`;
      }
    }
    return undefined;
  },
});
