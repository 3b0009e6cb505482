/** How a task's container is named and labelled: what `docker ps` users and our own adoption find it by. */
import { taskName } from "../../model/task-name.ts";
import type { AssignedTask } from "../../model/types.ts";

export const taskIdLabel = "com.docker.swarm.task.id";
export const nodeIdLabel = "com.docker.swarm.node.id";

/** The container's labels from its spec, and Swarm's own, which win. */
export function containerLabels(task: AssignedTask): Record<string, string> {
  return {
    ...task.Spec.ContainerSpec?.Labels,
    "com.docker.swarm.task": "",
    [taskIdLabel]: task.ID,
    "com.docker.swarm.task.name": taskName(task),
    [nodeIdLabel]: task.NodeID,
    "com.docker.swarm.service.id": task.ServiceID,
    "com.docker.swarm.service.name": task.ServiceAnnotations.Name,
  };
}
