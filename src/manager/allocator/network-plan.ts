/**
 * A network on which an address was given back: for whoever waits for one, in the order in which they began to wait.
 * And the end of a removed network, once nobody has an address on it any more.
 */
import type { View } from "../../store/store.ts";
import type { Plan, PlanContext } from "../planner.ts";
import { addressSerial } from "./addresses.ts";
import { isAllocated, planService } from "./endpoint.ts";
import { TaskAllocation } from "./new-tasks.ts";
import { attachNode } from "./node-plan.ts";
import { forgetLast } from "./serial.ts";

export function planNetwork(view: View, id: string, context: PlanContext): Plan {
  const network = view.network(id);
  if (!network) return { changes: [forgetLast(addressSerial(id))] };
  if (network.Removed && !hasTasks(view, id)) {
    return { changes: [{ kind: "delete", table: "networks", id }, forgetLast(addressSerial(id))] };
  }
  // One at a time, from what the one before has left: each write wakes what is to come next.
  if (network.Spec?.Ingress && !network.Removed) {
    for (const node of view.unattachedNodes()) {
      const plan = attachNode(view, node.ID);
      if (plan.changes.length > 0) return { ...plan, more: true };
    }
  }
  const allocation = new TaskAllocation(view, context.nowText);
  const tried = new Set<string>();
  for (const task of view.tasksWaitingFor(id)) {
    if (allocation.changes.length >= context.room) return allocation.result(true);
    const service = view.service(task.ServiceID);
    if (service && !isAllocated(service, view)) {
      // Its service is what lacks the address: its tasks come after it.
      if (tried.has(service.ID)) continue;
      tried.add(service.ID);
      const plan = planService(view, service.ID);
      if (plan.changes.length > 0) {
        // What is planned so far has not seen it: each is written by itself.
        return allocation.changes.length > 0 ? allocation.result(true) : { ...plan, more: true };
      }
    }
    const lack = allocation.plan(task);
    if (lack?.networkId === id && !task.Attachment?.Address) break; // nothing is left for those behind it
  }
  return allocation.result(false);
}

function hasTasks(view: View, networkId: string): boolean {
  for (const _ of view.tasksOfNetwork(networkId)) return true;
  return false;
}
