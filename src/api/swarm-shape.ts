/** The members of the bodies of `/swarm/...` with their types, as data. Names and types are the Engine API's. */
import { flag, list, object, text, textMap, texts, whole } from "../model/validate-shape.ts";

const driver = object("swarm.Driver", { Name: text, Options: textMap });

export const swarmSpecShape = object("swarm.Spec", {
  Name: text,
  Labels: textMap,
  Orchestration: object("swarm.OrchestrationConfig", { TaskHistoryRetentionLimit: whole("int64") }),
  Raft: object("swarm.RaftConfig", {
    SnapshotInterval: whole("uint64"),
    KeepOldSnapshots: whole("uint64"),
    LogEntriesForSlowFollowers: whole("uint64"),
    ElectionTick: whole("int"),
    HeartbeatTick: whole("int"),
  }),
  Dispatcher: object("swarm.DispatcherConfig", { HeartbeatPeriod: whole("time.Duration") }),
  CAConfig: object("swarm.CAConfig", {
    NodeCertExpiry: whole("time.Duration"),
    ExternalCAs: list(object("swarm.ExternalCA", { Protocol: text, URL: text, Options: textMap, CACert: text })),
    SigningCACert: text,
    SigningCAKey: text,
    ForceRotate: whole("uint64"),
  }),
  TaskDefaults: object("swarm.TaskDefaults", { LogDriver: driver }),
  EncryptionConfig: object("swarm.EncryptionConfig", { AutoLockManagers: flag }),
});

export const joinShape = object("swarm.JoinRequest", {
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  RemoteAddrs: texts,
  JoinToken: text,
  Availability: text,
});

export const unlockShape = object("swarm.UnlockRequest", { UnlockKey: text });

export const initShape = object("swarm.InitRequest", {
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  DataPathPort: whole("uint32"),
  ForceNewCluster: flag,
  Spec: swarmSpecShape,
  AutoLockManagers: flag,
  Availability: text,
  DefaultAddrPool: texts,
  SubnetSize: whole("uint32"),
});
