/**
 * Swarm-scope events, made from the store's commits: nodes, services, networks, secrets and configs that were created,
 * updated or removed (never tasks, as with Swarm), and from what this manager sees of the others. The last ones are
 * kept for `since`. It follows whichever manager this node has:
 * `follow` is cheap and is called before and after every request, so that a stream from before `swarm init` goes on with it.
 */
import type { Clock } from "../lib/clock.ts";
import { parseRfc3339 } from "../lib/clock.ts";
import type { Lock, Node, Service, ServiceSpec } from "../model/types.ts";
import type { Change, Commit, View } from "../store/store.ts";
import { leadLock } from "../store/view.ts";
import type { ActiveManager, LocalNode } from "./context.ts";
import { nodeName } from "./lookup.ts";

export interface SwarmEvent {
  readonly Type: "node" | "service" | "network" | "secret" | "config";
  readonly Action: "create" | "update" | "remove";
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  /** Milliseconds since the epoch. */
  readonly atMs: number;
}

/** Events that are kept for `since`: as many as the Engine keeps of its own. */
const keptEvents = 256;

type Listener = (event: SwarmEvent) => void;

export class SwarmEvents {
  readonly #node: LocalNode;
  readonly #clock: Clock;
  readonly #listeners = new Set<Listener>();
  #kept: SwarmEvent[] = [];
  #manager: ActiveManager | undefined;
  #unwatch: (() => void) | undefined;

  constructor(node: LocalNode, clock: Clock) {
    this.#node = node;
    this.#clock = clock;
  }

  /** Watches the store of the manager that this node has now, if any. Idempotent. */
  follow(): void {
    const manager = this.#node.manager();
    if (manager?.store === this.#manager?.store) return;
    this.#unwatch?.();
    this.#manager = manager;
    this.#unwatch = manager && this.#watch(manager);
  }

  #watch({ store, watchReachability }: ActiveManager): () => void {
    const unwatch = [
      store.watch((commit) => this.#tell(eventsOf(commit, store.view, this.#clock.now()))),
      watchReachability((nodeId, reachable) => {
        this.#tell(reachabilityEvents(store.view.get("nodes", nodeId), reachable, this.#clock.now()));
      }),
    ];
    return () => {
      for (const stop of unwatch) stop();
    };
  }

  /** The kept events, oldest first. */
  kept(): readonly SwarmEvent[] {
    return this.#kept;
  }

  /** Tells `listener` of each later event. Returns the way to stop. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#manager = undefined;
    this.#listeners.clear();
  }

  #tell(events: Iterable<SwarmEvent>): void {
    for (const event of events) {
      this.#kept.push(event);
      for (const listener of this.#listeners) listener(event);
    }
    if (this.#kept.length > keptEvents) this.#kept = this.#kept.slice(-keptEvents);
  }
}

/** The events of one commit. `now` is the time of removals, which no object tells. */
export function* eventsOf(commit: Commit, view: View, now: number): Iterable<SwarmEvent> {
  for (const change of commit.changes) {
    if (change.table === "locks" && change.id === leadLock) yield* leadEvents(change.before, change.after, view, now);
    const actor = actorOf(change, commit, view);
    const object = change.after ?? change.before;
    if (!actor || !object) continue;
    const Action = actionOf(change);
    if (Action === undefined) continue;
    const atMs = Action === "remove" ? now : parseRfc3339(object.UpdatedAt);
    yield { Type: actor.type, Action, Actor: { ID: change.id, Attributes: actor.attributes }, atMs };
  }
}

/** A network is removed for users when it is marked so; undefined for what comes of it later. */
function actionOf(change: Change): SwarmEvent["Action"] | undefined {
  if (change.table === "networks" && (change.before?.Removed || change.after?.Removed)) {
    return change.before?.Removed ? undefined : "remove";
  }
  return !change.before ? "create" : !change.after ? "remove" : "update";
}

/** The lead has gone from one manager to another. */
function* leadEvents(before: Lock | undefined, after: Lock | undefined, view: View, now: number): Iterable<SwarmEvent> {
  if (!before || before.Holder === after?.Holder) return;
  for (const [id, leads] of [
    [before.Holder, false],
    [after?.Holder, true],
  ] as const) {
    const node = id && view.get("nodes", id);
    if (!node) continue;
    const attributes = { name: nodeName(node), "leader.old": `${!leads}`, "leader.new": `${leads}` };
    yield { Type: "node", Action: "update", Actor: { ID: node.ID, Attributes: attributes }, atMs: now };
  }
}

function* reachabilityEvents(node: Node | undefined, reachable: boolean, now: number): Iterable<SwarmEvent> {
  if (!node) return;
  const word = (is: boolean) => (is ? "reachable" : "unreachable");
  const Attributes = {
    name: nodeName(node),
    "reachability.old": word(!reachable),
    "reachability.new": word(reachable),
  };
  yield { Type: "node", Action: "update", Actor: { ID: node.ID, Attributes }, atMs: now };
}

function actorOf(
  change: Change,
  commit: Commit,
  view: View,
): { type: SwarmEvent["Type"]; attributes: Record<string, string> } | undefined {
  switch (change.table) {
    case "nodes":
      return { type: "node", attributes: nodeAttributes(change.before, change.after) };
    case "services":
      return { type: "service", attributes: serviceAttributes(change.before, change.after, specsOf(commit, view)) };
    case "networks": {
      const network = change.after ?? change.before;
      // The predefined ones are part of every swarm, and hidden everywhere.
      if (!network || network.Predefined) return undefined;
      return { type: "network", attributes: { name: network.Name } };
    }
    case "secrets":
    case "configs": {
      const name = (change.after ?? change.before)?.Spec.Name ?? "";
      return { type: change.table === "secrets" ? "secret" : "config", attributes: { name } };
    }
    case "cluster":
    case "specs":
    case "tasks":
    case "locks":
      return undefined;
  }
}

function nodeAttributes(before: Node | undefined, after: Node | undefined): Record<string, string> {
  const node = after ?? before;
  const attributes: Record<string, string> = { name: node ? nodeName(node) : "" };
  if (!before || !after) return attributes;
  changed(attributes, "availability", before.Spec.Availability, after.Spec.Availability);
  changed(attributes, "role", before.Role, after.Role);
  changed(attributes, "state", before.Status.State, after.Status.State);
  return attributes;
}

type SpecOf = (service: Service) => ServiceSpec | undefined;

function serviceAttributes(
  before: Service | undefined,
  after: Service | undefined,
  specOf: SpecOf,
): Record<string, string> {
  const attributes: Record<string, string> = { name: (after ?? before)?.Name ?? "" };
  if (!before || !after) return attributes;
  if (before.SpecVersion.Index !== after.SpecVersion.Index) {
    const old = specOf(before);
    const current = specOf(after);
    changed(attributes, "image", imageOf(old), imageOf(current));
    changed(attributes, "replicas", replicasOf(old), replicasOf(current));
  }
  const state = after.UpdateStatus?.State;
  if (state && !before.UpdateStatus) attributes["updatestate.new"] = state;
  else if (state) changed(attributes, "updatestate", before.UpdateStatus?.State, state);
  return attributes;
}

function imageOf(spec: ServiceSpec | undefined): string | undefined {
  return spec?.TaskTemplate?.ContainerSpec?.Image;
}

function replicasOf(spec: ServiceSpec | undefined): string | undefined {
  const replicas = spec?.Mode?.Replicated?.Replicas;
  return replicas === undefined || replicas === null ? undefined : String(replicas);
}

/** Specs by service; one that this very commit removed is found in its changes. */
function specsOf(commit: Commit, view: View): SpecOf {
  return (service) => {
    const revision = service.SpecVersion.Index;
    const stored = view.spec(service.ID, revision);
    if (stored) return stored.Spec;
    for (const { table, before } of commit.changes) {
      if (table === "specs" && before?.ServiceID === service.ID && before.Revision === revision) return before.Spec;
    }
    return undefined;
  };
}

function changed(
  attributes: Record<string, string>,
  name: string,
  before: string | undefined,
  after: string | undefined,
): void {
  if (before === undefined || after === undefined || before === after) return;
  attributes[`${name}.old`] = before;
  attributes[`${name}.new`] = after;
}
