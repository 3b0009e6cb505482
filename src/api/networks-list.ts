/**
 * `GET /networks`: the Engine's networks and the swarm's in one list. The Engine judges the filters and applies them to
 * its own; the same filters are applied here to the swarm's. Its ends of networks of the swarm are left out: on a
 * manager the networks themselves are in the list, on a worker they stand for them.
 */
import { passWhole } from "../engine/passthrough.ts";
import { attachmentsOf } from "../model/networks.ts";
import type { Network } from "../model/types.ts";
import type { View } from "../store/store.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json } from "./context.ts";
import { ask, type EngineNetwork, engineEnds, parsed, swarmIdOf, workersNetworkJson } from "./engine-networks.ts";
import { type Filters, parseAnyFilters } from "./filters.ts";
import { networkJson } from "./network-json.ts";
import { knownView } from "./networks-find.ts";

export async function listNetworks(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { raw, signal } = request;
  const answer = await ask(context, raw.request.url ?? "/networks", signal);
  if (answer.status !== 200 || context.node.info().LocalNodeState === "inactive") {
    passWhole(raw.response, answer);
    return { kind: "handled" };
  }
  const filters = parseAnyFilters(request.query.get("filters"));
  const engine = (parsed<EngineNetwork[] | null>(answer) ?? []).filter((one) => swarmIdOf(one) === undefined);
  const view = await knownView(context.node);
  return json(200, [...engine, ...(view ? ofManager(view, filters) : await ofWorker(context, filters, signal))]);
}

function ofManager(view: View, filters: Filters): object[] {
  const used = filters.has("dangling") ? networksInUse(view) : undefined;
  const shown: object[] = [];
  for (const network of view.all("networks")) {
    if (network.Predefined || network.Removed) continue;
    if (!matches(filters, { ...network, isUsed: used?.has(network.ID) })) continue;
    shown.push(networkJson(network));
  }
  return shown;
}

async function ofWorker(context: ApiContext, filters: Filters, signal: AbortSignal): Promise<object[]> {
  const ends = await engineEnds(context, signal);
  return ends
    .filter((end) =>
      matches(filters, { ID: swarmIdOf(end) ?? "", Name: end.Name, Driver: "overlay", Labels: {}, isUsed: true }),
    )
    .map(workersNetworkJson);
}

type Filtered = Pick<Network, "ID" | "Name" | "Driver" | "Labels"> & { readonly isUsed?: boolean | undefined };

function matches(filters: Filters, network: Filtered): boolean {
  return (
    matchesPattern(filters, "name", network.Name) &&
    matchesPattern(filters, "id", network.ID) &&
    filters.matches("driver", network.Driver) &&
    filters.matches("scope", "swarm") &&
    filters.matches("type", "custom") &&
    filters.matchesLabels("label", network.Labels) &&
    (network.isUsed === undefined || filters.flag("dangling") !== network.isUsed)
  );
}

/** How long and how involved a pattern may be: without groups and with this few repeats it can't take long. */
const longestPattern = 128;
const mostRepeats = 3;

/** The Engine's way with names and ids: equal to one of the values, or matched by one as a regular expression. */
function matchesPattern(filters: Filters, name: string, value: string): boolean {
  if (filters.matches(name, value)) return true;
  return filters.values(name).some((pattern) => {
    const repeats = pattern.match(/[*+?{]/g)?.length ?? 0;
    if (pattern.length > longestPattern || repeats > mostRepeats || pattern.includes("(")) return false;
    try {
      return new RegExp(pattern).test(value);
    } catch (error) {
      if (error instanceof SyntaxError) return false; // no expression, so only a name that it is not
      throw error;
    }
  });
}

/** Ids of networks that a service asks for, or on which somebody has an address. */
export function networksInUse(view: View): Set<string> {
  const used = new Set<string>();
  for (const service of view.all("services")) {
    for (const { Target = "" } of attachmentsOf(view.specOf(service).Spec)) used.add(Target);
    for (const { NetworkID = "" } of service.Endpoint?.VirtualIPs ?? []) used.add(NetworkID);
  }
  for (const network of view.all("networks")) {
    for (const _ of view.tasksOfNetwork(network.ID)) {
      used.add(network.ID);
      break;
    }
  }
  return used;
}
