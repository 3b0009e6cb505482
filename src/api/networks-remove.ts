/**
 * Removing networks of the swarm. One that somebody uses stays, with Swarm's texts.
 *
 * Differs from Swarm: tasks that are on their way out (their service is gone, or no longer wants them) are no reason to
 * refuse. The network is gone for users at once, and for the nodes when the last of those tasks has ended, so that
 * `docker stack rm` ends at the first try and no running container loses its network.
 */
import { ShoalError } from "../lib/errors.ts";
import { networkLock } from "../manager/allocator/subnets.ts";
import { attachmentsOf, needsIngress } from "../model/networks.ts";
import { isRunnableDesire } from "../model/state.ts";
import type { Network, Task } from "../model/types.ts";
import type { Transaction, View } from "../store/store.ts";
import { wantedSpecs } from "./service-use.ts";

/** @throws ShoalError FailedPrecondition where it is in use, or predefined */
export function removeNetwork(tx: Transaction, id: string): void {
  const network = tx.network(id);
  if (!network || network.Removed) throw new ShoalError("NotFound", `network ${id} not found`);
  tx.takeLock(networkLock(id));
  const use = useOf(tx, network);
  if (use !== undefined) throw new ShoalError("FailedPrecondition", use);
  for (const _ of tx.tasksOfNetwork(id)) {
    tx.put("networks", { ...network, Removed: true });
    return;
  }
  tx.delete("networks", id);
}

/** Why a network can't be removed; undefined where it can. */
function useOf(view: View, network: Network): string | undefined {
  const { ID: id, Name: name } = network;
  if (network.Predefined) return `Pre-defined network ${name} (${id}) cannot be removed`;
  for (const service of view.all("services")) {
    const specs = wantedSpecs(view, service);
    if (network.Spec?.Ingress) {
      if (specs.some((spec) => needsIngress(spec.EndpointSpec))) {
        return `ingress network cannot be removed because service ${service.ID} depends on it`;
      }
    } else if (specs.some((spec) => attachmentsOf(spec).some(({ Target }) => Target === id))) {
      return `network ${id} is in use by service ${service.ID}`;
    }
  }
  for (const task of view.tasksOfNetwork(id)) {
    if (usesNetwork(view, task)) return `network ${id} is in use by task ${task.ID}`;
  }
  for (const task of view.newTasksOfService("")) {
    if (task.Attachment?.NetworkID === id && usesNetwork(view, task))
      return `network ${id} is in use by task ${task.ID}`;
  }
  return undefined;
}

function usesNetwork(view: View, task: Task): boolean {
  if (!isRunnableDesire(task.DesiredState)) return false;
  return task.Attachment !== undefined || view.service(task.ServiceID) !== undefined;
}
