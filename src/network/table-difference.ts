/** What a complete list of a network's contents changes, so that only that has to be done. */
import { sameJson } from "../lib/same.ts";
import type { ContentChange } from "../model/network-state.ts";
import type { NetworkTable } from "./table.ts";

/** @param complete all that there is of the network; what is not in it goes */
export function differenceFrom(table: NetworkTable, complete: readonly ContentChange[]): ContentChange[] {
  const networkId = table.network.id;
  const found: ContentChange[] = [];
  const nodes = new Set<string>();
  const endpoints = new Set<string>();
  const services = new Set<string>();
  for (const change of complete) {
    switch (change.kind) {
      case "network":
        if (!sameJson(change.network, table.network)) found.push(change);
        break;
      case "node":
        nodes.add(change.node.nodeId);
        if (!sameJson(change.node, table.nodes.get(change.node.nodeId))) found.push(change);
        break;
      case "endpoint":
        endpoints.add(change.endpoint.taskId);
        if (!sameJson(change.endpoint, table.endpoints.get(change.endpoint.taskId))) found.push(change);
        break;
      case "service":
        services.add(change.service.serviceId);
        if (!sameJson(change.service, table.services.get(change.service.serviceId))) found.push(change);
        break;
      default: // a complete list takes nothing away by name
    }
  }
  const removed: ContentChange[] = [
    ...absent(table.services, services).map((serviceId) => ({ kind: "remove-service" as const, networkId, serviceId })),
    ...absent(table.endpoints, endpoints).map((taskId) => ({ kind: "remove-endpoint" as const, networkId, taskId })),
    ...absent(table.nodes, nodes).map((nodeId) => ({ kind: "remove-node" as const, networkId, nodeId })),
  ];
  return [...removed, ...found];
}

function absent(present: ReadonlyMap<string, unknown>, listed: ReadonlySet<string>): string[] {
  return [...present.keys()].filter((id) => !listed.has(id));
}
