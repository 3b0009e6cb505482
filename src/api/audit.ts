/**
 * `GET /shoal/audit`, for `shoal doctor --audit`: what of this node's networks in the kernel is not as the managers have
 * it. Beside Docker's API, on the local socket like all of it.
 */
import { type ApiContext, json, type Route } from "./context.ts";
import { DaemonError } from "./errors.ts";

export interface Audit {
  /** A line each; none when the kernel is exactly as it should be. */
  readonly Differences: readonly string[];
}

export function auditRoutes({ node }: ApiContext): Route[] {
  return [
    {
      method: "GET",
      path: "/shoal/audit",
      handle: async () => {
        const differences = await node.auditNetworks();
        if (!differences) throw new DaemonError("Unavailable", "This node is not part of a swarm");
        return json(200, { Differences: differences } satisfies Audit);
      },
    },
  ];
}
