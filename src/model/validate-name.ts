/** The rule for names of services and networks: one component of a DNS name. Texts as Swarm's. */
import { ShoalError } from "../lib/errors.ts";

/** Letters, digits, hyphens and underscores, the first and the last one a letter or a digit. */
const dnsComponent = /^[a-zA-Z0-9](?:[-_a-zA-Z0-9]*[a-zA-Z0-9])?$/;
const longestName = 63;

/** @throws ShoalError InvalidArgument with Swarm's text */
export function validateName(name: string): void {
  if (name === "") throw new ShoalError("InvalidArgument", "meta: name must be provided");
  if (!dnsComponent.test(name)) {
    throw new ShoalError("InvalidArgument", "name must be valid as a DNS name component");
  }
  if (name.length > longestName) throw new ShoalError("InvalidArgument", "name must be 63 characters or fewer");
}
