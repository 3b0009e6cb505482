/**
 * `POST /networks/prune`: the Engine prunes its own networks, but for its ends of the swarm's (those are the data
 * plane's to remove), and on a manager the swarm's are pruned by the same filters. The ingress network never is.
 */
import { askEngine } from "../engine/ask.ts";
import { passThrough, passWhole } from "../engine/passthrough.ts";
import { parseRfc3339 } from "../lib/clock.ts";
import { isShoalError } from "../lib/errors.ts";
import { engineNetworkLabel } from "../model/networks.ts";
import type { Network } from "../model/types.ts";
import type { Store } from "../store/store.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json } from "./context.ts";
import { parsed } from "./engine-networks.ts";
import { inDaemonsWords } from "./errors.ts";
import { Filters, parseAnyFilters } from "./filters.ts";
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
  const path = `${pathOf(request)}?filters=${encodeURIComponent(engineFilters(filters))}`;
  // Not ended with the client: what is pruned is pruned.
  const answer = await askEngine(context.engineSocket, { method: "POST", path }, new AbortController().signal).catch(
    (error) => {
      throw inDaemonsWords(error);
    },
  );
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

function pathOf({ raw }: ApiRequest): string {
  return (raw.request.url ?? "/networks/prune").replace(/\?.*$/s, "");
}

/** The filters with one more, in the form of today. */
function engineFilters(filters: Filters): string {
  const map: Record<string, Record<string, boolean>> = {};
  for (const name of filters.names()) {
    map[name] = Object.fromEntries(filters.values(name).map((value) => [value, true]));
  }
  map["label!"] = { ...map["label!"], [engineNetworkLabel]: true };
  return JSON.stringify(map);
}

/** Names of the networks that went. */
async function pruneSwarm(store: Store, filters: Filters, now: number): Promise<string[]> {
  await store.caughtUp();
  const before = createdBefore(filters, now);
  const candidates: Network[] = [];
  for (const network of store.view.all("networks")) {
    if (network.Predefined || network.Removed || network.Spec?.Ingress) continue;
    if (isWanted(filters, network) && parseRfc3339(network.CreatedAt) < before) candidates.push(network);
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

function isWanted(filters: Filters, { Labels: labels }: Network): boolean {
  if (!filters.matchesLabels("label", labels)) return false;
  return filters.values("label!").every((value) => {
    const one = new Filters(new Map([["label", [value]]]));
    return !one.matchesLabels("label", labels);
  });
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
