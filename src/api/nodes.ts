/**
 * `/nodes`: list, inspect, update (labels, availability, desired role), remove.
 *
 * A removed node's id stays in the cluster until its certificate is long out of date, so that its calls are refused;
 * its tasks are orphaned in the same transaction, because nobody is left who could report on them.
 *
 * Differs from Swarm: a filter value that makes no sense answers 400 (Swarm: 500).
 */
import { X509Certificate } from "node:crypto";
import { parseRfc3339, rfc3339 } from "../lib/clock.ts";
import { ShoalError } from "../lib/errors.ts";
import { isOwn } from "../model/own-node.ts";
import { rank } from "../model/state.ts";
import type { Cluster, Node, NodeRole, NodeSpec } from "../model/types.ts";
import { decodeNodeSpec } from "../model/validate-node.ts";
import type { Transaction } from "../store/store.ts";
import type { ActiveManager, ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { json } from "./context.ts";
import { badRequest, inDaemonsWords } from "./errors.ts";
import { type Filters, parseFilters } from "./filters.ts";
import { lookupNode } from "./lookup.ts";
import { canLose, managerStatusOf } from "./manager-status.ts";
import { currentView, requireManager } from "./membership.ts";
import { looseFlag, versionParameter } from "./query.ts";

const acceptedFilters = ["name", "id", "label", "role", "membership", "node.label"];
const roles = ["worker", "manager"];
const memberships = ["pending", "accepted"];

/** How long a removed node is remembered past the end of its certificate. */
const rememberRemovedMs = 7 * 24 * 60 * 60 * 1000;

export function nodeRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/nodes", handle: (request) => listNodes(context, request) },
    { method: "GET", path: "/nodes/:id", handle: (request) => inspectNode(context, request) },
    { method: "POST", path: "/nodes/:id/update", handle: (request) => updateNode(context, request) },
    { method: "DELETE", path: "/nodes/:id", handle: (request) => removeNode(context, request) },
  ];
}

async function listNodes({ node: local }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const filters = parseFilters(request.query.get("filters"), acceptedFilters);
  const wantedRoles = words(filters, "role", roles);
  const wantedMemberships = words(filters, "membership", memberships);
  const manager = requireManager(local);
  const view = await currentView(local);
  const nodes: object[] = [];
  for (const node of view.all("nodes")) {
    const matches =
      filters.matchesPrefix("name", node.Description?.Hostname ?? "") &&
      filters.matchesPrefix("id", node.ID) &&
      filters.matchesLabels("label", node.Description?.Engine?.Labels) &&
      filters.matchesLabels("node.label", node.Spec.Labels) &&
      (wantedRoles.length === 0 || wantedRoles.includes(node.Role)) &&
      // A node that is known is accepted: nobody is asked before it may join.
      (wantedMemberships.length === 0 || wantedMemberships.includes("accepted"));
    if (matches) nodes.push(nodeJson(node, manager));
  }
  return json(200, nodes);
}

/** The values of a filter over an enumeration, in lower case. */
function words(filters: Filters, name: string, known: readonly string[]): string[] {
  return filters.values(name).flatMap((value) => {
    const word = value.toLowerCase();
    if (word !== "" && !known.includes(word)) throw badRequest(`Invalid ${name} filter: '${value}'`);
    return word === "" ? [] : [word];
  });
}

async function inspectNode({ node: local }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const view = await currentView(local);
  return json(200, nodeJson(lookupNode(view, request.params.id ?? ""), requireManager(local)));
}

/** A node as the API shows it, members in the Engine's order; its certificate stays with the managers. */
function nodeJson(node: Node, manager: ActiveManager): object {
  const status = managerStatusOf(node, manager);
  const { Labels: labels, ...spec } = node.Spec;
  return {
    ID: node.ID,
    Version: node.Version,
    CreatedAt: node.CreatedAt,
    UpdatedAt: node.UpdatedAt,
    Spec: {
      ...(spec.Name && { Name: spec.Name }),
      Labels: labels ?? {},
      Role: spec.Role,
      Availability: spec.Availability,
    },
    Description: node.Description ?? { Platform: {}, Resources: {}, Engine: {}, TLSInfo: {} },
    Status: node.Status,
    ...(status && { ManagerStatus: status }),
  };
}

async function updateNode({ node: local }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const manager = requireManager(local);
  const { store } = manager;
  const body = await request.body();
  const spec = requestedSpec(body);
  const version = versionParameter(request, "node");
  await store.caughtUp();
  const { ID: id } = lookupNode(store.view, request.params.id ?? "");
  await store.update((tx) => {
    const node = existing(tx, id);
    if (node.Spec.Role === "manager" && spec.Role === "worker") refuseDemotion(tx, node, manager);
    if (spec.Role === "manager" && node.Role === "worker") refuseStock(node);
    tx.checkVersion(node, version);
    tx.put("nodes", { ...node, Spec: spec });
  });
  return { kind: "empty", status: 200 };
}

function requestedSpec(body: unknown): NodeSpec {
  try {
    return decodeNodeSpec(body);
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

function refuseDemotion(tx: Transaction, node: Node, manager: ActiveManager): void {
  const managers = [...tx.all("nodes")].filter((other) => other.Role === ("manager" satisfies NodeRole));
  if (managers.length === 1 && managers[0]?.ID === node.ID) {
    throw new ShoalError("FailedPrecondition", "attempting to demote the last manager of the swarm");
  }
  if (node.ManagerStatus && !canLose(node, manager)) {
    const text = "can't remove member from the raft: this would result in a loss of quorum";
    throw new ShoalError("FailedPrecondition", text);
  }
}

function refuseStock({ ID, Description }: Node): void {
  if (!Description || isOwn(Description)) return;
  const why = "runs a stock Docker Engine, which cannot be a manager of this swarm: only a node that runs shoal can";
  throw new ShoalError("FailedPrecondition", `node ${ID} ${why}`);
}

function existing(tx: Transaction, id: string): Node {
  const node = tx.get("nodes", id);
  if (!node) throw new ShoalError("NotFound", `node ${id} not found`);
  return node;
}

async function removeNode({ node: local }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { store } = requireManager(local);
  const force = looseFlag(request.query, "force");
  await store.caughtUp();
  const { ID: id } = lookupNode(store.view, request.params.id ?? "");
  await store.update((tx) => {
    const node = existing(tx, id);
    if (node.ManagerStatus) {
      const why =
        "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal";
      throw new ShoalError("FailedPrecondition", `node ${id} ${why}`);
    }
    if (!force && node.Status.State === "ready") {
      throw new ShoalError("FailedPrecondition", `node ${id} is not down and can't be removed`);
    }
    const cluster = tx.cluster();
    if (!cluster) throw new ShoalError("Internal", "could not fetch cluster object");
    tx.put("cluster", { ...cluster, RemovedNodes: removedNodes(cluster, node, tx.now) });
    orphanTasks(tx, id);
    tx.delete("nodes", id);
  });
  return { kind: "empty", status: 200 };
}

/** With this node, and without those whose certificate nobody would take any more. */
function removedNodes(cluster: Cluster, node: Node, now: string): Record<string, string> {
  const oldest = parseRfc3339(now) - rememberRemovedMs;
  const kept = Object.entries(cluster.RemovedNodes).filter(([, end]) => parseRfc3339(end) >= oldest);
  return { ...Object.fromEntries(kept), [node.ID]: certificateEnd(node) ?? now };
}

/** RFC 3339; undefined for a node that never got a certificate. */
function certificateEnd({ Certificate: certificate }: Node): string | undefined {
  if (!certificate?.Certificate) return undefined;
  const end = parseRfc3339(new X509Certificate(certificate.Certificate).validTo);
  return end === 0 ? undefined : rfc3339(end);
}

function orphanTasks(tx: Transaction, nodeId: string): void {
  for (const task of tx.tasksOfNode(nodeId)) {
    if (rank(task.Status.State) >= rank("complete")) continue;
    const Status = {
      Timestamp: tx.now,
      State: "orphaned" as const,
      Message: "Task belonged to a node that has been deleted",
    };
    tx.put("tasks", { ...task, Status });
  }
}
