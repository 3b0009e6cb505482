/** A node's own address on the ingress network: it has one as long as it is there and takes part in networks. */
import type { NetworkAddress } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { Plan } from "../planner.ts";
import { AddressPlan, isOverlay } from "./addresses.ts";

export function attachNode(view: View, id: string): Plan {
  const node = view.get("nodes", id);
  if (!node) return { changes: [] };
  const before = node.Attachments ?? [];
  const after: NetworkAddress[] = before.filter(({ NetworkID }) => view.network(NetworkID));
  const addresses = new AddressPlan(view);
  const ingress = view.ingressNetwork();
  if (node.DataPath && isOverlay(ingress) && !after.some(({ NetworkID }) => NetworkID === ingress.ID)) {
    // Where there is none, the scheduler says so of the tasks that would need it.
    const Address = addresses.take(ingress);
    if (Address !== undefined) after.push({ NetworkID: ingress.ID, Address });
  }
  if (after.length === before.length && after.every((one, index) => one === before[index])) return { changes: [] };
  return {
    changes: [{ kind: "update", table: "nodes", object: { ...node, Attachments: after } }, ...addresses.changes()],
  };
}
