/**
 * What each node's kernel leads to is what the store says, no more and no less: nobody is led to a task that is gone,
 * and everybody to those that run.
 */
import { isDeepStrictEqual } from "node:util";
import { NetworkIndex } from "../../../src/manager/endpoints/network-index.ts";
import type { CheckerFactory } from "../checker.ts";
import type { SimulatedNode } from "../node.ts";

const ignored = () => undefined;

export const networksMatch: CheckerFactory = ({ view, nodes, containers }) => ({
  name: "networks match",
  when: "eventually",
  state() {
    const running = new Set<string>();
    for (const { taskId, state } of containers()) if (state === "running") running.add(taskId);
    const index = new NetworkIndex(view, ignored, ignored);
    for (const node of nodes) {
      for (const taskId of node.kernel.ledTo()) {
        if (!running.has(taskId)) return `${node.name} leads to ${taskId.slice(0, 6)}, which does not run`;
      }
      const different = difference(node, index);
      if (different) return `${node.name}: ${different}`;
    }
    return undefined;
  },
});

function difference({ nodeId, kernel }: SimulatedNode, index: NetworkIndex): string | undefined {
  for (const id of index.networkIds()) {
    const wanted = index.takesPart(nodeId, id) ? index.network(id) : undefined;
    const table = kernel.tables.get(id);
    if (!wanted !== !table) return `network ${id} is ${table ? "left over" : "missing"}`;
    if (!wanted || !table) continue;
    if (!isDeepStrictEqual(wanted.state, table.network)) return `network ${id} has other settings`;
    for (const part of ["nodes", "endpoints", "services"] as const) {
      const names = new Set([...wanted[part].keys(), ...table[part].keys()]);
      for (const name of names) {
        const want = wanted[part].get(name);
        const has = table[part].get(name);
        if (!isDeepStrictEqual(want, has)) {
          return `${part} of network ${id}: ${JSON.stringify(has)} for ${JSON.stringify(want)}`;
        }
      }
    }
  }
  for (const id of kernel.tables.keys()) if (!index.network(id)?.state) return `network ${id} is left over`;
  return undefined;
}
