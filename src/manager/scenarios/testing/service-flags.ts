/** Flags of `docker service create` and `update`, as far as scenarios use them, as changes of a service's spec. */
import assert from "node:assert/strict";
import type { ServiceSpec, TaskSpec } from "../../../model/types.ts";

type Change = (spec: ServiceSpec, value: string) => ServiceSpec;
type UpdateConfig = NonNullable<ServiceSpec["UpdateConfig"]>;

const gibibyte = 2 ** 30;
const units: Readonly<Record<string, number>> = { ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

/** `1m30s`, `500ms`: in nanoseconds. */
export function duration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  assert.equal(parts.map(([part]) => part).join(""), text, `no duration: ${text}`);
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit ?? ""]!, 0);
}

/** `512MiB`, `2GiB`: in bytes. */
export function bytes(text: string): number {
  const [, count, unit] = /^(\d+)(MiB|GiB)$/.exec(text) ?? [];
  assert.ok(count, `no size: ${text}`);
  return Number(count) * (unit === "GiB" ? gibibyte : gibibyte / 1024);
}

/** Words of a command line; quotes keep spaces together. */
export function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

const template =
  (change: (task: TaskSpec, value: string) => TaskSpec): Change =>
  (spec, value) => ({ ...spec, TaskTemplate: change(spec.TaskTemplate ?? {}, value) });

const container = (member: string, read: (value: string) => unknown): Change =>
  template((task, value) => ({ ...task, ContainerSpec: { ...task.ContainerSpec, [member]: read(value) } }));

const restart = (member: string, read: (value: string) => unknown): Change =>
  template((task, value) => ({ ...task, RestartPolicy: { ...task.RestartPolicy, [member]: read(value) } }));

const placement = (change: (value: string, task: TaskSpec) => TaskSpec["Placement"]): Change =>
  template((task, value) => ({ ...task, Placement: { ...task.Placement, ...change(value, task) } }));

const reservation = (member: string, read: (value: string) => unknown): Change =>
  template((task, value) => ({
    ...task,
    Resources: {
      ...task.Resources,
      Reservations: { ...task.Resources?.Reservations, [member]: read(value) },
    },
  }));

/** The CLI sends its defaults for the flags that are not given, once one is. */
const updateConfig = (
  which: "UpdateConfig" | "RollbackConfig",
  member: keyof UpdateConfig,
  read: (value: string) => unknown,
): Change => {
  return (spec, value) => ({ ...spec, [which]: { Parallelism: 1, ...spec[which], [member]: read(value) } });
};

function updateFlags(prefix: string, which: "UpdateConfig" | "RollbackConfig"): [string, Change][] {
  return [
    [`--${prefix}-parallelism`, updateConfig(which, "Parallelism", Number)],
    [`--${prefix}-delay`, updateConfig(which, "Delay", duration)],
    [`--${prefix}-monitor`, updateConfig(which, "Monitor", duration)],
    [`--${prefix}-failure-action`, updateConfig(which, "FailureAction", String)],
    [`--${prefix}-max-failure-ratio`, updateConfig(which, "MaxFailureRatio", Number)],
    [`--${prefix}-order`, updateConfig(which, "Order", String)],
  ];
}

function pair(text: string): [string, string] {
  const [name = "", ...rest] = text.split("=");
  return [name, rest.join("=")];
}

const modes: Readonly<Record<string, ServiceSpec["Mode"]>> = {
  global: { Global: {} },
  "replicated-job": { ReplicatedJob: {} },
  "global-job": { GlobalJob: {} },
};

/** What a job does not say of its tasks at a time is, as the CLI has it, all of them. */
export function resized(spec: ServiceSpec, count: number): ServiceSpec {
  const job = spec.Mode?.ReplicatedJob;
  if (!job) return { ...spec, Mode: { Replicated: { Replicas: count } } };
  return { ...spec, Mode: { ReplicatedJob: { MaxConcurrent: count, ...job, TotalCompletions: count } } };
}

const flags = new Map<string, Change>([
  ["--image", container("Image", String)],
  ["--env", container("Env", (value) => [value])],
  ["--stop-grace-period", container("StopGracePeriod", duration)],
  ["--label", (spec, value) => ({ ...spec, Labels: { ...spec.Labels, ...Object.fromEntries([pair(value)]) } })],
  ["--replicas", (spec, value) => resized(spec, Number(value))],
  [
    "--max-concurrent",
    (spec, value) => ({
      ...spec,
      Mode: { ReplicatedJob: { ...spec.Mode?.ReplicatedJob, MaxConcurrent: Number(value) } },
    }),
  ],
  ["--mode", (spec, value) => ({ ...spec, Mode: modes[value] ?? assert.fail(`no mode to ask for: ${value}`) })],
  ["--restart-condition", restart("Condition", String)],
  ["--restart-delay", restart("Delay", duration)],
  ["--restart-max-attempts", restart("MaxAttempts", Number)],
  ["--restart-window", restart("Window", duration)],
  ["--constraint", placement((value, { Placement }) => ({ Constraints: [...(Placement?.Constraints ?? []), value] }))],
  [
    "--constraint-rm",
    placement((value, { Placement }) => ({
      Constraints: Placement?.Constraints?.filter((one) => one !== value) ?? [],
    })),
  ],
  [
    "--placement-pref",
    placement((value, { Placement }) => ({
      Preferences: [...(Placement?.Preferences ?? []), { Spread: { SpreadDescriptor: value.replace("spread=", "") } }],
    })),
  ],
  ["--replicas-max-per-node", placement((value) => ({ MaxReplicas: Number(value) }))],
  [
    "--platform",
    placement((value) => ({ Platforms: [{ OS: value.split("/")[0]!, Architecture: value.split("/")[1]! }] })),
  ],
  ["--reserve-cpu", reservation("NanoCPUs", (value) => Number(value) * 1e9)],
  ["--reserve-memory", reservation("MemoryBytes", bytes)],
  [
    "--generic-resource",
    reservation("GenericResources", (value) => {
      const [Kind, count] = pair(value);
      return [{ DiscreteResourceSpec: { Kind, Value: Number(count) } }];
    }),
  ],
  [
    "--publish",
    (spec, value) => {
      const port = Object.fromEntries(value.split(",").map(pair));
      const one = {
        Protocol: "tcp" as const,
        TargetPort: Number(port.target),
        PublishedPort: Number(port.published),
        PublishMode: port.mode === "host" ? ("host" as const) : ("ingress" as const),
      };
      return { ...spec, EndpointSpec: { ...spec.EndpointSpec, Ports: [...(spec.EndpointSpec?.Ports ?? []), one] } };
    },
  ],
  ["--log-driver", template((task, Name) => ({ ...task, LogDriver: { Name } }))],
  ["--force", template((task) => ({ ...task, ForceUpdate: (task.ForceUpdate ?? 0) + 1 }))],
  ...updateFlags("update", "UpdateConfig"),
  ...updateFlags("rollback", "RollbackConfig"),
]);

/** Flags without a value. */
const switches = new Set(["--force"]);

/** Flags and their values, each flag as often as it is given. */
export function readFlags(line: readonly string[]): { readonly flag: string; readonly value: string }[] {
  const read: { flag: string; value: string }[] = [];
  for (let index = 0; index < line.length; index++) {
    const flag = line[index]!;
    assert.match(flag, /^--/, `a flag, not ${flag}`);
    read.push({ flag, value: switches.has(flag) ? "" : (line[++index] ?? assert.fail(`${flag} has no value`)) });
  }
  return read;
}

/** The spec with what the flags ask for. */
export function applyFlags(spec: ServiceSpec, line: readonly string[]): ServiceSpec {
  let changed = spec;
  for (const { flag, value } of readFlags(line)) {
    changed = (flags.get(flag) ?? assert.fail(`unknown flag ${flag}`))(changed, value);
  }
  return changed;
}
