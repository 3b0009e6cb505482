/**
 * Which swarm events a client's filters let through: the same rules as the Engine's for its own events, so that one
 * `filters` means one thing for both halves of a stream.
 */
import type { Filters } from "./filters.ts";
import type { SwarmEvent } from "./swarm-events.ts";

/** Filters that name an object, by id or name or the beginning of either, whatever its type. */
const objectFilters = [
  "daemon",
  "container",
  "plugin",
  "volume",
  "network",
  "node",
  "service",
  "secret",
  "config",
  "image",
];

export function includesEvent(filters: Filters, { Type, Action, Actor }: SwarmEvent): boolean {
  return (
    filters.matches("event", Action) &&
    filters.matches("type", Type) &&
    filters.matches("scope", "swarm") &&
    filters.matchesLabels("label", Actor.Attributes) &&
    objectFilters.every(
      (name) => filters.matchesPrefix(name, Actor.ID) || filters.matchesPrefix(name, Actor.Attributes.name ?? ""),
    )
  );
}
