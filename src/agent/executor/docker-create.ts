/**
 * A task as the body of the Engine's "create container". Pure: the same task gives the same body. What the Engine
 * checks by itself (whether a bind's source exists, a user, a sysctl) is left to it, so that its text is the task's
 * error; what stock Swarm checks before is checked here, with Swarm's text.
 *
 * Names that lead to a task's service are not given to the Engine as aliases: it would answer them by itself, with the
 * tasks of this node only. It gets the data plane's name server instead, and asks that for all it does not know.
 *
 * As with stock Swarm, reservations are for the scheduler alone and set nothing on the container. Differs from it in
 * `Hosts`: a line with several names ("IP a b") gives all of them, where stock keeps the first.
 */

import type { EndpointSettings } from "@docker/node-sdk";
import type { ContainerCreateBody } from "../../engine/engine.ts";
import { ShoalError } from "../../lib/errors.ts";
import { namesToOptions } from "../../model/driver-options.ts";
import type { AssignedTask, ContainerSpec, GenericResource, Mount } from "../../model/types.ts";
import type { ContainerNetwork } from "../../network/plane.ts";
import { containerLabels } from "./docker-labels.ts";
import type { TaskNetworks } from "./docker-networks.ts";

type HostConfig = NonNullable<ContainerCreateBody["HostConfig"]>;

/**
 * @param task with its templates expanded
 * @param networks the task's, of which the body names the first; none is the Engine's default
 * @param files what its secrets and configs are mounted from; undefined where this node has none for tasks
 * @throws InvalidArgument (the task is rejected with its text) for what can't be made into a container
 */
export function createBody(
  task: AssignedTask,
  { networks: [first], nameserver }: TaskNetworks = { networks: [] },
  files?: readonly Mount[],
): ContainerCreateBody {
  const spec = task.Spec.ContainerSpec;
  if (!spec?.Image) throw invalid("no container image in the task's spec");
  if (!files && (spec.Secrets?.length || spec.Configs?.length)) {
    throw invalid("this node has no place for secrets and configs");
  }
  const mounts = [...(spec.Mounts ?? []).map(mount), ...(files ?? [])];
  const ports = hostPorts(task);
  return defined<ContainerCreateBody>({
    Image: spec.Image,
    Entrypoint: spec.Command,
    Cmd: spec.Args,
    Env: [...(spec.Env ?? []), ...resourceEnv(task.AssignedGenericResources ?? [])],
    WorkingDir: spec.Dir,
    User: spec.User,
    Hostname: spec.Hostname,
    Labels: containerLabels(task),
    Tty: spec.TTY,
    OpenStdin: spec.OpenStdin,
    StopSignal: spec.StopSignal || undefined,
    Healthcheck: spec.Healthcheck,
    ExposedPorts: ports && Object.fromEntries(Object.keys(ports).map((port) => [port, {}])),
    NetworkingConfig: first && nameserver !== undefined ? { EndpointsConfig: firstEndpoint(task, first) } : undefined,
    HostConfig: defined<HostConfig>({
      ...limits(task, spec),
      NetworkMode: first?.engineNetwork,
      PortBindings: ports,
      Mounts: mounts.length > 0 ? mounts : undefined,
      GroupAdd: spec.Groups,
      ReadonlyRootfs: spec.ReadOnly,
      Init: spec.Init ?? undefined,
      Dns: nameserver === undefined ? spec.DNSConfig?.Nameservers : [nameserver],
      DnsSearch: spec.DNSConfig?.Search,
      DnsOptions: spec.DNSConfig?.Options,
      ExtraHosts: spec.Hosts?.flatMap(extraHosts),
      Sysctls: spec.Sysctls,
      CapAdd: spec.CapabilityAdd,
      CapDrop: spec.CapabilityDrop,
      OomScoreAdj: spec.OomScoreAdj,
      Isolation: spec.Isolation,
      SecurityOpt: securityOptions(spec.Privileges),
      LogConfig: logConfig(task),
    }),
  });
}

/** `DOCKER_RESOURCE_GPU=uuid1,uuid2`, `DOCKER_RESOURCE_SSD=3`. */
function resourceEnv(resources: readonly GenericResource[]): string[] {
  const values = new Map<string, string[]>();
  for (const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } of resources) {
    const kind = named?.Kind ?? discrete?.Kind;
    const value = named?.Value ?? discrete?.Value;
    if (kind === undefined || value === undefined) continue;
    const name = `DOCKER_RESOURCE_${kind.toUpperCase()}`;
    values.set(name, [...(values.get(name) ?? []), String(value)]);
  }
  return [...values].map(([name, list]) => `${name}=${list.join(",")}`);
}

function limits(task: AssignedTask, spec: ContainerSpec): HostConfig {
  const resources = task.Spec.Resources;
  const { NanoCPUs, MemoryBytes, Pids } = resources?.Limits ?? {};
  const swap = resources?.SwapBytes;
  return {
    NanoCpus: NanoCPUs || undefined,
    Memory: MemoryBytes || undefined,
    PidsLimit: Pids || undefined,
    // The spec says how much swap, the Engine wants memory and swap together; -1 is unlimited for both.
    MemorySwap: swap === undefined ? undefined : swap === -1 ? -1 : (MemoryBytes ?? 0) + swap,
    MemorySwappiness: resources?.MemorySwappiness,
    Ulimits: spec.Ulimits,
  };
}

/** Host-mode ports in the Engine's form; a port 0 lets the Engine choose. */
function hostPorts(task: AssignedTask): NonNullable<HostConfig["PortBindings"]> | undefined {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of task.Endpoint?.Ports ?? []) {
    if (port.PublishMode !== "host") continue;
    const key = `${port.TargetPort}/${port.Protocol ?? "tcp"}`;
    const HostPort = port.PublishedPort ? String(port.PublishedPort) : "";
    (bindings[key] ??= []).push({ HostIp: "", HostPort });
  }
  return Object.keys(bindings).length > 0 ? bindings : undefined;
}

/** With the create only one can be given. It also tells the task's name server what the task wants of names. */
function firstEndpoint(task: AssignedTask, first: ContainerNetwork): Record<string, EndpointSettings> {
  const { Nameservers, Search } = task.Spec.ContainerSpec?.DNSConfig ?? {};
  const names = namesToOptions({ nameservers: Nameservers, search: Search });
  return { [first.engineNetwork]: { DriverOpts: { ...first.driverOptions, ...names } } };
}

function mount(spec: Mount): Mount {
  const { Target: target = "", Source: source } = spec;
  if (!target.startsWith("/")) throw invalid(`invalid mount target, must be an absolute path: ${target}`);
  switch (spec.Type) {
    case "bind":
      if (!source?.startsWith("/"))
        throw invalid(`invalid bind mount source, must be an absolute path: ${source ?? ""}`);
      break;
    case "volume":
      if (source?.startsWith("/"))
        throw invalid(`invalid volume mount source, must not be an absolute path: ${source}`);
      break;
    case "tmpfs":
      if (source) throw invalid("invalid tmpfs source, source must be empty");
      break;
    case "cluster":
      throw invalid("this node can't mount cluster volumes");
    default: // the Engine knows which others it can mount
  }
  return defined<Mount>({ ...spec, Target: target, Source: source || undefined });
}

/** "IP name ..." (as in /etc/hosts) as "name:IP" for each name. */
function extraHosts(line: string): string[] {
  const [address, ...names] = line.trim().split(/\s+/);
  return names.map((name) => `${name}:${address}`);
}

function securityOptions(privileges: ContainerSpec["Privileges"]): string[] | undefined {
  if (!privileges) return undefined;
  const { SELinuxContext: selinux, Seccomp: seccomp, AppArmor: apparmor, NoNewPrivileges } = privileges;
  const options: string[] = [];
  if (NoNewPrivileges) options.push("no-new-privileges=true");
  if (selinux?.Disable) options.push("label=disable");
  if (selinux?.User) options.push(`label=user:${selinux.User}`);
  if (selinux?.Role) options.push(`label=role:${selinux.Role}`);
  if (selinux?.Type) options.push(`label=type:${selinux.Type}`);
  if (selinux?.Level) options.push(`label=level:${selinux.Level}`);
  if (seccomp?.Mode === "unconfined") options.push("seccomp=unconfined");
  // The profile travels as base64, the Engine wants its JSON.
  if (seccomp?.Mode === "custom") options.push(`seccomp=${Buffer.from(seccomp.Profile ?? "", "base64").toString()}`);
  if (apparmor?.Mode === "disabled") options.push("apparmor=unconfined");
  return options.length > 0 ? options : undefined;
}

function logConfig(task: AssignedTask): HostConfig["LogConfig"] {
  const driver = task.Spec.LogDriver ?? task.LogDriver;
  // The generated type knows Docker's own drivers only; a plugin's name is as good.
  return driver && ({ Type: driver.Name, Config: driver.Options ?? {} } as HostConfig["LogConfig"]);
}

function invalid(message: string): ShoalError {
  return new ShoalError("InvalidArgument", message);
}

/** Without the members that are undefined: the Engine must see its own defaults, and tests see what is set. */
function defined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined)) as T;
}
