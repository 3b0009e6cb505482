/** The networks that every swarm has from the start: the Engine's own, as services may use them. */
import type { Network } from "./types.ts";

/** Marks a predefined network: hidden from lists, usable as a service's target. */
export const predefinedLabel = "com.docker.swarm.predefined";

const drivers = { bridge: "bridge", host: "host", none: "null" };

export function predefinedNetworks(newId: () => string): Omit<Network, "Version" | "CreatedAt" | "UpdatedAt">[] {
  return Object.entries(drivers).map(([Name, Driver]) => ({
    ID: newId(),
    Name,
    Labels: { [predefinedLabel]: "true" },
    Driver,
    Predefined: true,
  }));
}
