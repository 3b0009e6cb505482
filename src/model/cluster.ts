/**
 * The cluster object: its defaults, and the `Swarm` that the API shows of it.
 *
 * A swarm's spec is always complete in the store: what a client leaves out, or gives as zero where zero means nothing,
 * is the default (the whole spec is replaced by an update, as with Swarm's). Two members keep an explicit zero, which
 * means "none": the task history limit and the number of old snapshots. Raft's members are kept and shown, because
 * clients compare them, though there is no raft here to heed them.
 */
import type { Cluster, Swarm, SwarmInitRequest, SwarmSpec, TLSInfo } from "./types.ts";

/** The only name that a cluster can have. */
export const clusterName = "default";

export const defaultDataPathPort = 4789;
const defaultAddressPool = "10.0.0.0/8";
const defaultSubnetSize = 24;

/** Swarm's defaults. Durations are nanoseconds. */
export const swarmDefaults = {
  taskHistoryRetentionLimit: 5,
  snapshotInterval: 10_000,
  keepOldSnapshots: 0,
  logEntriesForSlowFollowers: 500,
  electionTick: 10,
  heartbeatTick: 1,
  heartbeatPeriod: 5_000_000_000,
  /** 90 days. */
  nodeCertExpiry: 2160 * 3600 * 1_000_000_000,
} as const;

/** The spec with every default filled in, members in the API's order. */
export function completeSwarmSpec(given: SwarmSpec): SwarmSpec {
  const { Orchestration, Raft, Dispatcher, CAConfig, EncryptionConfig, TaskDefaults } = given;
  return {
    Name: given.Name || clusterName,
    Labels: given.Labels ?? {},
    Orchestration: {
      TaskHistoryRetentionLimit: Orchestration?.TaskHistoryRetentionLimit ?? swarmDefaults.taskHistoryRetentionLimit,
    },
    Raft: {
      SnapshotInterval: Raft?.SnapshotInterval || swarmDefaults.snapshotInterval,
      KeepOldSnapshots: Raft?.KeepOldSnapshots ?? swarmDefaults.keepOldSnapshots,
      LogEntriesForSlowFollowers: Raft?.LogEntriesForSlowFollowers || swarmDefaults.logEntriesForSlowFollowers,
      ElectionTick: Raft?.ElectionTick || swarmDefaults.electionTick,
      HeartbeatTick: Raft?.HeartbeatTick || swarmDefaults.heartbeatTick,
    },
    Dispatcher: { HeartbeatPeriod: Dispatcher?.HeartbeatPeriod || swarmDefaults.heartbeatPeriod },
    CAConfig: {
      NodeCertExpiry: CAConfig?.NodeCertExpiry || swarmDefaults.nodeCertExpiry,
      ...(CAConfig?.ForceRotate ? { ForceRotate: CAConfig.ForceRotate } : {}),
    },
    TaskDefaults: TaskDefaults?.LogDriver ? { LogDriver: TaskDefaults.LogDriver } : {},
    EncryptionConfig: { AutoLockManagers: EncryptionConfig?.AutoLockManagers ?? false },
  };
}

/** The cluster that `request` asks for, as the store's `create` takes it. */
export function newCluster(
  id: string,
  request: SwarmInitRequest,
  rootCA: Cluster["RootCA"],
  unlockKey?: string,
): Omit<Cluster, "Version" | "CreatedAt" | "UpdatedAt"> {
  const pools = request.DefaultAddrPool ?? [];
  return {
    ID: id,
    Spec: completeSwarmSpec(request.Spec ?? {}),
    RootCA: rootCA,
    ...(unlockKey === undefined ? {} : { UnlockKey: unlockKey }),
    DefaultAddrPool: pools.length > 0 ? pools : [defaultAddressPool],
    SubnetSize: request.SubnetSize || defaultSubnetSize,
    DataPathPort: request.DataPathPort || defaultDataPathPort,
    RemovedNodes: {},
  };
}

/** What `GET /swarm` shows: everything but the private parts. */
export function toSwarm(
  cluster: Cluster,
  tlsInfo: TLSInfo,
): Swarm & { JoinTokens: { Worker: string; Manager: string } } {
  const { Worker, Manager } = cluster.RootCA.JoinTokens;
  return { ...toClusterInfo(cluster, tlsInfo), JoinTokens: { Worker, Manager } };
}

/** What `GET /info` shows of the cluster: the same without the join tokens. */
export function toClusterInfo(cluster: Cluster, tlsInfo: TLSInfo): Omit<Swarm, "JoinTokens"> {
  return {
    ID: cluster.ID,
    Version: cluster.Version,
    CreatedAt: cluster.CreatedAt,
    UpdatedAt: cluster.UpdatedAt,
    Spec: cluster.Spec,
    TLSInfo: tlsInfo,
    RootRotationInProgress: cluster.RootCA.Rotation !== undefined,
    DefaultAddrPool: [...cluster.DefaultAddrPool],
    SubnetSize: cluster.SubnetSize,
    DataPathPort: cluster.DataPathPort,
  };
}
