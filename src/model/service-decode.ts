/**
 * From the body of a request to the spec that is stored. What the client sent stays as it sent it, member for member;
 * only what would otherwise have two readings is settled here, once, so that nothing behind the API has to know:
 *
 * - a missing mode is `{"Replicated": {"Replicas": 1}}` (clients follow that pointer without looking);
 * - what a replicated job does not say is one task at a time, and as many completions as tasks at a time, as in Swarm;
 * - networks at the old place (`Networks` of the spec) move into the task template;
 * - the words of enumerations are lower case, and a mount without a type is a bind, as in Swarm;
 * - a port's missing or unknown protocol is tcp, its publish mode ingress, as in Swarm.
 *
 * Refusals here are in the Engine's own words (without gRPC's prefix); those of `validate-service.ts` are the
 * manager's.
 */
import { ShoalError } from "../lib/errors.ts";
import { serviceSpecShape } from "./service-shape.ts";
import { type ApiVersion, dropYoungerMembers } from "./service-version.ts";
import type { ContainerSpec, EndpointSpec, Mount, ServiceSpec, ServiceSpecMode, TaskSpec } from "./types.ts";
import { conform } from "./validate-shape.ts";

/**
 * The spec in `body`, a parsed JSON document, which it may change and keep.
 * @throws ShoalError InvalidArgument in the Engine's words
 */
export function decodeServiceSpec(body: unknown, version: ApiVersion): ServiceSpec {
  const spec = (conform(body, serviceSpecShape) ?? {}) as ServiceSpec;
  dropYoungerMembers(spec, version);
  moveNetworks(spec);
  settleRuntime(spec.TaskTemplate ?? {});
  checkTask(spec.TaskTemplate ?? {});
  checkUpdateConfig(spec.UpdateConfig);
  checkUpdateConfig(spec.RollbackConfig);
  if (spec.EndpointSpec) settleEndpoint(spec.EndpointSpec);
  spec.Mode = settledMode(spec.Mode ?? {});
  return spec;
}

function refuse(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}

function moveNetworks(spec: ServiceSpec): void {
  const { Networks: old } = spec;
  if (old === undefined) return;
  delete spec.Networks;
  spec.TaskTemplate ??= {};
  if (!spec.TaskTemplate.Networks?.length && old.length > 0) spec.TaskTemplate.Networks = old;
}

function settleRuntime(task: TaskSpec): void {
  switch (task.Runtime ?? "") {
    case "":
    case "container":
      if (!task.ContainerSpec) refuse("mismatched Runtime and *Spec fields");
      // Of another runtime, so without a meaning here.
      delete task.PluginSpec;
      delete task.NetworkAttachmentSpec;
      return;
    case "plugin":
      if (!task.PluginSpec) refuse("mismatched Runtime and *Spec fields");
      return;
    default:
      refuse("unsupported runtime");
  }
}

const restartConditions = ["", "none", "on-failure", "any"];

function checkTask(task: TaskSpec): void {
  const { ContainerSpec: container, Resources: resources, RestartPolicy: restart } = task;
  if (resources?.SwapBytes !== undefined && !resources.Limits?.MemoryBytes) {
    refuse("memory swap provided, but no memory-limit was set");
  }
  if (container) {
    checkCredentialSpec(container);
    checkConfigTargets(container);
    settleWords(container);
    for (const mount of container.Mounts ?? []) settleMount(mount);
  }
  const condition = restart?.Condition ?? "";
  if (!restartConditions.includes(condition)) refuse(`invalid RestartCondition: ${JSON.stringify(condition)}`);
}

function checkCredentialSpec(container: ContainerSpec): void {
  const credentials = container.Privileges?.CredentialSpec;
  if (!credentials) return;
  const given: string[] = [];
  if (credentials.Config) given.push('"config"');
  if (credentials.File) given.push('"file"');
  if (credentials.Registry) given.push('"registry"');
  if (given.length === 1) return;
  const why =
    given.length === 0
      ? 'must either provide "file", "registry", or "config" for credential spec'
      : `cannot specify both ${given.slice(0, -1).join(", ")}${given.length > 2 ? "," : ""} and ${given.at(-1)} credential specs`;
  refuse(`invalid CredentialSpec: ${why}`);
}

function checkConfigTargets(container: ContainerSpec): void {
  for (const config of container.Configs ?? []) {
    if (!config.Runtime && !config.File) refuse("invalid Config: either File or Runtime should be set");
    if (config.Runtime && config.File) refuse("invalid Config: cannot specify both File and Runtime");
  }
}

const isolations = ["default", "process", "hyperv"];
const seccompModes = ["", "default", "unconfined", "custom"];
const appArmorModes = ["", "default", "disabled"];

/** Swarm takes any other word for the default; here it would be stored, and mean nothing. */
function settleWords(container: ContainerSpec): void {
  const { Isolation: isolation, Privileges: privileges } = container;
  if (isolation) {
    const lower = isolation.toLowerCase();
    if (!isolations.includes(lower)) refuse(`invalid Isolation: ${JSON.stringify(isolation)}`);
    if (lower !== isolation) container.Isolation = lower as typeof isolation;
  }
  const seccomp: string = privileges?.Seccomp?.Mode ?? "";
  if (!seccompModes.includes(seccomp)) refuse(`invalid Seccomp mode: ${JSON.stringify(seccomp)}`);
  const appArmor: string = privileges?.AppArmor?.Mode ?? "";
  if (!appArmorModes.includes(appArmor)) refuse(`invalid AppArmor mode: ${JSON.stringify(appArmor)}`);
}

const mountTypes = ["bind", "volume", "tmpfs", "npipe", "cluster"];
const consistencies = ["default", "consistent", "cached", "delegated"];
const propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

function settleMount(mount: Mount): void {
  const type = (mount.Type ?? "").toLowerCase() || "bind";
  if (!mountTypes.includes(type)) refuse(`invalid MountType: ${JSON.stringify(mount.Type)}`);
  if (mount.Type !== type) mount.Type = type as Mount["Type"];
  const consistency: string = mount.Consistency ?? "";
  if (consistency && !consistencies.includes(consistency)) {
    refuse(`invalid mount Consistency: ${JSON.stringify(consistency)}`);
  }
  const propagation = mount.BindOptions?.Propagation;
  if (!propagation) return;
  const lower = propagation.toLowerCase();
  if (!propagations.includes(lower)) refuse(`invalid MountPropagation: ${JSON.stringify(propagation)}`);
  if (lower !== propagation) mount.BindOptions!.Propagation = lower as typeof propagation;
}

const failureActions = ["", "pause", "continue", "rollback"];
const updateOrders = ["", "stop-first", "start-first"];

function checkUpdateConfig(config: ServiceSpec["UpdateConfig"]): void {
  const action: string = config?.FailureAction ?? "";
  if (!failureActions.includes(action)) refuse(`unrecognized update failure action ${action}`);
  const order: string = config?.Order ?? "";
  if (!updateOrders.includes(order)) refuse(`unrecognized update order ${order}`);
}

const resolutionModes = ["", "vip", "dnsrr"];
const protocols = ["tcp", "udp", "sctp"];
const publishModes = ["ingress", "host"];

function settleEndpoint(endpoint: EndpointSpec): void {
  const mode: string = endpoint.Mode ?? "";
  if (!resolutionModes.includes(mode)) refuse(`invalid resolution mode: ${JSON.stringify(mode)}`);
  for (const port of endpoint.Ports ?? []) {
    // Also where they are missing: the CLI lists no port without them.
    port.Protocol = settled(port.Protocol ?? "", protocols) as NonNullable<typeof port.Protocol>;
    port.PublishMode = settled(port.PublishMode ?? "", publishModes) as NonNullable<typeof port.PublishMode>;
  }
}

/** The word in lower case; the first of `words` where it is none of them. */
function settled(word: string, words: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  return words.includes(lower) ? lower : words[0];
}

function settledMode(mode: ServiceSpecMode): ServiceSpecMode {
  const { Replicated: replicated, Global, ReplicatedJob, GlobalJob } = mode;
  const given = [replicated, Global, ReplicatedJob, GlobalJob].filter((one) => one !== undefined).length;
  if (given > 1) refuse("must specify only one service mode");
  if (given === 0 || (replicated && replicated.Replicas === undefined)) return { Replicated: { Replicas: 1 } };
  if (ReplicatedJob) {
    const { MaxConcurrent = 1, TotalCompletions = MaxConcurrent } = ReplicatedJob;
    return { ReplicatedJob: { MaxConcurrent, TotalCompletions } };
  }
  return mode;
}
