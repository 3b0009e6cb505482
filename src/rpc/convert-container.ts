/**
 * ContainerSpec, wire <-> model. Two of its parts live elsewhere in the model: the process limit is one of
 * `Resources.Limits`, and the registry's credentials are the task's `RegistryAuth`; `convert-task.ts` puts them there.
 */
import type { ContainerSpec, HealthConfig, Mount } from "../model/types.ts";
import {
  coding,
  compact,
  dictionary,
  durationFromWire,
  durationToWire,
  flag,
  fromInt32,
  fromInt64,
  type Init,
  list,
  mapped,
  text,
  toInt64,
} from "./convert-basics.ts";
import { privilegesFromWire, privilegesToWire } from "./convert-privileges.ts";
import {
  type ConfigReference,
  type ConfigReferenceSchema,
  ContainerSpec_Isolation,
  type ContainerSpecSchema,
  type FileTarget,
  type FileTargetSchema,
  type HealthConfigSchema,
  Mount_BindOptions_Propagation,
  Mount_Consistency,
  Mount_Type,
  type MountSchema,
  type SecretReference,
  type SecretReferenceSchema,
  type ContainerSpec as WireContainerSpec,
  type HealthConfig as WireHealthConfig,
  type Mount as WireMount,
} from "./gen/container_pb.js";

type SecretOfSpec = NonNullable<ContainerSpec["Secrets"]>[number];
type ConfigOfSpec = NonNullable<ContainerSpec["Configs"]>[number];
type FileOfSpec = NonNullable<SecretOfSpec["File"]>;

const isolations = coding("container isolation", {
  default: ContainerSpec_Isolation.DEFAULT,
  process: ContainerSpec_Isolation.PROCESS,
  hyperv: ContainerSpec_Isolation.HYPERV,
});
// `image` is missing on purpose: swarmkit has no number for it.
const mountTypes = coding<string>("MountType", {
  bind: Mount_Type.BIND,
  volume: Mount_Type.VOLUME,
  tmpfs: Mount_Type.TMPFS,
  npipe: Mount_Type.NPIPE,
  cluster: Mount_Type.CLUSTER,
});
const consistencies = coding<string>("mount consistency", {
  default: Mount_Consistency.DEFAULT,
  consistent: Mount_Consistency.CONSISTENT,
  cached: Mount_Consistency.CACHED,
  delegated: Mount_Consistency.DELEGATED,
});
const propagations = coding("mount propagation", {
  rprivate: Mount_BindOptions_Propagation.RPRIVATE,
  private: Mount_BindOptions_Propagation.PRIVATE,
  rshared: Mount_BindOptions_Propagation.RSHARED,
  shared: Mount_BindOptions_Propagation.SHARED,
  rslave: Mount_BindOptions_Propagation.RSLAVE,
  slave: Mount_BindOptions_Propagation.SLAVE,
});

/** @param pids the process limit, from the task's resources */
export function containerToWire(
  spec: ContainerSpec,
  pids: number | undefined,
  registryAuth: string | undefined,
): Init<typeof ContainerSpecSchema> {
  return {
    image: spec.Image ?? "",
    labels: spec.Labels ?? {},
    command: spec.Command ?? [],
    args: spec.Args ?? [],
    hostname: spec.Hostname ?? "",
    env: spec.Env ?? [],
    dir: spec.Dir ?? "",
    user: spec.User ?? "",
    groups: spec.Groups ?? [],
    privileges: spec.Privileges && privilegesToWire(spec.Privileges),
    init: spec.Init ?? undefined,
    tty: spec.TTY ?? false,
    openStdin: spec.OpenStdin ?? false,
    readOnly: spec.ReadOnly ?? false,
    stopSignal: spec.StopSignal ?? "",
    mounts: (spec.Mounts ?? []).map(mountToWire),
    stopGracePeriod: durationToWire(spec.StopGracePeriod),
    pullOptions: registryAuth === undefined ? undefined : { registryAuth },
    secrets: (spec.Secrets ?? []).map(secretToWire),
    configs: (spec.Configs ?? []).map(configToWire),
    hosts: spec.Hosts ?? [],
    dnsConfig: spec.DNSConfig && {
      nameservers: spec.DNSConfig.Nameservers ?? [],
      search: spec.DNSConfig.Search ?? [],
      options: spec.DNSConfig.Options ?? [],
    },
    healthcheck: spec.Healthcheck && healthToWire(spec.Healthcheck),
    isolation: isolations.encode(spec.Isolation || "default"),
    pidsLimit: toInt64(pids),
    sysctls: spec.Sysctls ?? {},
    capabilityAdd: spec.CapabilityAdd ?? [],
    capabilityDrop: spec.CapabilityDrop ?? [],
    ulimits: (spec.Ulimits ?? []).map((ulimit) => ({
      name: ulimit.Name ?? "",
      soft: toInt64(ulimit.Soft),
      hard: toInt64(ulimit.Hard),
    })),
    oomScoreAdj: toInt64(spec.OomScoreAdj),
  };
}

export function containerFromWire(spec: WireContainerSpec): ContainerSpec {
  return compact<ContainerSpec>({
    Image: text(spec.image),
    Labels: dictionary(spec.labels),
    Command: list(spec.command),
    Args: list(spec.args),
    Hostname: text(spec.hostname),
    Env: list(spec.env),
    Dir: text(spec.dir),
    User: text(spec.user),
    Groups: list(spec.groups),
    Privileges: spec.privileges && privilegesFromWire(spec.privileges),
    Init: spec.init,
    TTY: flag(spec.tty),
    OpenStdin: flag(spec.openStdin),
    ReadOnly: flag(spec.readOnly),
    StopSignal: text(spec.stopSignal),
    Mounts: mapped(spec.mounts, mountFromWire),
    StopGracePeriod: durationFromWire(spec.stopGracePeriod),
    Secrets: mapped(spec.secrets, secretFromWire),
    Configs: mapped(spec.configs, configFromWire),
    Hosts: list(spec.hosts),
    DNSConfig:
      spec.dnsConfig &&
      compact({
        Nameservers: list(spec.dnsConfig.nameservers),
        Search: list(spec.dnsConfig.search),
        Options: list(spec.dnsConfig.options),
      }),
    Healthcheck: spec.healthcheck && healthFromWire(spec.healthcheck),
    Isolation: spec.isolation === ContainerSpec_Isolation.DEFAULT ? undefined : isolations.decode(spec.isolation),
    Sysctls: dictionary(spec.sysctls),
    CapabilityAdd: list(spec.capabilityAdd),
    CapabilityDrop: list(spec.capabilityDrop),
    Ulimits: mapped(spec.ulimits, (ulimit) => ({
      Name: ulimit.name,
      Soft: Number(ulimit.soft),
      Hard: Number(ulimit.hard),
    })),
    OomScoreAdj: fromInt64(spec.oomScoreAdj),
  });
}

function mountToWire(mount: Mount): Init<typeof MountSchema> {
  const { BindOptions: bind, VolumeOptions: volume, TmpfsOptions: tmpfs } = mount;
  return {
    type: mountTypes.encode(mount.Type ?? "bind"),
    source: mount.Source ?? "",
    target: mount.Target ?? "",
    readonly: mount.ReadOnly ?? false,
    consistency: consistencies.encode(mount.Consistency || "default"),
    bindOptions: bind && {
      propagation: propagations.encode(bind.Propagation || "rprivate"),
      nonrecursive: bind.NonRecursive ?? false,
      createmountpoint: bind.CreateMountpoint ?? false,
      readonlynonrecursive: bind.ReadOnlyNonRecursive ?? false,
      readonlyforcerecursive: bind.ReadOnlyForceRecursive ?? false,
    },
    volumeOptions: volume && {
      nocopy: volume.NoCopy ?? false,
      labels: volume.Labels ?? {},
      driverConfig: volume.DriverConfig && {
        name: volume.DriverConfig.Name ?? "",
        options: volume.DriverConfig.Options ?? {},
      },
      subpath: volume.Subpath ?? "",
    },
    tmpfsOptions: tmpfs && {
      sizeBytes: toInt64(tmpfs.SizeBytes),
      mode: tmpfs.Mode ?? 0,
      options: (tmpfs.Options ?? []).map((option) => option.join("=")).join(","),
    },
  };
}

function mountFromWire(mount: WireMount): Mount {
  const { bindOptions: bind, volumeOptions: volume, tmpfsOptions: tmpfs } = mount;
  return compact<Mount>({
    Type: mountTypes.decode(mount.type) as Mount["Type"],
    Source: text(mount.source),
    Target: text(mount.target),
    ReadOnly: flag(mount.readonly),
    Consistency: mount.consistency === Mount_Consistency.DEFAULT ? undefined : consistencies.decode(mount.consistency),
    BindOptions:
      bind &&
      compact({
        Propagation:
          bind.propagation === Mount_BindOptions_Propagation.RPRIVATE
            ? undefined
            : propagations.decode(bind.propagation),
        NonRecursive: flag(bind.nonrecursive),
        CreateMountpoint: flag(bind.createmountpoint),
        ReadOnlyNonRecursive: flag(bind.readonlynonrecursive),
        ReadOnlyForceRecursive: flag(bind.readonlyforcerecursive),
      }),
    VolumeOptions:
      volume &&
      compact({
        NoCopy: flag(volume.nocopy),
        Labels: dictionary(volume.labels),
        DriverConfig:
          volume.driverConfig &&
          compact({ Name: text(volume.driverConfig.name), Options: dictionary(volume.driverConfig.options) }),
        Subpath: text(volume.subpath),
      }),
    TmpfsOptions:
      tmpfs &&
      compact({
        SizeBytes: fromInt64(tmpfs.sizeBytes),
        Mode: fromInt32(tmpfs.mode),
        Options: tmpfs.options === "" ? undefined : tmpfs.options.split(",").map(tmpfsOption),
      }),
  });
}

/** "noexec" -> ["noexec"], "uid=1" -> ["uid", "1"]. */
function tmpfsOption(option: string): string[] {
  const at = option.indexOf("=");
  return at < 0 ? [option] : [option.slice(0, at), option.slice(at + 1)];
}

function fileToWire(file: FileOfSpec): Init<typeof FileTargetSchema> {
  return { name: file.Name ?? "", uid: file.UID ?? "", gid: file.GID ?? "", mode: file.Mode ?? 0 };
}

function fileFromWire(file: FileTarget): FileOfSpec {
  // The mode is always said: 0 is a mode (no access), not an absent one.
  return compact({ Name: text(file.name), UID: text(file.uid), GID: text(file.gid), Mode: file.mode });
}

function secretToWire(secret: SecretOfSpec): Init<typeof SecretReferenceSchema> {
  return {
    secretId: secret.SecretID ?? "",
    secretName: secret.SecretName ?? "",
    target: secret.File ? { case: "file", value: fileToWire(secret.File) } : { case: undefined },
  };
}

function secretFromWire(secret: SecretReference): SecretOfSpec {
  return compact({
    File: secret.target.case === "file" ? fileFromWire(secret.target.value) : undefined,
    SecretID: text(secret.secretId),
    SecretName: text(secret.secretName),
  });
}

function configToWire(config: ConfigOfSpec): Init<typeof ConfigReferenceSchema> {
  return {
    configId: config.ConfigID ?? "",
    configName: config.ConfigName ?? "",
    target: config.File
      ? { case: "file", value: fileToWire(config.File) }
      : config.Runtime
        ? { case: "runtime", value: {} }
        : { case: undefined },
  };
}

function configFromWire(config: ConfigReference): ConfigOfSpec {
  return compact({
    File: config.target.case === "file" ? fileFromWire(config.target.value) : undefined,
    Runtime: config.target.case === "runtime" ? {} : undefined,
    ConfigID: text(config.configId),
    ConfigName: text(config.configName),
  });
}

function healthToWire(health: HealthConfig): Init<typeof HealthConfigSchema> {
  return {
    test: health.Test ?? [],
    interval: durationToWire(health.Interval),
    timeout: durationToWire(health.Timeout),
    retries: health.Retries ?? 0,
    startPeriod: durationToWire(health.StartPeriod),
    startInterval: durationToWire(health.StartInterval),
  };
}

function healthFromWire(health: WireHealthConfig): HealthConfig {
  return compact({
    Test: list(health.test),
    Interval: durationFromWire(health.interval),
    Timeout: durationFromWire(health.timeout),
    Retries: fromInt32(health.retries),
    StartPeriod: durationFromWire(health.startPeriod),
    StartInterval: durationFromWire(health.startInterval),
  });
}
