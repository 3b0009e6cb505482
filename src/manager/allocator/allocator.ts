/**
 * Gives services, tasks and nodes what they share with others: published ports, and addresses on overlay networks
 * (subnets are given when a network is made, `subnets.ts`). A task goes from "new" to "pending" once its service is
 * allocated and it has its addresses; a user's container has its node already, so its task goes to "assigned".
 *
 * Its keys: a service; the new tasks of a service; a node; a network, for those that wait for an address on it. What
 * can't be had keeps what it has; its tasks say why they wait, and are tried again when something is given back.
 *
 * Where it differs from Swarm: no timer (Swarm tries failed allocations every 5 minutes), and the text on tasks. An
 * address is free as soon as its task has ended, not when the task is deleted.
 */
import { unreachable } from "../../lib/errors.ts";
import { addressesHeld, virtualAddresses } from "../../model/networks.ts";
import type { NetworkAddress, Node, Service, Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, Planner } from "../planner.ts";
import { isAllocated, planService } from "./endpoint.ts";
import { planNetwork } from "./network-plan.ts";
import { planNewTasks } from "./new-tasks.ts";
import { attachNode } from "./node-plan.ts";
import { freesDynamicPorts } from "./ports.ts";

type Kind = "service" | "tasks" | "node" | "network";

export const allocator: Planner = {
  name: "allocator",
  wakes,
  *keys(view: View): Iterable<string> {
    for (const network of view.all("networks")) yield key("network", network.ID);
    for (const node of view.all("nodes")) yield key("node", node.ID);
    for (const service of view.all("services")) yield key("service", service.ID);
    const services = new Set<string>();
    for (const task of view.tasksInState("new")) services.add(task.ServiceID);
    for (const id of services) yield key("tasks", id);
  },
  plan,
};

function key(kind: Kind, id: string): string {
  return `${kind} ${id}`;
}

function plan(view: View, woken: string, context: PlanContext): Plan {
  const space = woken.indexOf(" ");
  const kind = woken.slice(0, space) as Kind;
  const id = woken.slice(space + 1);
  switch (kind) {
    case "service":
      return planService(view, id);
    case "tasks":
      return planNewTasks(view, view.newTasksOfService(id), context);
    case "node":
      return attachNode(view, id);
    case "network":
      return planNetwork(view, id, context);
    default:
      unreachable(kind);
  }
}

function* wakes(change: Change, view: View): Iterable<string> {
  switch (change.table) {
    case "services":
      yield* serviceWakes(change.id, change.before, change.after, view);
      return;
    case "tasks":
      yield* taskWakes(change.before, change.after, view);
      return;
    case "nodes":
      yield* nodeWakes(change.id, change.before, change.after, view);
      return;
    case "networks": {
      yield key("network", change.id);
      if (!(change.after ?? change.before)?.Spec?.Ingress) return;
      for (const node of view.all("nodes")) yield key("node", node.ID);
      for (const service of view.all("services")) if (!isAllocated(service, view)) yield key("service", service.ID);
      return;
    }
    case "cluster":
    case "specs":
    case "secrets":
    case "configs":
    case "locks":
      return;
    default:
      unreachable(change);
  }
}

function* serviceWakes(
  id: string,
  before: Service | undefined,
  after: Service | undefined,
  view: View,
): Iterable<string> {
  if (after) yield key("service", id);
  yield key("tasks", id);
  if (!before) return;
  if (freesDynamicPorts(before, after)) {
    for (const service of view.all("services")) if (!isAllocated(service, view)) yield key("service", service.ID);
  }
  yield* freedWakes(virtualAddresses(before), after && virtualAddresses(after), view);
}

function* taskWakes(before: Task | undefined, after: Task | undefined, view: View): Iterable<string> {
  if (after?.Status.State === "new") {
    if (before?.Status.State !== "new" || before.DesiredState !== after.DesiredState)
      yield key("tasks", after.ServiceID);
    // What it waits for may have been given back while it was written.
    if (after.WaitsFor !== undefined && after.WaitsFor !== before?.WaitsFor) yield key("network", after.WaitsFor);
  }
  yield* freedWakes(before && addressesHeld(before), after && addressesHeld(after), view);
}

function* nodeWakes(id: string, before: Node | undefined, after: Node | undefined, view: View): Iterable<string> {
  if (after?.DataPath && (!before?.DataPath || before.Attachments !== after.Attachments)) yield key("node", id);
  yield* freedWakes(before?.Attachments, after?.Attachments, view);
}

/** The networks on which an address was given back that somebody may wait for. */
function* freedWakes(
  before: readonly NetworkAddress[] | undefined,
  after: readonly NetworkAddress[] | undefined,
  view: View,
): Iterable<string> {
  if (!before || before === after) return;
  for (const { NetworkID, Address } of before) {
    if (after?.some((kept) => kept.NetworkID === NetworkID && kept.Address === Address)) continue;
    if (isWaitedFor(view, NetworkID)) yield key("network", NetworkID);
  }
}

function isWaitedFor(view: View, networkId: string): boolean {
  const network = view.network(networkId);
  if (network?.Removed) return true;
  for (const _ of view.tasksWaitingFor(networkId)) return true;
  if (network?.Spec?.Ingress) for (const _ of view.unattachedNodes()) return true;
  return false;
}
