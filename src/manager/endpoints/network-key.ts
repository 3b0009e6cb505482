/**
 * The key that nodes share to encrypt networks: made with the first encrypted network, and replaced twice a day, so
 * that a node that has left knows nothing of what is said later.
 */
import { parseRfc3339 } from "../../lib/clock.ts";
import type { Random } from "../../lib/random.ts";
import { isEncrypted } from "../../model/networks.ts";
import type { Cluster } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, Planner } from "../planner.ts";

/** As often as Swarm replaces its keys. */
const rotateEveryMs = 12 * 60 * 60 * 1000;
const keyBytes = 32;

/** @param random fit for secrets */
export function networkKeyPlanner(random: Random): Planner {
  return {
    name: "network-key",
    *wakes(change: Change, view: View): Iterable<string> {
      const cluster = view.cluster();
      if (!cluster) return;
      if (change.table === "networks" && change.after && isEncrypted(change.after)) yield cluster.ID;
      if (change.table === "cluster" && change.before?.NetworkKey !== change.after?.NetworkKey) yield cluster.ID;
    },
    *keys(view: View): Iterable<string> {
      const cluster = view.cluster();
      if (cluster) yield cluster.ID;
    },
    plan: (view, _, context) => planKey(view, context, random),
  };
}

function planKey(view: View, { now, nowText, leadsSince }: PlanContext, random: Random): Plan {
  const cluster = view.cluster();
  if (!cluster || !hasEncrypted(view)) return { changes: [] };
  const { NetworkKey: key } = cluster;
  if (key) {
    // The clock of the leader that made it may be ahead of this one's.
    const againAt = Math.min(parseRfc3339(key.MadeAt), view.heardAt(cluster) ?? leadsSince) + rotateEveryMs;
    if (againAt > now) return { changes: [], againAt };
  }
  const NetworkKey: Cluster["NetworkKey"] = {
    Key: Buffer.from(random.bytes(keyBytes)).toString("base64"),
    Revision: (key?.Revision ?? 0) + 1,
    MadeAt: nowText,
  };
  return {
    changes: [{ kind: "update", table: "cluster", object: { ...cluster, NetworkKey } }],
    againAt: now + rotateEveryMs,
  };
}

function hasEncrypted(view: View): boolean {
  for (const network of view.all("networks")) if (isEncrypted(network)) return true;
  return false;
}
