/** Joins a small stored task with its spec revision, its service and its networks. */
import { attachmentsOf } from "./networks.ts";
import { rank } from "./state.ts";
import type {
  AssignedTask,
  AttachedNetwork,
  Network,
  NetworkAttachmentConfig,
  Service,
  SpecRevision,
  Task,
  TaskSpec,
} from "./types.ts";

export interface JoinSource {
  service(id: string): Service | undefined;
  spec(serviceId: string, revision: number): SpecRevision | undefined;
  network(id: string): Network | undefined;
}

/**
 * The whole task; undefined where its spec revision is gone (only while its service is being removed). One that holds
 * the address of a user's container has no service, and the runtime `attachment`.
 */
export function joinTask(task: Task, source: JoinSource): AssignedTask | undefined {
  if (task.Attachment) return joinAttachment(task, task.Attachment, source);
  const revision = source.spec(task.ServiceID, task.SpecVersion.Index);
  if (!revision) return undefined;
  const { Spec } = revision;
  return joined(task, {
    Spec: Spec.TaskTemplate ?? {},
    ServiceAnnotations: { Name: Spec.Name ?? "", Labels: Spec.Labels ?? {} },
    Networks: attachedNetworks(task, attachmentsOf(Spec), source),
    // From its start on nothing is pulled for it any more.
    RegistryAuth: rank(task.Status.State) < rank("starting") ? revision.PullOptions?.RegistryAuth : undefined,
  });
}

function joinAttachment(
  task: Task,
  { NetworkID, ContainerID, Aliases }: NonNullable<Task["Attachment"]>,
  source: JoinSource,
): AssignedTask {
  const Spec: TaskSpec = { Runtime: "attachment", NetworkAttachmentSpec: { ContainerID } };
  return joined(task, {
    Spec,
    ServiceAnnotations: { Name: "", Labels: {} },
    Networks: attachedNetworks(task, [{ Target: NetworkID, Aliases: [...Aliases] }], source),
    RegistryAuth: undefined,
  });
}

function joined(
  task: Task,
  parts: Pick<AssignedTask, "Spec" | "ServiceAnnotations" | "Networks" | "RegistryAuth">,
): AssignedTask {
  return {
    ID: task.ID,
    Version: task.Version,
    CreatedAt: task.CreatedAt,
    UpdatedAt: task.UpdatedAt,
    ServiceID: task.ServiceID,
    Slot: task.Slot,
    NodeID: task.NodeID,
    SpecVersion: task.SpecVersion,
    Status: task.Status,
    DesiredState: task.DesiredState,
    Endpoint: task.Endpoint,
    LogDriver: task.LogDriver,
    JobIteration: task.JobIteration,
    AssignedGenericResources: task.AssignedGenericResources,
    ...parts,
  };
}

/** Those of the spec in its order, then those that only the allocator gave it: the ingress network. */
function attachedNetworks(
  task: Task,
  attachments: readonly NetworkAttachmentConfig[],
  source: JoinSource,
): AttachedNetwork[] {
  const attached = new Map<string, AttachedNetwork>();
  const attach = (id: string, aliases: readonly string[], addresses: readonly string[]) => {
    const network = source.network(id);
    if (!network) return;
    const { Aliases = [], Addresses = [] } = attached.get(id) ?? {};
    attached.set(id, {
      Network: network,
      Addresses: [...Addresses, ...addresses],
      Aliases: [...Aliases, ...aliases],
    });
  };
  for (const { Target = "", Aliases = [] } of attachments) attach(Target, Aliases, []);
  for (const { NetworkID, Address } of task.Addresses ?? []) attach(NetworkID, [], [Address]);
  return [...attached.values()];
}
