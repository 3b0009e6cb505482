/**
 * Gives services what they share with others (for now published ports), and lets their tasks go on to the scheduler:
 * "new" becomes "pending" once the task's service is allocated.
 *
 * Its keys are service ids, and one for all tasks in state "new". A service is allocated when its endpoint was made
 * from its current endpoint spec. A service that can't be allocated keeps the endpoint that it has; its new tasks say
 * why they wait, and it is tried again when a port is given back.
 *
 * Where it differs from Swarm: no timer (Swarm tries failed allocations every 5 minutes), and the text on tasks.
 */
import { isDeepStrictEqual } from "node:util";
import { isActiveDesire } from "../../model/state.ts";
import type { EndpointSpec, Service, ServiceEndpoint, ServiceSpec, Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";
import { allocatePorts, dynamicPorts, freesDynamicPorts } from "./ports.ts";

/** The key of all tasks in state "new"; no service has such an id. */
const newTasks = "new tasks";

export const allocator: Planner = {
  name: "allocator",

  *wakes(change: Change, view: View): Iterable<string> {
    if (change.table === "services") {
      if (change.after) yield change.id;
      yield newTasks;
      if (change.before && freesDynamicPorts(change.before, change.after)) {
        for (const service of view.all("services")) if (!isAllocated(service, view)) yield service.ID;
      }
    } else if (change.table === "tasks" && change.after?.Status.State === "new") {
      const { before, after } = change;
      if (before?.Status.State !== "new" || before.DesiredState !== after.DesiredState) yield newTasks;
    }
  },

  *keys(view: View): Iterable<string> {
    for (const service of view.all("services")) yield service.ID;
    yield newTasks;
  },

  plan(view: View, key: string, context: PlanContext): Plan {
    if (key === newTasks) return planNewTasks(view, context);
    const service = view.service(key);
    return { changes: service ? planService(service, view) : [] };
  },
};

/** Whether the endpoint was made from the current spec, so that tasks may be made with it. */
export function isAllocated(service: Service, view: View): boolean {
  return service.Endpoint !== undefined && isDeepStrictEqual(service.Endpoint.Spec, endpointSpec(service, view));
}

/**
 * The endpoint of a service that shares nothing with others: whoever writes its spec may give it at once, and spares
 * it the wait for the allocator. Undefined where there are ports to allocate.
 */
export function unsharedEndpoint(spec: ServiceSpec): ServiceEndpoint | undefined {
  return spec.EndpointSpec?.Ports?.length ? undefined : { Spec: spec.EndpointSpec ?? {} };
}

function endpointSpec(service: Service, view: View): EndpointSpec {
  return view.specOf(service).Spec.EndpointSpec ?? {};
}

function planService(service: Service, view: View): PlannedChange[] {
  if (isAllocated(service, view)) return [];
  const spec = endpointSpec(service, view);
  const allocation = allocatePorts(view, service, spec);
  if (allocation.kind === "exhausted") return [];
  const endpoint: ServiceEndpoint = {
    Spec: spec,
    ...(allocation.ports.length > 0 ? { Ports: allocation.ports } : {}),
    ...(service.Endpoint?.VirtualIPs ? { VirtualIPs: service.Endpoint.VirtualIPs } : {}),
  };
  return [{ kind: "update", table: "services", object: { ...service, Endpoint: endpoint } }];
}

function planNewTasks(view: View, { nowText, room }: PlanContext): Plan {
  const outcomes = new Map<string, (task: Task) => Task>();
  const changes: PlannedChange[] = [];
  for (const task of view.tasksInState("new")) {
    let outcome = outcomes.get(task.ServiceID);
    if (!outcome) outcomes.set(task.ServiceID, (outcome = outcomeFor(view.service(task.ServiceID), view, nowText)));
    const after = isActiveDesire(task.DesiredState) ? outcome(task) : shutDown(task, nowText);
    if (after === task) continue;
    if (changes.length === room) return { changes, more: true };
    changes.push({ kind: "update", table: "tasks", object: after });
  }
  return { changes };
}

/** What becomes of a service's new tasks. */
function outcomeFor(service: Service | undefined, view: View, nowText: string): (task: Task) => Task {
  if (!service) return (task) => task; // the service is being removed, and its tasks with it
  const { Endpoint } = service;
  if (isAllocated(service, view)) {
    const Status = { Timestamp: nowText, State: "pending", Message: "pending task scheduling" } as const;
    return (task) => ({ ...task, Status, ...(Endpoint ? { Endpoint } : {}) });
  }
  const allocation = allocatePorts(view, service, endpointSpec(service, view));
  if (allocation.kind === "allocated") return (task) => task; // its turn is still to come
  const { first, last } = dynamicPorts;
  const Err = `no published port is free: all ${allocation.protocol} ports from ${first} to ${last} are in use`;
  return (task) => (task.Status.Err === Err ? task : { ...task, Status: { ...task.Status, Timestamp: nowText, Err } });
}

/** A task that is to stop before it ever became anything: nobody else would end it. */
function shutDown(task: Task, nowText: string): Task {
  const Status = { Timestamp: nowText, State: "shutdown", Message: "shut down before it was allocated" } as const;
  return { ...task, Status };
}
