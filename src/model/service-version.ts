/**
 * Members that are younger than the API version of a request: an older client cannot have meant them, so they are
 * dropped, as the Engine does. Changes the spec that it is given, which must be a freshly decoded one.
 */
import type { ContainerSpec, ServiceSpec, TaskSpec } from "./types.ts";

/** Major and minor, of the request's path. */
export type ApiVersion = readonly [number, number];

export function isBefore(version: ApiVersion, minor: number): boolean {
  return version[0] < 1 || (version[0] === 1 && version[1] < minor);
}

/** Drops from `spec` what requests of `version` do not have. */
export function dropYoungerMembers(spec: ServiceSpec, version: ApiVersion): void {
  if (!isBefore(version, 52)) return;
  const task: TaskSpec = spec.TaskTemplate ?? {};
  const container: ContainerSpec = task.ContainerSpec ?? {};
  if (task.Resources) {
    delete task.Resources.SwapBytes;
    delete task.Resources.MemorySwappiness;
  }
  if (isBefore(version, 46)) {
    delete container.OomScoreAdj;
    for (const mount of container.Mounts ?? []) if (mount.TmpfsOptions) delete mount.TmpfsOptions.Options;
  }
  if (isBefore(version, 44)) {
    delete container.Healthcheck?.StartInterval;
    if (container.Privileges) {
      delete container.Privileges.Seccomp;
      delete container.Privileges.AppArmor;
      delete container.Privileges.NoNewPrivileges;
    }
  }
  if (isBefore(version, 41)) {
    delete container.CapabilityAdd;
    delete container.CapabilityDrop;
    delete container.Ulimits;
    delete task.Resources?.Limits?.Pids;
    delete spec.Mode?.ReplicatedJob;
    delete spec.Mode?.GlobalJob;
  }
  if (isBefore(version, 40)) {
    delete container.Sysctls;
    delete task.Placement?.MaxReplicas;
    delete container.Privileges?.CredentialSpec?.Config;
    for (const config of container.Configs ?? []) delete config.Runtime;
  }
}
