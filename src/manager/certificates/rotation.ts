/**
 * Carries a rotation of the root to its end, on the leader: nodes that still have a certificate of another root are
 * asked to renew it, and when the last one has, the new root becomes the cluster's, with new join tokens.
 *
 * Invariant: the old root is given up only when every node of the swarm, also one that is down, has said in a session
 * that its certificate is of the new one (a node that never comes back is removed with `node rm`). So whatever node is
 * up at that moment can verify every other one, with the old root or the new.
 * Differs from Swarm: a batch of nodes that has answered makes room for the next one at once; Swarm always waits.
 */
import { isIssuedBy, issuerOf } from "../../ca/tls-info.ts";
import { newJoinToken } from "../../ca/tokens.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster, Node } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";
import { awaitsSigning } from "./service.ts";

/** Swarm's: so many nodes are asked at a time, and no more until they have answered or this time has passed. */
const batchSize = 30;
const batchEveryMs = 3_000;
/** A node that was given a certificate of the new root has so long to come back with it before it is asked anew. */
const returnWithinMs = 5_000;

/** @param random of the new join tokens */
export function rootRotationPlanner(random: Random): Planner {
  return {
    name: "root-rotation",
    *wakes(change: Change, view: View): Iterable<string> {
      const cluster = view.cluster();
      if (cluster?.RootCA.Rotation && (change.table === "cluster" || (change.table === "nodes" && concerns(change)))) {
        yield cluster.ID;
      }
    },
    *keys(view: View): Iterable<string> {
      const cluster = view.cluster();
      if (cluster?.RootCA.Rotation) yield cluster.ID;
    },
    plan(view: View, _key: string, context: PlanContext): Plan {
      const cluster = view.cluster();
      return cluster ? planRotation(view, cluster, context, random) : { changes: [] };
    },
  };
}

function concerns({ before, after }: Change & { table: "nodes" }): boolean {
  return (
    before?.Certificate?.State !== after?.Certificate?.State ||
    before?.Description?.TLSInfo?.CertIssuerPublicKey !== after?.Description?.TLSInfo?.CertIssuerPublicKey
  );
}

function planRotation(view: View, cluster: Cluster, { now, leadsSince, room }: PlanContext, random: Random): Plan {
  const { Rotation } = cluster.RootCA;
  if (!Rotation) return { changes: [] };
  const issuer = issuerOf(Rotation.Certificate);
  let missing = 0;
  let waiting = 0;
  const toAsk: Node[] = [];
  let againAt = Number.POSITIVE_INFINITY;
  for (const node of view.all("nodes")) {
    if (isIssuedBy(node.Description?.TLSInfo, issuer)) continue;
    missing++;
    const since = view.heardAt(node) ?? leadsSince;
    const state = node.Certificate?.State;
    if (state === "rotate" && now < since + batchEveryMs) {
      waiting++;
      againAt = Math.min(againAt, since + batchEveryMs);
    } else if (node.Certificate && !awaitsSigning(state) && state !== "rotate") {
      // Its certificate may be of the new root already, and the session that says so yet to come.
      const due = node.Certificate.Certificate.endsWith(Rotation.CrossSigned) ? since + returnWithinMs : 0;
      if (due <= now) toAsk.push(node);
      else againAt = Math.min(againAt, due);
    }
  }
  if (missing === 0) return { changes: [finish(cluster, random)] };
  if (waiting > 0 || toAsk.length === 0) return Number.isFinite(againAt) ? { changes: [], againAt } : { changes: [] };
  const changes = toAsk.slice(0, Math.min(batchSize, room)).map(ask);
  return { changes, againAt: now + batchEveryMs };
}

function ask(node: Node): PlannedChange {
  const Certificate = { ...node.Certificate!, State: "rotate" as const };
  return { kind: "update", table: "nodes", object: { ...node, Certificate } };
}

function finish(cluster: Cluster, random: Random): PlannedChange {
  const { Rotation, ...kept } = cluster.RootCA;
  const { Certificate, Key } = Rotation!;
  const JoinTokens = { Worker: newJoinToken(Certificate, random), Manager: newJoinToken(Certificate, random) };
  const RootCA: Cluster["RootCA"] = { ...kept, Certificate, Key, JoinTokens };
  return { kind: "update", table: "cluster", object: { ...cluster, RootCA } };
}
