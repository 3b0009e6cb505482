/**
 * `/swarm`: making, showing, changing and leaving a swarm. What the node itself refuses (an address, a failed start)
 * is answered in its own words; what the cluster refuses has gRPC's prefix, as with Swarm.
 *
 * Invariant: the stored spec is complete and holds nothing that this version cannot do: what is not there (external
 * CAs) is refused with one sentence, never stored and ignored.
 */
import { rootAsAsked } from "../ca/rotation.ts";
import { tlsInfoOfCluster } from "../ca/tls-info.ts";
import { newJoinToken } from "../ca/tokens.ts";
import { newUnlockKey } from "../ca/unlock-key.ts";
import { ShoalError } from "../lib/errors.ts";
import { clusterName, completeSwarmSpec, toSwarm } from "../model/cluster.ts";
import type { Cluster, SwarmInitRequest, SwarmJoinRequest, SwarmSpec } from "../model/types.ts";
import { shapedBody } from "./body.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json, type LocalNode, type Route } from "./context.ts";
import { badRequest, DaemonError, inDaemonsWords, notImplemented } from "./errors.ts";
import { leaveRefusal } from "./leave.ts";
import { currentView, requireManager } from "./membership.ts";
import { looseFlag, strictFlag, versionParameter } from "./query.ts";
import { initShape, joinShape, swarmSpecShape, unlockShape } from "./swarm-shape.ts";
import { joinAddresses, validateInit } from "./validate-init.ts";

export function swarmRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/swarm", handle: () => inspect(context) },
    { method: "POST", path: "/swarm/init", handle: (request) => init(context, request) },
    { method: "POST", path: "/swarm/join", handle: (request) => join(context.node, request) },
    { method: "POST", path: "/swarm/leave", handle: (request) => leave(context.node, request) },
    { method: "POST", path: "/swarm/update", handle: (request) => update(context, request) },
    { method: "GET", path: "/swarm/unlockkey", handle: () => unlockKey(context.node) },
    { method: "POST", path: "/swarm/unlock", handle: (request) => unlock(context.node, request) },
  ];
}

async function inspect({ node }: ApiContext): Promise<ApiAnswer> {
  const cluster = clusterOf((await currentView(node)).cluster());
  return json(200, toSwarm(cluster, tlsInfoOfCluster(cluster.RootCA)));
}

async function init({ node }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const asked = await shapedBody<SwarmInitRequest>(request, initShape);
  if (isInSwarm(node) && !asked.ForceNewCluster) throw alreadyInSwarm();
  validateInit(asked);
  refuseUnsupported(asked.Spec ?? {});
  const Spec = completeSwarmSpec(specOfInit(asked));
  validateClusterSpec(Spec);
  const nodeId = await inOwnWords(node.init({ ...asked, Spec }));
  return json(200, nodeId);
}

/** Autolock is asked for beside the spec, or in it. There is no root yet that could be rotated. */
function specOfInit({ Spec = {}, AutoLockManagers }: SwarmInitRequest): SwarmSpec {
  if (Spec.CAConfig?.SigningCACert || Spec.CAConfig?.SigningCAKey) {
    throw notImplemented("a new swarm makes its own root CA: bring another with `docker swarm ca --rotate`");
  }
  const asked = AutoLockManagers || Spec.EncryptionConfig?.AutoLockManagers;
  return {
    ...Spec,
    CAConfig: { ...Spec.CAConfig, ForceRotate: 0 },
    EncryptionConfig: { AutoLockManagers: asked === true },
  };
}

async function join(node: LocalNode, request: ApiRequest): Promise<ApiAnswer> {
  const asked = await shapedBody<SwarmJoinRequest>(request, joinShape);
  if (isInSwarm(node)) throw alreadyInSwarm();
  const RemoteAddrs = joinAddresses(asked);
  await inOwnWords(node.join({ ...asked, RemoteAddrs }));
  return { kind: "empty", status: 200 };
}

async function leave(node: LocalNode, request: ApiRequest): Promise<ApiAnswer> {
  if (!isInSwarm(node)) throw new DaemonError("Unavailable", "This node is not part of a swarm");
  const force = looseFlag(request.query, "force");
  const refusal = force ? undefined : isLocked(node) ? leaveLocked : leaveRefusal(node);
  if (refusal) throw new DaemonError("Unavailable", refusal);
  await inOwnWords(node.leave(force));
  return { kind: "empty", status: 200 };
}

async function update(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const asked = await shapedBody<SwarmSpec>(request, swarmSpecShape);
  const version = versionParameter(request, "swarm");
  const rotateWorker = strictFlag(request.query, "rotateWorkerToken");
  const rotateManager = strictFlag(request.query, "rotateManagerToken");
  const rotateUnlockKey = strictFlag(request.query, "rotateManagerUnlockKey");
  const manager = requireManager(context.node);
  if (asked.Name && asked.Name !== clusterName) throw badRequest(`swarm spec must be named "${clusterName}"`);
  refuseUnsupported(asked);
  validateClusterSpec(completeSwarmSpec(asked));
  const { store } = manager;
  await store.caughtUp();
  const before = clusterOf(store.view.cluster());
  // Checked again below, where it counts: this only spares a root that would not be used.
  if (before.Version.Index !== version) throw new ShoalError("Unknown", "update out of sequence");
  const RootCA = await rootAsAsked(before.RootCA, asked.CAConfig, context.clock.now());
  const CAConfig = { ...asked.CAConfig, ForceRotate: RootCA.LastForcedRotation ?? 0 };
  const Spec = completeSwarmSpec({ ...asked, CAConfig });
  await store.update((tx) => {
    const cluster = clusterOf(tx.cluster());
    tx.checkVersion(cluster, version);
    const token = (rotate: boolean, now: string) => (rotate ? newJoinToken(RootCA.Certificate, context.random) : now);
    const JoinTokens = {
      Worker: token(rotateWorker, RootCA.JoinTokens.Worker),
      Manager: token(rotateManager, RootCA.JoinTokens.Manager),
    };
    const { UnlockKey: present, ...rest } = cluster;
    const kept = rotateUnlockKey ? undefined : present;
    const locking = Spec.EncryptionConfig?.AutoLockManagers && { UnlockKey: kept ?? newUnlockKey(context.random) };
    tx.put("cluster", { ...rest, ...locking, Spec, RootCA: { ...RootCA, JoinTokens } });
  });
  // The answer says that the key counts: this manager's own disk must say so too.
  await manager.sealed();
  return { kind: "empty", status: 200 };
}

async function unlockKey(node: LocalNode): Promise<ApiAnswer> {
  const cluster = clusterOf((await currentView(node)).cluster());
  return json(200, { UnlockKey: cluster.UnlockKey ?? "" }); // "" for every swarm without autolock
}

async function unlock(node: LocalNode, request: ApiRequest): Promise<ApiAnswer> {
  const { UnlockKey = "" } = await shapedBody<{ UnlockKey?: string }>(request, unlockShape);
  if (!isLocked(node)) {
    requireManager(node);
    throw new DaemonError("AlreadyExists", "swarm is not locked");
  }
  await inOwnWords(node.unlock(UnlockKey));
  return { kind: "empty", status: 200 };
}

function isInSwarm(node: LocalNode): boolean {
  return node.info().LocalNodeState !== "inactive";
}

function isLocked(node: LocalNode): boolean {
  return node.info().LocalNodeState === "locked";
}

const leaveLocked = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";

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

/** Throws 501 for what is asked in words and not there; better than to store it and do nothing. */
function refuseUnsupported({ CAConfig }: SwarmSpec): void {
  if ((CAConfig?.ExternalCAs?.length ?? 0) > 0) throw notImplemented("external CAs are not supported yet");
}

const shortestHeartbeatNs = 100_000_000;
const nanosecondsPerHour = 3600 * 1_000_000_000;

/** What swarmkit checks of a cluster's spec. */
function validateClusterSpec({ CAConfig, Dispatcher }: SwarmSpec): void {
  if ((CAConfig?.NodeCertExpiry ?? 0) < nanosecondsPerHour) {
    throw new ShoalError("InvalidArgument", "minimum certificate expiry time is: 1h0m0s");
  }
  const { HeartbeatPeriod: period = 0 } = Dispatcher ?? {};
  if (period < 0) throw new ShoalError("InvalidArgument", "heartbeat time period cannot be a negative duration");
  // Swarm takes any, and with a nanosecond every node counts as down.
  if (period < shortestHeartbeatNs) {
    throw new ShoalError("InvalidArgument", "minimum heartbeat time period is: 100ms");
  }
}
