/**
 * The swarm's part of the networks: the predefined ones (`host`, `bridge`, `none`), which the CLI asks for by name with
 * `scope=swarm` when a service is to use one. They are never listed, and everything about the Engine's own networks
 * passes through.
 */
import { passThrough } from "../engine/passthrough.ts";
import type { Network } from "../model/types.ts";
import { readBody } from "./body.ts";
import { type ApiContext, type ApiRequest, json, type Route } from "./context.ts";
import { notImplemented } from "./errors.ts";
import { lookupNetwork } from "./lookup.ts";
import { currentView, requireManager } from "./membership.ts";

export function networkRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/networks/:id", handle: (request) => inspect(context, request) },
    { method: "POST", path: "/networks/create", handle: (request) => create(context, request) },
  ];
}

async function inspect(context: ApiContext, request: ApiRequest) {
  const id = request.params.id ?? "";
  if (request.query.get("scope") === "swarm") {
    const view = await currentView(context.node);
    return json(200, inspected(lookupNetwork(view, id)));
  }
  // Without the scope a name is the Engine's own network's; an id of ours is nobody else's.
  const network = context.node.manager()?.store.view.network(id);
  if (network && !request.query.has("scope")) return json(200, inspected(network));
  return passOn(context, request);
}

async function create(context: ApiContext, request: ApiRequest) {
  if (request.headers.expect !== undefined) request.raw.response.writeContinue();
  const body = await readBody(request.raw.request);
  if (isForTheSwarm(body)) {
    requireManager(context.node);
    throw notImplemented("networks of the swarm (driver overlay, or scope swarm) are not supported yet");
  }
  return passOn(context, request, body);
}

/** Whether a create asks for a network of the swarm; what is no JSON is the Engine's to refuse. */
function isForTheSwarm(body: Buffer): boolean {
  let asked: unknown;
  try {
    asked = JSON.parse(body.toString("utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
  if (typeof asked !== "object" || asked === null) return false;
  const members = Object.entries(asked).map(([name, value]) => [name.toLowerCase(), value]);
  const { driver, scope, ingress } = Object.fromEntries(members) as Record<string, unknown>;
  return driver === "overlay" || scope === "swarm" || ingress === true;
}

function passOn(context: ApiContext, { raw }: ApiRequest, body?: Buffer) {
  passThrough(raw.request, raw.response, { socketPath: context.engineSocket, ...(body ? { body } : {}) });
  return { kind: "handled" } as const;
}

function inspected(network: Network) {
  return {
    Name: network.Name,
    Id: network.ID,
    Created: network.CreatedAt,
    Scope: "swarm",
    Driver: network.Driver,
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: null, Config: null },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: null,
    Options: null,
    Labels: network.Labels,
  };
}
