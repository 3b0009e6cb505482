/** The managers' part of a node, as it is at the moment: who leads is in the store, who is there each manager sees. */
import type { ManagerStatus, Node } from "../model/types.ts";
import { leadLock } from "../store/view.ts";
import type { ActiveManager } from "./context.ts";

/** Undefined for a node that takes no part among the managers. */
export function managerStatusOf(node: Node, manager: ActiveManager): ManagerStatus | undefined {
  if (!node.ManagerStatus) return undefined;
  const leads = manager.store.view.get("locks", leadLock)?.Holder === node.ID;
  return {
    ...(leads && { Leader: true }),
    Reachability: manager.isReachable(node.ID) ? "reachable" : "unreachable",
    Addr: node.ManagerStatus.Addr,
  };
}

/** Whether those that are there of the other managers would be enough to go on without this one. */
export function canLose(node: Node, manager: ActiveManager): boolean {
  const rest = [...manager.store.view.all("nodes")].filter((other) => other.ManagerStatus && other.ID !== node.ID);
  const reachable = rest.filter((other) => manager.isReachable(other.ID));
  return reachable.length >= Math.floor(rest.length / 2) + 1;
}
