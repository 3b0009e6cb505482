/**
 * `/swarm`: making, showing, changing and leaving a swarm. What the node itself refuses (an address, a failed start)
 * is answered in its own words; what the cluster refuses has gRPC's prefix, as with Swarm.
 *
 * Invariant: the stored spec is complete and holds nothing that this version cannot do: what is not there yet (autolock,
 * external and rotated roots, joining) is refused with one sentence, never stored and ignored.
 */
import { newJoinToken } from "../ca/tokens.ts";
import { ShoalError } from "../lib/errors.ts";
import { clusterName, completeSwarmSpec, toSwarm } from "../model/cluster.ts";
import type { Cluster, SwarmInitRequest, SwarmSpec } from "../model/types.ts";
import { shapedBody } from "./body.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json, type LocalNode, type Route } from "./context.ts";
import { badRequest, DaemonError, inDaemonsWords, notImplemented } from "./errors.ts";
import { leaveRefusal } from "./leave.ts";
import { currentView, requireManager } from "./membership.ts";
import { looseFlag, strictFlag, versionParameter } from "./query.ts";
import { initShape, swarmSpecShape } from "./swarm-shape.ts";
import { tlsInfoOf } from "./tls-info.ts";
import { validateInit } from "./validate-init.ts";

export function swarmRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/swarm", handle: () => inspect(context) },
    { method: "POST", path: "/swarm/init", handle: (request) => init(context, request) },
    { method: "POST", path: "/swarm/join", handle: () => join(context.node) },
    { method: "POST", path: "/swarm/leave", handle: (request) => leave(context.node, request) },
    { method: "POST", path: "/swarm/update", handle: (request) => update(context, request) },
    { method: "GET", path: "/swarm/unlockkey", handle: () => unlockKey(context.node) },
    { method: "POST", path: "/swarm/unlock", handle: () => unlock(context.node) },
  ];
}

async function inspect({ node }: ApiContext): Promise<ApiAnswer> {
  const cluster = clusterOf((await currentView(node)).cluster());
  return json(200, toSwarm(cluster, tlsInfoOf(cluster.RootCA.Certificate)));
}

async function init({ node }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const asked = await shapedBody<SwarmInitRequest>(request, initShape);
  if (isInSwarm(node)) {
    throw asked.ForceNewCluster ? notImplemented("force-new-cluster is not supported yet") : alreadyInSwarm();
  }
  validateInit(asked);
  refuseUnsupported(asked.Spec ?? {});
  const Spec = completeSwarmSpec(asked.Spec ?? {});
  validateClusterSpec(Spec);
  const nodeId = await inOwnWords(node.init({ ...asked, Spec }));
  return json(200, nodeId);
}

async function join(node: LocalNode): Promise<ApiAnswer> {
  if (isInSwarm(node)) throw alreadyInSwarm();
  throw notImplemented("joining a swarm is not supported yet");
}

async function leave(node: LocalNode, request: ApiRequest): Promise<ApiAnswer> {
  if (!isInSwarm(node)) throw new DaemonError("Unavailable", "This node is not part of a swarm");
  const force = looseFlag(request.query, "force");
  const refusal = force ? undefined : leaveRefusal(node);
  if (refusal) throw new DaemonError("Unavailable", refusal);
  await inOwnWords(node.leave(force));
  return { kind: "empty", status: 200 };
}

async function update(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const asked = await shapedBody<SwarmSpec>(request, swarmSpecShape);
  const version = versionParameter(request, "swarm");
  const rotateWorker = strictFlag(request.query, "rotateWorkerToken");
  const rotateManager = strictFlag(request.query, "rotateManagerToken");
  strictFlag(request.query, "rotateManagerUnlockKey"); // without autolock there is no key to rotate
  const { store } = requireManager(context.node);
  if (asked.Name && asked.Name !== clusterName) throw badRequest(`swarm spec must be named "${clusterName}"`);
  refuseUnsupported(asked);
  const Spec = completeSwarmSpec(asked);
  validateClusterSpec(Spec);
  await store.update((tx) => {
    const cluster = clusterOf(tx.cluster());
    tx.checkVersion(cluster, version);
    const { RootCA } = cluster;
    const token = (rotate: boolean, now: string) => (rotate ? newJoinToken(RootCA.Certificate, context.random) : now);
    const JoinTokens = {
      Worker: token(rotateWorker, RootCA.JoinTokens.Worker),
      Manager: token(rotateManager, RootCA.JoinTokens.Manager),
    };
    tx.put("cluster", { ...cluster, Spec, RootCA: { ...RootCA, JoinTokens } });
  });
  return { kind: "empty", status: 200 };
}

async function unlockKey(node: LocalNode): Promise<ApiAnswer> {
  requireManager(node);
  return json(200, { UnlockKey: "" }); // as for every swarm without autolock
}

async function unlock(node: LocalNode): Promise<ApiAnswer> {
  requireManager(node);
  throw new DaemonError("AlreadyExists", "swarm is not locked");
}

function isInSwarm(node: LocalNode): boolean {
  return node.info().LocalNodeState !== "inactive";
}

function alreadyInSwarm(): DaemonError {
  const text =
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
  return new DaemonError("Unavailable", text);
}

function clusterOf(cluster: Cluster | undefined): Cluster {
  if (!cluster) throw new DaemonError("NotFound", "no swarm found");
  return cluster;
}

async function inOwnWords<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

/** Throws 501 for what is asked in words and not there yet; better than to store it and do nothing. */
function refuseUnsupported({ EncryptionConfig, CAConfig }: SwarmSpec): void {
  if (EncryptionConfig?.AutoLockManagers) throw notImplemented("autolock is not supported yet");
  if ((CAConfig?.ExternalCAs?.length ?? 0) > 0) throw notImplemented("external CAs are not supported yet");
  if (CAConfig?.SigningCACert || CAConfig?.SigningCAKey || CAConfig?.ForceRotate) {
    throw notImplemented("rotating the root CA is not supported yet");
  }
}

const nanosecondsPerHour = 3600 * 1_000_000_000;

/** What swarmkit checks of a cluster's spec. */
function validateClusterSpec({ CAConfig, Dispatcher }: SwarmSpec): void {
  if ((CAConfig?.NodeCertExpiry ?? 0) < nanosecondsPerHour) {
    throw new ShoalError("InvalidArgument", "minimum certificate expiry time is: 1h0m0s");
  }
  if ((Dispatcher?.HeartbeatPeriod ?? 0) < 0) {
    throw new ShoalError("InvalidArgument", "heartbeat time period cannot be a negative duration");
  }
}
