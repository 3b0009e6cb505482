/**
 * The Engine's own networks as this API needs them: which of them are this node's end of a network of the swarm (made
 * and removed by the node's data plane, and never shown as what they are), and who is on those.
 */
import { askEngine, type EngineAnswer } from "../engine/ask.ts";
import { isShoalError } from "../lib/errors.ts";
import { engineNetworkLabel } from "../model/networks.ts";
import type { ApiContext } from "./context.ts";
import { inDaemonsWords } from "./errors.ts";
import type { EngineContainers } from "./network-json.ts";

/** Of the Engine's answers, what is looked at; the rest stays as it came. */
export interface EngineNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Created?: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly Containers?: EngineContainers | null;
}

/** The id of the swarm's network that it is this node's end of. */
export function swarmIdOf(network: EngineNetwork): string | undefined {
  return network.Labels?.[engineNetworkLabel];
}

/** @throws DaemonError Unavailable where the Engine does not answer */
export async function ask(context: ApiContext, path: string, signal: AbortSignal): Promise<EngineAnswer> {
  try {
    return await askEngine(context.engineSocket, { method: "GET", path }, signal);
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

export function parsed<T>({ body }: EngineAnswer): T {
  return JSON.parse(body.toString("utf8")) as T;
}

/** The Engine's ends of networks of the swarm. @param swarmId of one only */
export async function engineEnds(context: ApiContext, signal: AbortSignal, swarmId?: string): Promise<EngineNetwork[]> {
  const label = swarmId === undefined ? engineNetworkLabel : `${engineNetworkLabel}=${swarmId}`;
  const filters = encodeURIComponent(JSON.stringify({ label: [label] }));
  const answer = await ask(context, `/networks?filters=${filters}`, signal);
  return answer.status === 200 ? (parsed<EngineNetwork[] | null>(answer) ?? []) : [];
}

/** The containers that this node has on the network; null where it takes no part in it, or its Engine is down. */
export async function containersOn(
  context: ApiContext,
  swarmId: string,
  signal: AbortSignal,
): Promise<EngineContainers | null> {
  try {
    const [end] = await engineEnds(context, signal, swarmId);
    if (!end) return null;
    const answer = await ask(context, `/networks/${encodeURIComponent(end.Id)}`, signal);
    return answer.status === 200 ? (parsed<EngineNetwork>(answer).Containers ?? null) : null;
  } catch (error) {
    if (isShoalError(error, "Unavailable")) return null; // all else that is asked for is known without it
    throw error;
  }
}

/** A network of the swarm as a worker can show it: it knows no more of it than its own Engine. */
export function workersNetworkJson(end: EngineNetwork) {
  return {
    Name: end.Name,
    Id: swarmIdOf(end),
    Created: end.Created,
    Scope: "swarm",
    Driver: "overlay",
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: null, Config: null },
    Internal: false,
    Attachable: false,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: end.Containers ?? null,
    Options: null,
    Labels: {},
  };
}
