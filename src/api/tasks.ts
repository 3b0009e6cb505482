/**
 * `/tasks`: the tasks of all services, those in history included, each with the spec that it was made from. Read only.
 *
 * A task whose spec is gone (its service was removed, and the reaper is about to take the task) is not shown: clients
 * follow `Spec.ContainerSpec` without looking.
 */
import { compareRevisions, outdates, type SpecDifference } from "../manager/orchestrator/spec-difference.ts";
import { matchesNode, parseConstraints } from "../manager/scheduler/constraint.ts";
import { joinTask } from "../model/join.ts";
import { networkOptions } from "../model/networks.ts";
import { iterationJson } from "../model/service-json.ts";
import { taskStates } from "../model/state.ts";
import type { AssignedTask, AttachedNetwork, ServiceSpec, Task, TaskStatus } from "../model/types.ts";
import type { View } from "../store/store.ts";
import type { ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { json } from "./context.ts";
import { badRequest, notFound } from "./errors.ts";
import { type Filters, parseFilters } from "./filters.ts";
import { lookupNode, lookupService, lookupTask } from "./lookup.ts";
import { currentView } from "./membership.ts";
import { Waiting } from "./waiting.ts";

const acceptedFilters = ["name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"];

export function taskRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/tasks", handle: (request) => listTasks(context, request) },
    { method: "GET", path: "/tasks/:id", handle: (request) => inspectTask(context, request) },
  ];
}

async function inspectTask({ node, clock }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const view = await currentView(node);
  const name = request.params.id ?? "";
  const task = lookupTask(view, name);
  const joined = joinTask(task, view);
  if (!joined) throw notFound("task", name);
  return json(200, taskJson(joined, new Waiting(view, clock.now()).reasonOf(task)));
}

async function listTasks({ node, clock }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const filters = parseFilters(request.query.get("filters"), acceptedFilters);
  const view = await currentView(node);
  const selection = new Selection(view, filters);
  const waiting = new Waiting(view, clock.now());
  const tasks: object[] = [];
  for (const task of selection.candidates()) {
    if (!selection.matches(task)) continue;
    const joined = joinTask(task, view);
    if (joined && selection.matchesJoined(joined)) tasks.push(taskJson(joined, waiting.reasonOf(task)));
  }
  return json(200, tasks);
}

/** The filters of one request, with names made into ids. */
class Selection {
  readonly #view: View;
  readonly #filters: Filters;
  readonly #services: ReadonlySet<string>;
  readonly #nodes: ReadonlySet<string>;
  readonly #desiredStates: ReadonlySet<string>;
  readonly #freshness: Freshness | undefined;

  constructor(view: View, filters: Filters) {
    this.#view = view;
    this.#filters = filters;
    this.#services = new Set(filters.values("service").map((name) => lookupService(view, name).ID));
    this.#nodes = new Set(filters.values("node").map((name) => lookupNode(view, name).ID));
    this.#desiredStates = new Set(filters.values("desired-state").filter(Boolean).map(stateNamed));
    this.#freshness = filters.has("_up-to-date") ? new Freshness(view) : undefined;
  }

  /** As few tasks as an index gives. */
  *candidates(): Iterable<Task> {
    if (this.#services.size > 0) {
      for (const id of this.#services) yield* this.#view.tasksOfService(id);
    } else if (this.#nodes.size > 0) {
      for (const id of this.#nodes) yield* this.#view.tasksOfNode(id);
    } else yield* this.#view.all("tasks");
  }

  matches(task: Task): boolean {
    return (
      !task.Attachment && // a user's container is nobody's task
      (this.#services.size === 0 || this.#services.has(task.ServiceID)) &&
      (this.#nodes.size === 0 || this.#nodes.has(task.NodeID)) &&
      (this.#desiredStates.size === 0 || this.#desiredStates.has(task.DesiredState)) &&
      this.#filters.matchesPrefix("id", task.ID) &&
      this.#filters.matches("runtime", "container") &&
      (this.#freshness === undefined || this.#freshness.isUpToDate(task))
    );
  }

  matchesJoined(task: AssignedTask): boolean {
    return (
      this.#filters.matchesLabels("label", task.ServiceAnnotations.Labels) &&
      (!this.#filters.has("name") || this.#filters.matchesPrefix("name", containerName(task)))
    );
  }
}

function containerName(task: AssignedTask): string {
  return `${task.ServiceAnnotations.Name}.${task.Slot || task.NodeID}.${task.ID}`;
}

function stateNamed(text: string): string {
  const state = text.toLowerCase();
  if (!Object.hasOwn(taskStates, state)) throw badRequest(`Invalid desired-state filter: '${text}'`);
  return state;
}

/**
 * `_up-to-date`: whether a task is what its service asks for now, by the same comparison that the updater goes by,
 * and of a job's present iteration
 * (the CLI's progress bars wait for exactly those). Each old revision is compared once per request.
 */
class Freshness {
  readonly #view: View;
  readonly #differences = new Map<string, SpecDifference>();

  constructor(view: View) {
    this.#view = view;
  }

  isUpToDate(task: Task): boolean {
    const service = this.#view.service(task.ServiceID);
    if (!service) return false;
    if (service.JobStatus?.JobIteration.Index !== task.JobIteration?.Index) return false;
    if (service.SpecVersion.Index === task.SpecVersion.Index) return true;
    const old = this.#view.spec(task.ServiceID, task.SpecVersion.Index);
    if (!old) return false;
    const current = this.#view.specOf(service);
    let difference = this.#differences.get(old.ID);
    if (!difference) this.#differences.set(old.ID, (difference = compareRevisions(old, current)));
    return !outdates(difference, task, () => this.#isAllowed(task.NodeID, current.Spec));
  }

  #isAllowed(nodeId: string, spec: ServiceSpec): boolean {
    const node = this.#view.get("nodes", nodeId);
    return node !== undefined && matchesNode(parseConstraints(spec.TaskTemplate?.Placement?.Constraints ?? []), node);
  }
}

/** A task as the API shows it, members in the Engine's order. `reason`: see `waiting.ts`. */
function taskJson(task: AssignedTask, reason: string | undefined): object {
  return {
    ID: task.ID,
    Version: task.Version,
    CreatedAt: task.CreatedAt,
    UpdatedAt: task.UpdatedAt,
    Labels: {},
    Spec: task.Spec,
    ServiceID: task.ServiceID,
    ...(task.Slot !== 0 && { Slot: task.Slot }),
    ...(task.NodeID !== "" && { NodeID: task.NodeID }),
    Status: statusJson(task.Status, reason),
    DesiredState: task.DesiredState,
    ...(task.Networks.length > 0 && { NetworksAttachments: task.Networks.map(attachmentJson) }),
    ...(task.AssignedGenericResources?.length && { GenericResources: task.AssignedGenericResources }),
    ...(task.JobIteration && { JobIteration: iterationJson(task.JobIteration) }),
  };
}

function statusJson(status: TaskStatus, reason: string | undefined): object {
  const { ContainerStatus: container } = status;
  const err = status.Err || reason;
  return {
    Timestamp: status.Timestamp,
    State: status.State,
    ...(status.Message && { Message: status.Message }),
    ...(err && { Err: err }),
    ...(container && {
      ContainerStatus: {
        ContainerID: container.ContainerID ?? "",
        PID: container.PID ?? 0,
        ExitCode: container.ExitCode ?? 0,
      },
    }),
    PortStatus: status.PortStatus ?? {},
  };
}

function attachmentJson({ Network: network, Addresses: addresses }: AttachedNetwork): object {
  const { Spec: spec, Allocated: allocated } = network;
  const { Driver, Options, Config } = spec?.IPAM ?? {};
  const options = spec && Object.keys(spec.Options).length > 0 ? spec.Options : undefined;
  return {
    Network: {
      ID: network.ID,
      Version: network.Version,
      CreatedAt: network.CreatedAt,
      UpdatedAt: network.UpdatedAt,
      Spec: {
        Name: network.Name,
        Labels: network.Labels,
        DriverConfiguration: { Name: network.Driver, ...(options && { Options: options }) },
        ...(spec?.Internal && { Internal: true }),
        ...(spec?.Attachable && { Attachable: true }),
        ...(spec?.Ingress && { Ingress: true }),
        ...(spec && {
          IPAMOptions: {
            Driver: { Name: Driver, ...(Options && Object.keys(Options).length > 0 && { Options }) },
            ...(Config?.length && { Configs: Config }),
          },
        }),
        ...(spec?.ConfigFrom && { ConfigFrom: { Network: spec.ConfigFrom } }),
        Scope: "swarm",
      },
      DriverState: {
        Name: network.Driver,
        ...(allocated && { Options: { [networkOptions.vxlanIds]: String(allocated.VxlanID), ...options } }),
      },
      IPAMOptions: allocated
        ? {
            Driver: { Name: Driver ?? "default" },
            Configs: [
              {
                Subnet: allocated.Subnet,
                ...(allocated.IPRange && { Range: allocated.IPRange }),
                Gateway: allocated.Gateway,
              },
            ],
          }
        : { Driver: {} },
    },
    ...(addresses.length > 0 && { Addresses: addresses }),
  };
}
