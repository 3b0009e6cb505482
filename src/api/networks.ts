/**
 * `/networks`: the swarm's networks among the Engine's own, as one API. What is the Engine's passes through as it came;
 * what is the swarm's is answered here, on a manager. Predefined networks (`host`, `bridge`, `none`) are known in the
 * swarm's scope, for services, and never listed.
 *
 * A network gets its subnet and its VXLAN id in the transaction that makes it, so two networks never share either.
 */
import { passThrough, passWhole } from "../engine/passthrough.ts";
import { ShoalError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { allocateNetwork } from "../manager/allocator/subnets.ts";
import { type AskedNetwork, decodeNetwork, isForTheSwarm } from "../model/validate-network.ts";
import type { Transaction } from "../store/store.ts";
import { readBody, requireSpecSize } from "./body.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json, type Route } from "./context.ts";
import { containersOn, workersNetworkJson } from "./engine-networks.ts";
import { DaemonError, inDaemonsWords } from "./errors.ts";
import { requireManager } from "./membership.ts";
import { inspectedNetworkJson } from "./network-json.ts";
import { findNetwork } from "./networks-find.ts";
import { listNetworks } from "./networks-list.ts";
import { pruneNetworks } from "./networks-prune.ts";
import { removeNetwork } from "./networks-remove.ts";
import { looseFlag } from "./query.ts";

export function networkRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/networks", handle: (request) => listNetworks(context, request) },
    { method: "POST", path: "/networks/create", handle: (request) => create(context, request) },
    { method: "POST", path: "/networks/prune", handle: (request) => pruneNetworks(context, request) },
    { method: "GET", path: "/networks/:id", handle: (request) => inspect(context, request) },
    { method: "DELETE", path: "/networks/:id", handle: (request) => remove(context, request) },
  ];
}

async function inspect(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { params, query, raw, signal } = request;
  const found = await findNetwork(context, {
    text: params.id ?? "",
    scope: query.get("scope") ?? "",
    path: raw.request.url ?? "/",
    signal,
  });
  switch (found.kind) {
    case "swarm": {
      const { view, network } = found;
      const containers = network.Allocated ? await containersOn(context, network.ID, signal) : null;
      return json(200, inspectedNetworkJson(view, network, containers, looseFlag(query, "verbose")));
    }
    case "end":
      return json(200, workersNetworkJson(found.end));
    case "engine":
      passWhole(raw.response, found.answer);
      return { kind: "handled" };
  }
}

async function create(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  if (request.headers.expect !== undefined) request.raw.response.writeContinue();
  const body = await readBody(request.raw.request);
  const asked = parseBody(body);
  const name = nameIn(asked);
  if (!isForTheSwarm(asked)) {
    // On a manager, also a network of the Engine must not be called as one of the swarm's.
    const known = context.node.manager()?.store.view.networkByName(name);
    if (known && !known.Predefined) throw nameTaken(name);
    passThrough(request.raw.request, request.raw.response, { socketPath: context.engineSocket, body });
    return { kind: "handled" };
  }
  requireSpecSize(body);
  const { store } = requireManager(context.node);
  if (predefinedNames.includes(name)) {
    throw new DaemonError("PermissionDenied", `operation is not permitted on predefined ${name} network`);
  }
  await store.caughtUp();
  if (store.view.networkByName(name)) throw nameTaken(name);
  const network = decoded(asked);
  const id = newId(context.random);
  await store.update((tx) => createNetwork(tx, id, network));
  return json(201, { Id: id, Warning: "" });
}

const predefinedNames = ["bridge", "default", "host", "none"];

/** What is no JSON is the Engine's to refuse. */
function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function nameIn(asked: unknown): string {
  if (typeof asked !== "object" || asked === null) return "";
  const name = Object.entries(asked).find(([member]) => member.toLowerCase() === "name")?.[1];
  return typeof name === "string" ? name : "";
}

function nameTaken(name: string): DaemonError {
  return new DaemonError("AlreadyExists", `network with name ${name} already exists`);
}

/** Throws what the manager refuses with its prefix, what JSON's decoder and the Engine's drivers refuse without. */
function decoded(asked: unknown): AskedNetwork {
  try {
    return decodeNetwork(asked);
  } catch (error) {
    const isDecoders = error instanceof Error && /^json: |^plugin /.test(error.message);
    throw isDecoders ? inDaemonsWords(error) : error;
  }
}

function createNetwork(tx: Transaction, id: string, { name, driver, labels, spec }: AskedNetwork): void {
  tx.takeLock(`network name ${name}`); // a name is free on every manager, or on none
  if (tx.networkByName(name)) throw nameTaken(name);
  const ingress = spec.Ingress ? tx.ingressNetwork() : undefined;
  if (ingress) throw new ShoalError("AlreadyExists", `ingress network (${ingress.ID}) is already present`);
  const cluster = tx.cluster();
  if (!cluster) throw new ShoalError("Internal", "could not fetch cluster object");
  // The row that it writes keeps two managers from making two ingress networks at once, too.
  const allocated = driver === "overlay" ? allocateNetwork(tx, cluster, spec) : undefined;
  tx.create("networks", {
    ID: id,
    Name: name,
    Labels: labels,
    Driver: driver,
    Predefined: false,
    Spec: spec,
    ...(allocated && { Allocated: allocated }),
  });
}

async function remove(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { params, raw, signal } = request;
  const text = params.id ?? "";
  const path = `/networks/${encodeURIComponent(text)}`;
  const found = await findNetwork(context, { text, scope: "", path, signal });
  switch (found.kind) {
    case "swarm": {
      const { store } = requireManager(context.node);
      await store.update((tx) => removeNetwork(tx, found.network.ID));
      return { kind: "empty", status: 204 };
    }
    case "end":
      requireManager(context.node);
      throw new DaemonError("NotFound", `network ${text} not found`);
    case "engine":
      passThrough(raw.request, raw.response, { socketPath: context.engineSocket });
      return { kind: "handled" };
  }
}
