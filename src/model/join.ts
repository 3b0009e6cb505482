/** Joins a small stored task with its spec revision, its service and its networks. */
import type { AssignedTask, AttachedNetwork, Network, Service, SpecRevision, Task } from "./types.ts";

export interface JoinSource {
  service(id: string): Service | undefined;
  spec(serviceId: string, revision: number): SpecRevision | undefined;
  network(id: string): Network | undefined;
}

/** The whole task; undefined where its spec revision is gone (only while its service is being removed). */
export function joinTask(task: Task, source: JoinSource): AssignedTask | undefined {
  const revision = source.spec(task.ServiceID, task.SpecVersion.Index);
  if (!revision) return undefined;
  const { Spec } = revision;
  const template = Spec.TaskTemplate ?? {};
  const networks: AttachedNetwork[] = [];
  for (const attachment of template.Networks ?? Spec.Networks ?? []) {
    const network = source.network(attachment.Target ?? "");
    if (network) networks.push({ Network: network, Addresses: [], Aliases: attachment.Aliases ?? [] });
  }
  return {
    ID: task.ID,
    Version: task.Version,
    CreatedAt: task.CreatedAt,
    UpdatedAt: task.UpdatedAt,
    ServiceID: task.ServiceID,
    Slot: task.Slot,
    NodeID: task.NodeID,
    SpecVersion: task.SpecVersion,
    Spec: template,
    ServiceAnnotations: { Name: Spec.Name ?? "", Labels: Spec.Labels ?? {} },
    Status: task.Status,
    DesiredState: task.DesiredState,
    Endpoint: task.Endpoint,
    LogDriver: task.LogDriver,
    Networks: networks,
    RegistryAuth: revision.PullOptions?.RegistryAuth,
    JobIteration: task.JobIteration,
    AssignedGenericResources: task.AssignedGenericResources,
  };
}
