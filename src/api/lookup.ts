/**
 * Names in paths: a full id, else an exact name, else a unique prefix of an id; in this order, so that a name that
 * looks like the start of an id still means the name.
 */
import type { Network, Node, Service, StoredObject, Task } from "../model/types.ts";
import type { View } from "../store/store.ts";
import { badRequest, notFound } from "./errors.ts";

export interface LookupSource<T> {
  get(id: string): T | undefined;
  /** Objects of exactly this name: none, one, or several (host names are not unique). */
  named(name: string): Iterable<T>;
  all(): Iterable<T>;
}

/**
 * The one object that `text` means.
 * @param kind the word for it in errors: `service`, `node` ...
 * @throws 404 `KIND X not found`; 400 `KIND X is ambiguous (N matches found)`
 */
export function lookup<T extends StoredObject>(kind: string, text: string, source: LookupSource<T>): T {
  const exact = source.get(text);
  if (exact) return exact;
  let matches = [...source.named(text)];
  if (matches.length === 0 && text !== "") {
    matches = [];
    for (const object of source.all()) if (object.ID.startsWith(text)) matches.push(object);
  }
  if (matches.length > 1) throw badRequest(`${kind} ${text} is ambiguous (${matches.length} matches found)`);
  const [found] = matches;
  if (!found) throw notFound(kind, text);
  return found;
}

export function lookupService(view: View, text: string): Service {
  return lookup("service", text, {
    get: (id) => view.service(id),
    named: (name) => optional(view.serviceByName(name)),
    all: () => view.all("services"),
  });
}

/** A node's name is its host name; several nodes may have the same. */
export function lookupNode(view: View, text: string): Node {
  return lookup("node", text, {
    get: (id) => view.get("nodes", id),
    named: (name) => filter(view.all("nodes"), (node) => nodeName(node) === name),
    all: () => view.all("nodes"),
  });
}

/** A task's name is that of its container: `web.1.TASKID`, or `web.NODEID.TASKID` for global services. */
export function lookupTask(view: View, text: string): Task {
  return lookup("task", text, {
    get: (id) => view.get("tasks", id),
    named: (name) => filter(optional(view.get("tasks", afterLastDot(name))), (task) => taskName(view, task) === name),
    all: () => view.all("tasks"),
  });
}

export function lookupNetwork(view: View, text: string): Network {
  return lookup("network", text, {
    // A removed one is there for its last tasks only.
    get: (id) => optional(view.network(id)).find(({ Removed }) => !Removed),
    named: (name) => optional(view.networkByName(name)),
    all: () => filter(view.all("networks"), ({ Removed }) => !Removed),
  });
}

/** What a node is called in lists and events: its host name, unless its spec names it. */
export function nodeName(node: Node): string {
  return node.Spec.Name || (node.Description?.Hostname ?? "");
}

/** The name of the task's container. */
export function taskName(view: View, task: Task): string {
  const service = view.service(task.ServiceID)?.Name ?? task.ServiceID;
  return `${service}.${task.Slot || task.NodeID}.${task.ID}`;
}

function afterLastDot(text: string): string {
  return text.slice(text.lastIndexOf(".") + 1);
}

function optional<T>(object: T | undefined): T[] {
  return object === undefined ? [] : [object];
}

function filter<T>(objects: Iterable<T>, keep: (object: T) => boolean): T[] {
  const kept: T[] = [];
  for (const object of objects) if (keep(object)) kept.push(object);
  return kept;
}
