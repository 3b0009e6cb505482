/**
 * Tasks, wire <-> model: the AssignedTask that a manager sends and an agent carries out, and the status that comes
 * back. Differences of place: `Resources.Limits.Pids` and `RegistryAuth` travel inside the container's spec. A task of
 * another runtime (plugin, attachment) keeps its kind but not its payload: its agent refuses it by the missing spec.
 */

import { taskStates } from "../model/state.ts";
import type {
  AssignedTask,
  AttachedNetwork,
  Placement,
  Resources,
  RestartPolicy,
  TaskSpec,
  TaskStatus,
} from "../model/types.ts";
import {
  coding,
  compact,
  driverFromWire,
  driverToWire,
  durationFromWire,
  durationToWire,
  fromInt64,
  genericResourceFromWire,
  genericResourceToWire,
  type Init,
  list,
  mapped,
  metaFromWire,
  metaToWire,
  resourcesFromWire,
  resourcesToWire,
  text,
  timestampFromWire,
  timestampToWire,
  toInt64,
  versionFromWire,
  versionToWire,
  zeroTime,
} from "./convert-basics.ts";
import { containerFromWire, containerToWire } from "./convert-container.ts";
import {
  attachedNetworkFromWire,
  attachedNetworkToWire,
  attachmentConfigFromWire,
  attachmentConfigToWire,
  endpointFromWire,
  endpointToWire,
  portFromWire,
  portToWire,
} from "./convert-network.ts";
import type { ResourceRequirements, ResourceRequirementsSchema } from "./gen/common_pb.js";
import {
  type PlacementSchema,
  RestartPolicy_RestartCondition,
  type RestartPolicySchema,
  type TaskSchema,
  type TaskSpecSchema,
  type TaskStatusSchema,
  type Placement as WirePlacement,
  type RestartPolicy as WireRestartPolicy,
  type Task as WireTask,
  type TaskSpec as WireTaskSpec,
  type TaskStatus as WireTaskStatus,
} from "./gen/task_pb.js";

const states = coding("task state", taskStates);
const conditions = coding("restart condition", {
  none: RestartPolicy_RestartCondition.NONE,
  "on-failure": RestartPolicy_RestartCondition.ON_FAILURE,
  any: RestartPolicy_RestartCondition.ANY,
});

export function taskToWire(task: AssignedTask): Init<typeof TaskSchema> {
  return {
    id: task.ID,
    meta: metaToWire(task),
    spec: taskSpecToWire(task.Spec, task.RegistryAuth),
    serviceId: task.ServiceID,
    slot: toInt64(task.Slot),
    nodeId: task.NodeID,
    annotations: {},
    serviceAnnotations: { name: task.ServiceAnnotations.Name, labels: { ...task.ServiceAnnotations.Labels } },
    status: taskStatusToWire(task.Status),
    desiredState: states.encode(task.DesiredState),
    networks: task.Networks.map(attachedNetworkToWire),
    endpoint: task.Endpoint && endpointToWire(task.Endpoint),
    logDriver: driverToWire(task.LogDriver),
    specVersion: versionToWire(task.SpecVersion),
    assignedGenericResources: (task.AssignedGenericResources ?? []).map(genericResourceToWire),
    jobIteration: task.JobIteration && versionToWire(task.JobIteration),
  };
}

export function taskFromWire(task: WireTask): AssignedTask {
  const runtime = task.spec?.runtime;
  return compact<AssignedTask>({
    ID: task.id,
    ...metaFromWire(task.meta),
    ServiceID: task.serviceId,
    Slot: Number(task.slot),
    NodeID: task.nodeId,
    SpecVersion: versionFromWire(task.specVersion),
    Spec: task.spec ? taskSpecFromWire(task.spec) : {},
    ServiceAnnotations: {
      Name: task.serviceAnnotations?.name ?? "",
      Labels: { ...task.serviceAnnotations?.labels },
    },
    Status: task.status ? taskStatusFromWire(task.status) : { Timestamp: zeroTime, State: "new" },
    DesiredState: states.decode(task.desiredState),
    Endpoint: task.endpoint && endpointFromWire(task.endpoint),
    LogDriver: driverFromWire(task.logDriver),
    Networks: task.networks
      .map(attachedNetworkFromWire)
      .filter((attached): attached is AttachedNetwork => attached !== undefined),
    RegistryAuth: runtime?.case === "container" ? text(runtime.value.pullOptions?.registryAuth ?? "") : undefined,
    JobIteration: task.jobIteration && versionFromWire(task.jobIteration),
    AssignedGenericResources: mapped(task.assignedGenericResources, genericResourceFromWire),
  });
}

function taskSpecToWire(spec: TaskSpec, registryAuth: string | undefined): Init<typeof TaskSpecSchema> {
  return {
    runtime: runtimeToWire(spec, registryAuth),
    resources: spec.Resources && requirementsToWire(spec.Resources),
    restart: spec.RestartPolicy && restartToWire(spec.RestartPolicy),
    placement: spec.Placement && placementToWire(spec.Placement),
    logDriver: driverToWire(spec.LogDriver),
    networks: (spec.Networks ?? []).map(attachmentConfigToWire),
    forceUpdate: toInt64(spec.ForceUpdate),
  };
}

function runtimeToWire(spec: TaskSpec, registryAuth: string | undefined): Init<typeof TaskSpecSchema>["runtime"] {
  if (spec.ContainerSpec) {
    const value = containerToWire(spec.ContainerSpec, spec.Resources?.Limits?.Pids, registryAuth);
    return { case: "container", value };
  }
  if (spec.NetworkAttachmentSpec) {
    return { case: "attachment", value: { containerId: spec.NetworkAttachmentSpec.ContainerID ?? "" } };
  }
  return spec.Runtime ? { case: "generic", value: { kind: spec.Runtime } } : { case: undefined };
}

function taskSpecFromWire(spec: WireTaskSpec): TaskSpec {
  const { runtime } = spec;
  const container = runtime.case === "container" ? runtime.value : undefined;
  const pids = container && fromInt64(container.pidsLimit);
  return compact<TaskSpec>({
    ContainerSpec: container && containerFromWire(container),
    NetworkAttachmentSpec:
      runtime.case === "attachment" ? compact({ ContainerID: text(runtime.value.containerId) }) : undefined,
    Runtime: runtime.case === "generic" ? text(runtime.value.kind) : undefined,
    Resources: spec.resources || pids !== undefined ? requirementsFromWire(spec.resources, pids) : undefined,
    RestartPolicy: spec.restart && restartFromWire(spec.restart),
    Placement: spec.placement && placementFromWire(spec.placement),
    LogDriver: driverFromWire(spec.logDriver),
    Networks: mapped(spec.networks, attachmentConfigFromWire),
    ForceUpdate: fromInt64(spec.forceUpdate),
  });
}

function requirementsToWire(resources: Resources): Init<typeof ResourceRequirementsSchema> {
  const { SwapBytes: swapBytes, MemorySwappiness: swappiness } = resources;
  return {
    limits: resources.Limits && resourcesToWire(resources.Limits),
    reservations: resources.Reservations && resourcesToWire(resources.Reservations),
    swapBytes: swapBytes === undefined ? undefined : toInt64(swapBytes),
    memorySwappiness: swappiness === undefined ? undefined : toInt64(swappiness),
  };
}

function requirementsFromWire(resources: ResourceRequirements | undefined, pids: number | undefined): Resources {
  const limits = resources?.limits && resourcesFromWire(resources.limits);
  return compact<Resources>({
    Limits:
      limits || pids !== undefined
        ? compact({ NanoCPUs: limits?.NanoCPUs, MemoryBytes: limits?.MemoryBytes, Pids: pids })
        : undefined,
    Reservations: resources?.reservations && resourcesFromWire(resources.reservations),
    SwapBytes: resources?.swapBytes === undefined ? undefined : Number(resources.swapBytes),
    MemorySwappiness: resources?.memorySwappiness === undefined ? undefined : Number(resources.memorySwappiness),
  });
}

function restartToWire(restart: RestartPolicy): Init<typeof RestartPolicySchema> {
  return {
    condition: conditions.encode(restart.Condition || "any"),
    delay: durationToWire(restart.Delay),
    maxAttempts: toInt64(restart.MaxAttempts),
    window: durationToWire(restart.Window),
  };
}

function restartFromWire(restart: WireRestartPolicy): RestartPolicy {
  return compact({
    Condition: conditions.decode(restart.condition),
    Delay: durationFromWire(restart.delay),
    MaxAttempts: fromInt64(restart.maxAttempts),
    Window: durationFromWire(restart.window),
  });
}

function placementToWire(placement: Placement): Init<typeof PlacementSchema> {
  return {
    constraints: placement.Constraints ?? [],
    preferences: (placement.Preferences ?? []).map(({ Spread: spread }) => ({
      Preference: spread
        ? { case: "spread" as const, value: { spreadDescriptor: spread.SpreadDescriptor ?? "" } }
        : { case: undefined },
    })),
    platforms: (placement.Platforms ?? []).map(({ Architecture, OS }) => ({
      architecture: Architecture ?? "",
      os: OS ?? "",
    })),
    maxReplicas: toInt64(placement.MaxReplicas),
  };
}

function placementFromWire(placement: WirePlacement): Placement {
  return compact({
    Constraints: list(placement.constraints),
    Preferences: mapped(placement.preferences, ({ Preference: preference }) =>
      preference.case === "spread" ? { Spread: { SpreadDescriptor: preference.value.spreadDescriptor } } : {},
    ),
    Platforms: mapped(placement.platforms, ({ architecture, os }) =>
      compact({ Architecture: text(architecture), OS: text(os) }),
    ),
    MaxReplicas: fromInt64(placement.maxReplicas),
  });
}

export function taskStatusToWire(status: TaskStatus): Init<typeof TaskStatusSchema> {
  const container = status.ContainerStatus;
  return {
    timestamp: timestampToWire(status.Timestamp),
    state: states.encode(status.State),
    message: status.Message ?? "",
    err: status.Err ?? "",
    runtimeStatus: container
      ? {
          case: "container",
          value: {
            containerId: container.ContainerID ?? "",
            pid: container.PID ?? 0,
            exitCode: container.ExitCode ?? 0,
          },
        }
      : { case: undefined },
    portStatus: status.PortStatus && { ports: (status.PortStatus.Ports ?? []).map(portToWire) },
    appliedBy: status.AppliedBy ?? "",
    appliedAt: timestampToWire(status.AppliedAt),
  };
}

export function taskStatusFromWire(status: WireTaskStatus): TaskStatus {
  const { runtimeStatus: runtime } = status;
  return compact<TaskStatus>({
    Timestamp: timestampFromWire(status.timestamp) ?? zeroTime,
    State: states.decode(status.state),
    Message: text(status.message),
    Err: text(status.err),
    // All three are always said, as the Engine API does: an exit code of 0 is a fact, not an absent one.
    ContainerStatus:
      runtime.case === "container"
        ? { ContainerID: runtime.value.containerId, PID: runtime.value.pid, ExitCode: runtime.value.exitCode }
        : undefined,
    PortStatus: status.portStatus && compact({ Ports: mapped(status.portStatus.ports, portFromWire) }),
    AppliedBy: text(status.appliedBy),
    AppliedAt: timestampFromWire(status.appliedAt),
  });
}
