/**
 * The members of service and node specs with their types, as data: what a client may send and the store may hold.
 * Names and types are the Engine API's (its Go structs), so that the refusals read the same.
 */
import {
  anything,
  flag,
  list,
  named,
  type ObjectShape,
  object,
  ratio,
  text,
  textMap,
  texts,
  whole,
} from "./validate-shape.ts";

const duration = whole("time.Duration");
export const driverShape = object("swarm.Driver", { Name: text, Options: textMap });

const fileTarget = (go: string) => object(go, { Name: text, UID: text, GID: text, Mode: whole("fs.FileMode") });

const mount = object("mount.Mount", {
  Type: named("mount.Type"),
  Source: text,
  Target: text,
  ReadOnly: flag,
  Consistency: named("mount.Consistency"),
  BindOptions: object("mount.BindOptions", {
    Propagation: named("mount.Propagation"),
    NonRecursive: flag,
    CreateMountpoint: flag,
    ReadOnlyNonRecursive: flag,
    ReadOnlyForceRecursive: flag,
  }),
  VolumeOptions: object("mount.VolumeOptions", {
    NoCopy: flag,
    Labels: textMap,
    Subpath: text,
    DriverConfig: object("mount.Driver", { Name: text, Options: textMap }),
  }),
  ImageOptions: object("mount.ImageOptions", { Subpath: text }),
  TmpfsOptions: object("mount.TmpfsOptions", {
    SizeBytes: whole("int64"),
    Mode: whole("fs.FileMode"),
    Options: list(texts),
  }),
  ClusterOptions: object("mount.ClusterOptions", {}),
});

const privileges = object("swarm.Privileges", {
  CredentialSpec: object("swarm.CredentialSpec", { Config: text, File: text, Registry: text }),
  SELinuxContext: object("swarm.SELinuxContext", { Disable: flag, User: text, Role: text, Type: text, Level: text }),
  Seccomp: object("swarm.SeccompOpts", { Mode: named("swarm.SeccompMode"), Profile: text }),
  AppArmor: object("swarm.AppArmorOpts", { Mode: named("swarm.AppArmorMode") }),
  NoNewPrivileges: flag,
});

const containerSpec = object("swarm.ContainerSpec", {
  Image: text,
  Labels: textMap,
  Command: texts,
  Args: texts,
  Hostname: text,
  Env: texts,
  Dir: text,
  User: text,
  Groups: texts,
  Privileges: privileges,
  Init: flag,
  StopSignal: text,
  TTY: flag,
  OpenStdin: flag,
  ReadOnly: flag,
  Mounts: list(mount),
  StopGracePeriod: duration,
  Healthcheck: object("container.HealthConfig", {
    Test: texts,
    Interval: duration,
    Timeout: duration,
    StartPeriod: duration,
    StartInterval: duration,
    Retries: whole("int32"),
  }),
  Hosts: texts,
  DNSConfig: object("swarm.DNSConfig", { Nameservers: texts, Search: texts, Options: texts }),
  Secrets: list(
    object("swarm.SecretReference", {
      File: fileTarget("swarm.SecretReferenceFileTarget"),
      SecretID: text,
      SecretName: text,
    }),
  ),
  Configs: list(
    object("swarm.ConfigReference", {
      File: fileTarget("swarm.ConfigReferenceFileTarget"),
      Runtime: object("swarm.ConfigReferenceRuntimeTarget", {}),
      ConfigID: text,
      ConfigName: text,
    }),
  ),
  Isolation: named("container.Isolation"),
  Sysctls: textMap,
  CapabilityAdd: texts,
  CapabilityDrop: texts,
  Ulimits: list(object("units.Ulimit", { Name: text, Hard: whole("int64"), Soft: whole("int64") })),
  OomScoreAdj: whole("int64"),
});

const resources = object("swarm.ResourceRequirements", {
  Limits: object("swarm.Limit", { NanoCPUs: whole("int64"), MemoryBytes: whole("int64"), Pids: whole("int64") }),
  Reservations: object("swarm.Resources", {
    NanoCPUs: whole("int64"),
    MemoryBytes: whole("int64"),
    GenericResources: list(
      object("swarm.GenericResource", {
        NamedResourceSpec: object("swarm.NamedGenericResource", { Kind: text, Value: text }),
        DiscreteResourceSpec: object("swarm.DiscreteGenericResource", { Kind: text, Value: whole("int64") }),
      }),
    ),
  }),
  SwapBytes: whole("int64"),
  MemorySwappiness: whole("int64"),
});

const networks = list(object("swarm.NetworkAttachmentConfig", { Target: text, Aliases: texts, DriverOpts: textMap }));

const taskSpec = object("swarm.TaskSpec", {
  ContainerSpec: containerSpec,
  PluginSpec: anything,
  NetworkAttachmentSpec: anything,
  Resources: resources,
  RestartPolicy: object("swarm.RestartPolicy", {
    Condition: named("swarm.RestartPolicyCondition"),
    Delay: duration,
    MaxAttempts: whole("uint64"),
    Window: duration,
  }),
  Placement: object("swarm.Placement", {
    Constraints: texts,
    Preferences: list(
      object("swarm.PlacementPreference", { Spread: object("swarm.SpreadOver", { SpreadDescriptor: text }) }),
    ),
    MaxReplicas: whole("uint64"),
    Platforms: list(object("swarm.Platform", { Architecture: text, OS: text })),
  }),
  Networks: networks,
  LogDriver: driverShape,
  ForceUpdate: whole("uint64"),
  Runtime: named("swarm.RuntimeType"),
});

const updateConfig = object("swarm.UpdateConfig", {
  Parallelism: whole("uint64"),
  Delay: duration,
  FailureAction: text,
  Monitor: duration,
  MaxFailureRatio: ratio,
  Order: text,
});

export const serviceSpecShape: ObjectShape = object("swarm.ServiceSpec", {
  Name: text,
  Labels: textMap,
  TaskTemplate: taskSpec,
  Mode: object("swarm.ServiceMode", {
    Replicated: object("swarm.ReplicatedService", { Replicas: whole("uint64") }),
    Global: object("swarm.GlobalService", {}),
    ReplicatedJob: object("swarm.ReplicatedJob", {
      MaxConcurrent: whole("uint64"),
      TotalCompletions: whole("uint64"),
    }),
    GlobalJob: object("swarm.GlobalJob", {}),
  }),
  UpdateConfig: updateConfig,
  RollbackConfig: updateConfig,
  Networks: networks,
  EndpointSpec: object("swarm.EndpointSpec", {
    Mode: named("swarm.ResolutionMode"),
    Ports: list(
      object("swarm.PortConfig", {
        Name: text,
        Protocol: named("swarm.PortConfigProtocol"),
        TargetPort: whole("uint32"),
        PublishedPort: whole("uint32"),
        PublishMode: named("swarm.PortConfigPublishMode"),
      }),
    ),
  }),
});

export const nodeSpecShape: ObjectShape = object("swarm.NodeSpec", {
  Name: text,
  Labels: textMap,
  Role: named("swarm.NodeRole"),
  Availability: named("swarm.NodeAvailability"),
});
