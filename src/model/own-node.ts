/**
 * Telling our nodes from stock Docker Engines that have joined as workers: ours say so by an engine label, which every
 * Swarm tool shows and passes on without a thought.
 */
import type { NodeDescription } from "./types.ts";

const ownLabel = "shoal.node";

export function markOwn(description: NodeDescription): NodeDescription {
  const { Engine } = description;
  return { ...description, Engine: { ...Engine, Labels: { ...Engine?.Labels, [ownLabel]: "true" } } };
}

/** Whether the node runs shoal. */
export function isOwn(description: NodeDescription): boolean {
  return description.Engine?.Labels?.[ownLabel] === "true";
}
