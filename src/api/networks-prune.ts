/**
 * `POST /networks/prune`: the Engine prunes its own networks, but for its ends of the swarm's (those are the data
 * plane's to remove), and on a manager the swarm's are pruned by the same filters. The ingress network never is.
 */
import { askEngine, type EngineAnswer } from "../engine/ask.ts";
import { passThrough, passWhole } from "../engine/passthrough.ts";
import { parseRfc3339 } from "../lib/clock.ts";
import { isShoalError } from "../lib/errors.ts";
import { engineNetworkLabel } from "../model/networks.ts";
import type { Network } from "../model/types.ts";
import type { Store } from "../store/store.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json } from "./context.ts";
import { type EngineNetwork, parsed, swarmIdOf } from "./engine-networks.ts";
import { inDaemonsWords } from "./errors.ts";
import { type Filters, parseAnyFilters } from "./filters.ts";
import { removeNetwork } from "./networks-remove.ts";

interface PruneReport {
  readonly NetworksDeleted?: readonly string[] | null;
}

export async function pruneNetworks(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { raw, query } = request;
  if (context.node.info().LocalNodeState === "inactive") {
    passThrough(raw.request, raw.response, { socketPath: context.engineSocket });
    return { kind: "handled" };
  }
  const filters = parseAnyFilters(query.get("filters"));
  const answer = await pruneEngine(context, request, filters);
  const manager = context.node.manager();
  if (answer.status !== 200 || !manager) {
    passWhole(raw.response, answer);
    return { kind: "handled" };
  }
  const { NetworksDeleted: engines } = parsed<PruneReport>(answer);
  const ours = await pruneSwarm(manager.store, filters, context.clock.now());
  const deleted = [...(engines ?? []), ...ours];
  return json(200, { NetworksDeleted: deleted.length > 0 ? deleted : null });
}

/**
 * The Engine leaves what has all of the labels in `label!`. So one label of ours keeps the ends where the user gives
 * none; where he does, the Engine only judges the filters, and what they mean is removed one by one.
 */
async function pruneEngine(context: ApiContext, request: ApiRequest, filters: Filters): Promise<EngineAnswer> {
  const isOne = !filters.has("label!");
  const more: Record<string, readonly string[]> = isOne
    ? { "label!": [engineNetworkLabel] }
    : { label: [`${engineNetworkLabel}=nobody`] };
  const path = `${pathOf(request)}?filters=${encodeURIComponent(engineFilters(filters, more))}`;
  const answer = await tell(context, "POST", path);
  if (answer.status !== 200 || isOne) return answer;
  const unused = encodeURIComponent(JSON.stringify({ dangling: ["true"], type: ["custom"] }));
  const found = await tell(context, "GET", `/networks?filters=${unused}`);
  if (found.status !== 200) return found;
  const before = createdBefore(filters, context.clock.now());
  const deleted: string[] = [];
  for (const network of parsed<EngineNetwork[]>(found)) {
    const { Id: id, Name: name, Labels: labels, Created: created = "" } = network;
    if (swarmIdOf(network) !== undefined || !isWanted(filters, labels ?? {}) || parseRfc3339(created) >= before)
      continue;
    // One that is in use by now stays.
    if ((await tell(context, "DELETE", `/networks/${id}`)).status === 204) deleted.push(name);
  }
  return { ...answer, body: Buffer.from(JSON.stringify({ NetworksDeleted: deleted })) };
}

/** Not ended with the client: what is pruned is pruned. */
async function tell({ engineSocket }: ApiContext, method: string, path: string): Promise<EngineAnswer> {
  try {
    return await askEngine(engineSocket, { method, path }, new AbortController().signal);
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

function pathOf({ raw }: ApiRequest): string {
  return (raw.request.url ?? "/networks/prune").replace(/\?.*$/s, "");
}

/** The filters with one more value, in the form of today. */
function engineFilters(filters: Filters, more: Readonly<Record<string, readonly string[]>>): string {
  const map: Record<string, Record<string, boolean>> = {};
  for (const name of new Set([...filters.names(), ...Object.keys(more)])) {
    const values = [...filters.values(name), ...(more[name] ?? [])];
    map[name] = Object.fromEntries(values.map((value) => [value, true]));
  }
  return JSON.stringify(map);
}

/** Names of the networks that went. */
async function pruneSwarm(store: Store, filters: Filters, now: number): Promise<string[]> {
  await store.caughtUp();
  const before = createdBefore(filters, now);
  const candidates: Network[] = [];
  for (const network of store.view.all("networks")) {
    if (network.Predefined || network.Removed || network.Spec?.Ingress) continue;
    if (isWanted(filters, network.Labels) && parseRfc3339(network.CreatedAt) < before) candidates.push(network);
  }
  const removed: string[] = [];
  for (const { ID: id, Name: name } of candidates) {
    try {
      await store.update((tx) => removeNetwork(tx, id));
      removed.push(name);
    } catch (error) {
      // In use, or gone meanwhile: nothing to be said.
      if (!isShoalError(error, "FailedPrecondition") && !isShoalError(error, "NotFound")) throw error;
    }
  }
  return removed;
}

/** As the Engine does it: every label of `label`, and not every one of `label!`. */
function isWanted(filters: Filters, labels: Readonly<Record<string, string>>): boolean {
  return filters.matchesLabels("label", labels) && !(filters.has("label!") && filters.matchesLabels("label!", labels));
}

/** The time that the `until` filter means; the end of time without one. The Engine has judged it. */
function createdBefore(filters: Filters, now: number): number {
  const [until] = filters.values("until");
  return until === undefined ? Infinity : timeOf(until, now);
}

const unitsMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds since the epoch of a duration before now (`1h30m`), a unix time, or a date. */
export function timeOf(text: string, now: number): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const parts = [...text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)];
  if (parts.length > 0 && parts.map(([part]) => part).join("") === text) {
    return now - parts.reduce((sum, [, count, unit]) => sum + Number(count) * unitsMs[unit ?? "s"]!, 0);
  }
  // A date without a time or a zone is one of UTC, as the Engine's on a machine that has no other zone.
  const time = Date.parse(/(Z|[+-]\d\d:\d\d)$/.test(text) || !text.includes("T") ? text : `${text}Z`);
  return Number.isNaN(time) ? -Infinity : time;
}
