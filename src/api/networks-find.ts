/**
 * Which network a name in a path means: one of the swarm's or one of the Engine's. In the Engine's order: a full id, a
 * full name (of both kinds: ambiguous), the start of an id.
 */
import type { EngineAnswer } from "../engine/ask.ts";
import { isShoalError } from "../lib/errors.ts";
import type { Network } from "../model/types.ts";
import type { View } from "../store/store.ts";
import type { ApiContext, LocalNode } from "./context.ts";
import { ask, type EngineNetwork, engineEnds, parsed, swarmIdOf } from "./engine-networks.ts";
import { badRequest } from "./errors.ts";
import { lookupNetwork } from "./lookup.ts";
import { requireManager } from "./membership.ts";

export type FoundNetwork =
  | { readonly kind: "swarm"; readonly view: View; readonly network: Network }
  /** This node's end of a network of the swarm, on a node that is no manager. */
  | { readonly kind: "end"; readonly end: EngineNetwork }
  /** The Engine's own, or nobody's: the Engine's answer to the question says so. */
  | { readonly kind: "engine"; readonly answer: EngineAnswer };

/**
 * @param text a name, an id, or the start of one
 * @param scope "swarm" for the swarm's alone, "" for all; anything else is the Engine's affair
 * @param path the question to the Engine
 * @throws 404, 400 (ambiguous); 503 on a worker that is asked for the swarm's
 */
export async function findNetwork(
  context: ApiContext,
  { text, scope, path, signal }: { text: string; scope: string; path: string; signal: AbortSignal },
): Promise<FoundNetwork> {
  const view = await knownView(context.node);
  if (scope === "swarm") {
    if (view) return { kind: "swarm", view, network: lookupNetwork(view, text) };
    const ends = await engineEnds(context, signal);
    const end = ends.find((one) => swarmIdOf(one) === text) ?? ends.find(({ Name }) => Name === text);
    if (end) return { kind: "end", end };
    requireManager(context.node);
  }
  if (scope === "" && view) {
    const exact = view.network(text);
    if (exact && !exact.Removed) return { kind: "swarm", view, network: exact };
  }
  const answer = await ask(context, path, signal);
  const end = answer.status === 200 ? parsed<EngineNetwork>(answer) : undefined;
  const swarmId = end && swarmIdOf(end);
  if (scope !== "") {
    return swarmId === undefined ? { kind: "engine", answer } : { kind: "engine", answer: missing(answer, text) };
  }
  if (end && swarmId !== undefined) {
    // An end may outlive its network for a moment, and another network have the name by then.
    const known = view?.network(swarmId);
    const network = known && !known.Removed ? known : view && swarmNetwork(view, text);
    return view && network ? { kind: "swarm", view, network } : { kind: "end", end };
  }
  const network = view && swarmNetwork(view, text);
  if (!view || !network || end?.Id === text) return { kind: "engine", answer };
  if (end) {
    if (end.Name === text && network.Name === text) {
      throw badRequest(`network ${text} is ambiguous (2 matches found on name)`);
    }
    if (end.Name === text) return { kind: "engine", answer };
    if (network.Name !== text) throw badRequest(`network ${text} is ambiguous (2 matches found on ID prefix)`);
  }
  return { kind: "swarm", view, network };
}

/**
 * What this node knows of the swarm: the current state where it can be had, else (no quorum) the last one known, so that
 * the Engine's networks can be used all the same. Undefined on a node that is no manager.
 */
export async function knownView(node: LocalNode): Promise<View | undefined> {
  const manager = node.manager();
  if (!manager) return undefined;
  try {
    await manager.store.caughtUp();
  } catch (error) {
    if (!isShoalError(error)) throw error;
  }
  return manager.store.view;
}

/** By name or start of id; the predefined ones are the Engine's where no scope is asked for. */
function swarmNetwork(view: View, text: string): Network | undefined {
  try {
    const network = lookupNetwork(view, text);
    return network.Predefined ? undefined : network;
  } catch (error) {
    if (isShoalError(error, "NotFound")) return undefined;
    throw error;
  }
}

/** What the Engine would say if it did not have the network. */
function missing(answer: EngineAnswer, text: string): EngineAnswer {
  return {
    ...answer,
    status: 404,
    body: Buffer.from(`${JSON.stringify({ message: `network ${text} not found` })}\n`),
  };
}
