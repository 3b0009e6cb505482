/**
 * Placement constraints: `key==value` and `key!=value`, parsed once and matched against nodes. Pure. The texts of the
 * errors are Swarm's, because scripts match on them.
 *
 * Keys (in any case): node.id, node.hostname, node.ip (an address or a CIDR), node.role, node.platform.os,
 * node.platform.arch, node.labels.K, engine.labels.K (K as written). Values compare in any case and are literal: `*`
 * and `?` are allowed but mean themselves. A label that a node lacks is "". A key that is not known matches no node,
 * whatever its operator; an address that cannot be read likewise.
 */
import { BlockList, isIP } from "node:net";
import { ShoalError } from "../../lib/errors.ts";
import type { Node } from "../../model/types.ts";

const operators = ["==", "!="] as const;
const keyPattern = /^[a-z_][a-z0-9\-_.]+$/i;
/** ASCII only, with the characters that a regular expression or a glob would need. */
const valuePattern = /^[a-z0-9:\-_\t\n\f\r .*()?+[\]\\^$|/]+$/i;

const nodeLabelPrefix = "node.labels.";
const engineLabelPrefix = "engine.labels.";

/** What a constraint looks at on a node. */
type Subject =
  | { readonly kind: "id" | "hostname" | "role" | "os" | "architecture" }
  | { readonly kind: "address"; readonly range: BlockList }
  | { readonly kind: "node-label" | "engine-label"; readonly label: string }
  | { readonly kind: "nothing" };

export interface Constraint {
  /** As it was written, without spaces around the parts. */
  readonly text: string;
  /** False for `!=`. */
  readonly equal: boolean;
  /** In lower case. */
  readonly value: string;
  readonly subject: Subject;
}

/**
 * Reads constraints as a service's placement has them.
 * @throws ShoalError Unknown with Swarm's text for the first that is malformed
 */
export function parseConstraints(texts: readonly string[]): Constraint[] {
  return texts.map(parseConstraint);
}

function parseConstraint(text: string): Constraint {
  // "==" is looked for first, wherever it stands: so does Swarm.
  const operator = operators.find((candidate) => text.includes(candidate));
  if (!operator) throw new ShoalError("Unknown", `constraint expected one operator from ${operators.join(", ")}`);
  const at = text.indexOf(operator);
  const key = text.slice(0, at).trim();
  if (!keyPattern.test(key)) throw new ShoalError("Unknown", `key '${key}' is invalid`);
  const value = text.slice(at + operator.length).trim();
  if (!valuePattern.test(value)) throw new ShoalError("Unknown", `value '${value}' is invalid`);
  return {
    text: `${key}${operator}${value}`,
    equal: operator === "==",
    value: value.toLowerCase(),
    subject: subjectOf(key, value),
  };
}

function subjectOf(key: string, value: string): Subject {
  const name = key.toLowerCase();
  switch (name) {
    case "node.id":
      return { kind: "id" };
    case "node.hostname":
      return { kind: "hostname" };
    case "node.role":
      return { kind: "role" };
    case "node.platform.os":
      return { kind: "os" };
    case "node.platform.arch":
      return { kind: "architecture" };
    case "node.ip": {
      const range = rangeOf(value);
      return range ? { kind: "address", range } : { kind: "nothing" };
    }
    default:
      if (name.startsWith(nodeLabelPrefix) && name.length > nodeLabelPrefix.length) {
        return { kind: "node-label", label: key.slice(nodeLabelPrefix.length) };
      }
      if (name.startsWith(engineLabelPrefix) && name.length > engineLabelPrefix.length) {
        return { kind: "engine-label", label: key.slice(engineLabelPrefix.length) };
      }
      return { kind: "nothing" };
  }
}

/** The addresses that `text` (an address or a CIDR) means; undefined where it means none. */
function rangeOf(text: string): BlockList | undefined {
  const [address = "", prefix, ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return undefined;
  const family = version === 4 ? "ipv4" : "ipv6";
  const range = new BlockList();
  if (prefix === undefined) {
    range.addAddress(address, family);
    return range;
  }
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > (version === 4 ? 32 : 128)) return undefined;
  range.addSubnet(address, Number(prefix), family);
  return range;
}

/** Whether the node satisfies all of the constraints (none: always). */
export function matchesNode(constraints: readonly Constraint[], node: Node): boolean {
  return constraints.every((constraint) => matches(constraint, node));
}

function matches({ subject, value, equal }: Constraint, node: Node): boolean {
  switch (subject.kind) {
    case "id":
      return same(node.ID, value) === equal;
    case "hostname":
      return same(node.Description?.Hostname, value) === equal;
    case "role":
      return same(node.Role, value) === equal;
    case "os":
      return same(node.Description?.Platform?.OS, value) === equal;
    case "architecture":
      return same(node.Description?.Platform?.Architecture, value) === equal;
    case "address":
      return contains(subject.range, node.Status.Addr) === equal;
    case "node-label":
      return same(labelOf(node.Spec.Labels, subject.label), value) === equal;
    case "engine-label":
      return same(labelOf(node.Description?.Engine?.Labels, subject.label), value) === equal;
    case "nothing":
      return false;
  }
}

/** A label's value, "" where there is none (`constructor` and its like are ordinary names here). */
export function labelOf(labels: Readonly<Record<string, string>> | undefined, name: string): string {
  return labels && Object.hasOwn(labels, name) ? (labels[name] ?? "") : "";
}

function same(text: string | undefined, lowerCaseValue: string): boolean {
  return (text ?? "").toLowerCase() === lowerCaseValue;
}

function contains(range: BlockList, address: string | undefined): boolean {
  const version = isIP(address ?? "");
  return version !== 0 && range.check(address!, version === 4 ? "ipv4" : "ipv6");
}
