/**
 * What the managers refuse in a service's spec, in Swarm's order and with its texts (gRPC's prefix is added where the
 * failure becomes an answer). Pure: what needs the store (names, ports, networks) or the scheduler's grammar
 * (constraints) is asked by the API.
 *
 * Stricter than Swarm, which takes these and then cannot run them: a port has to be one, a rollback is judged as an
 * update is, and there are bounds (`validate-extent.ts`).
 */
import { ShoalError } from "../lib/errors.ts";
import { expandForChecks } from "./expand-container.ts";
import type { ContainerSpec, HealthConfig, Mount, ResourceObject, ServiceSpec, TaskSpec } from "./types.ts";
import { validateExtent } from "./validate-extent.ts";
import { isImageReference } from "./validate-image.ts";
import { validateName } from "./validate-name.ts";
import { validateReferences } from "./validate-references.ts";

const leastNanoCpus = 1e6;
const leastMemoryBytes = 4 * 1024 * 1024;
const nanosecondsPerMillisecond = 1e6;
const highestPort = 65_535;

/**
 * Checks a decoded spec.
 * @throws ShoalError InvalidArgument with Swarm's text for the first fault
 */
export function validateServiceSpec(spec: ServiceSpec): void {
  validateName(spec.Name ?? "");
  validateExtent(spec);
  validateTaskSpec(spec);
  if (isJob(spec)) {
    if (spec.UpdateConfig) refuse("Jobs may not have an update config");
  } else validateUpdateConfig("update", spec.UpdateConfig);
  validateUpdateConfig("rollback", spec.RollbackConfig);
  validateEndpoint(spec.EndpointSpec);
}

/** A service that runs to its end, in either of the job modes. */
export function isJob(spec: ServiceSpec): boolean {
  return spec.Mode?.ReplicatedJob !== undefined || spec.Mode?.GlobalJob !== undefined;
}

function refuse(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}

function validateTaskSpec(spec: ServiceSpec): void {
  const task: TaskSpec = spec.TaskTemplate ?? {};
  validateResources(task.Resources?.Limits);
  validateResources(task.Resources?.Reservations);
  const { Delay: delay = 0, Window: window = 0 } = task.RestartPolicy ?? {};
  if (delay < 0) refuse("TaskSpec: restart-delay cannot be negative");
  if (window < 0) refuse("TaskSpec: restart-window cannot be negative");
  if (!task.ContainerSpec) return;
  validateReferences(task.ContainerSpec);
  validateContainer(expandForChecks(task.ContainerSpec, spec));
}

function validateResources(resources: ResourceObject | undefined): void {
  const { NanoCPUs: nanoCpus = 0, MemoryBytes: memoryBytes = 0 } = resources ?? {};
  if (nanoCpus !== 0 && nanoCpus < leastNanoCpus) {
    refuse(`invalid cpu value ${shortest(nanoCpus / 1e9)}: Must be at least ${shortest(leastNanoCpus / 1e9)}`);
  }
  if (memoryBytes !== 0 && memoryBytes < leastMemoryBytes) {
    refuse(`invalid memory value ${memoryBytes}: Must be at least 4MiB`);
  }
}

/** A number as Go's %g writes it: like JavaScript, but with a two-digit exponent, and one already from 1e-05 down. */
function shortest(value: number): string {
  const exponent = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)));
  if (exponent >= -4 && exponent < 21) return String(value);
  return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

function validateContainer(container: ContainerSpec): void {
  const image = container.Image ?? "";
  if (image === "") refuse("ContainerSpec: image reference must be provided");
  if (!isImageReference(image)) refuse(`ContainerSpec: ${JSON.stringify(image)} is not a valid repository/tag`);
  validateMounts(container.Mounts ?? []);
  validateHealthcheck(container.Healthcheck);
}

function validateMounts(mounts: readonly Mount[]): void {
  const targets = new Set<string>();
  for (const { Target: target = "" } of mounts) {
    if (targets.has(target)) refuse(`ContainerSpec: duplicate mount point: ${target}`);
    targets.add(target);
  }
}

function validateHealthcheck(health: HealthConfig | undefined): void {
  if (!health) return;
  for (const name of ["Interval", "Timeout", "StartPeriod", "StartInterval"] as const) {
    const duration = health[name] ?? 0;
    if (duration !== 0 && duration < nanosecondsPerMillisecond) {
      refuse(`ContainerSpec: ${name} in HealthConfig cannot be less than 1ms`);
    }
  }
  if ((health.Retries ?? 0) < 0) refuse("ContainerSpec: Retries in HealthConfig cannot be negative");
}

function validateUpdateConfig(what: "update" | "rollback", config: ServiceSpec["UpdateConfig"]): void {
  const { Delay: delay = 0, Monitor: monitor = 0, MaxFailureRatio: ratio = 0 } = config ?? {};
  if (delay < 0) refuse(`TaskSpec: ${what}-delay cannot be negative`);
  if (monitor < 0) refuse(`TaskSpec: ${what}-monitor cannot be negative`);
  if (ratio < 0 || ratio > 1) {
    refuse(`TaskSpec: ${what}-maxfailureratio cannot be less than 0 or bigger than 1`);
  }
}

function validateEndpoint(endpoint: ServiceSpec["EndpointSpec"]): void {
  const published = new Set<string>();
  for (const port of endpoint?.Ports ?? []) {
    if (endpoint?.Mode === "dnsrr" && (port.PublishMode ?? "ingress") === "ingress") {
      refuse("EndpointSpec: port published with ingress mode can't be used with dnsrr mode");
    }
    validatePort("target", port.TargetPort ?? 0);
    if (!port.PublishedPort) continue;
    validatePort("published", port.PublishedPort);
    const key = `${port.PublishedPort}/${port.Protocol ?? "tcp"}`;
    if (published.has(key)) refuse("EndpointSpec: duplicate published ports provided");
    published.add(key);
  }
}

function validatePort(which: "target" | "published", port: number): void {
  if (port >= 1 && port <= highestPort) return;
  refuse(`EndpointSpec: ${which} port ${port} is none: a port is a number from 1 to ${highestPort}`);
}
