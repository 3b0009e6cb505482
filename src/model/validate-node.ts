/** From the body of a node update to the spec that is stored. Refusals are in the Engine's own words. */
import { ShoalError } from "../lib/errors.ts";
import { nodeSpecShape } from "./service-shape.ts";
import type { NodeSpec } from "./types.ts";
import { conform } from "./validate-shape.ts";

const roles = ["worker", "manager"];
const availabilities = ["active", "pause", "drain"];

/** @throws ShoalError InvalidArgument */
export function decodeNodeSpec(body: unknown): NodeSpec {
  const spec = (conform(body, nodeSpecShape) ?? {}) as NodeSpec;
  const role = (spec.Role ?? "").toLowerCase();
  const availability = (spec.Availability ?? "").toLowerCase();
  if (!roles.includes(role)) refuse(`invalid Role: ${JSON.stringify(spec.Role ?? "")}`);
  if (!availabilities.includes(availability))
    refuse(`invalid Availability: ${JSON.stringify(spec.Availability ?? "")}`);
  spec.Role = role as NodeSpec["Role"];
  spec.Availability = availability as NodeSpec["Availability"];
  return spec;
}

function refuse(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}
