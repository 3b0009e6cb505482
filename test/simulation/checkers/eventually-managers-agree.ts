/** Every manager has the same state as the shared store, one of them leads, and none of its loops fails. */
import type { CheckerFactory } from "../checker.ts";

export const managersAgree: CheckerFactory = ({ view, nodes }) => ({
  name: "managers agree",
  when: "eventually",
  state() {
    let leaders = 0;
    for (const node of nodes) {
      if (!node.options.isManager) continue;
      const { store, manager, name } = node;
      if (!store || !manager) return `${name} has no manager`;
      if (store.view.revision !== view.revision) return `${name} is at ${store.view.revision} of ${view.revision}`;
      if (node.leads) leaders++;
      const failing = manager.reports().find(({ lastError }) => lastError !== undefined);
      if (failing) return `the loop ${failing.name} of ${name} fails: ${failing.lastError}`;
    }
    return leaders === 1 ? undefined : `${leaders} managers lead`;
  },
});
