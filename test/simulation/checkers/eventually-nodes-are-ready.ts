/** Every node that lives is Ready. */
import type { CheckerFactory } from "../checker.ts";

export const nodesAreReady: CheckerFactory = ({ view, nodes }) => ({
  name: "nodes are ready",
  when: "eventually",
  state() {
    for (const { name, nodeId, isAlive } of nodes) {
      const state = view.get("nodes", nodeId)?.Status.State;
      if (isAlive && state !== undefined && state !== "ready") return `${name} is ${state}`;
    }
    return undefined;
  },
});
