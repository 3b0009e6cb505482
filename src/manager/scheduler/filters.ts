/**
 * The filters that a node must pass to get a task, in Swarm's order, with Swarm's texts for why none did. A node is
 * counted under the first filter that it fails. To Swarm's text on nodes that take no tasks is added why they do not.
 */
import type { Node, Platform } from "../../model/types.ts";
import { matchesNode } from "./constraint.ts";
import type { Demand } from "./demand.ts";
import { claimGeneric } from "./generic.ts";
import type { NodeLoad } from "./load.ts";

interface Filter {
  /** @param ofService the service's active tasks on the node */
  readonly passes: (demand: Demand, load: NodeLoad, node: Node, ofService: number) => boolean;
  /** @param nodes `1 node` or `N nodes` */
  readonly text: (nodes: string) => string;
  /** In which of several ways the node fails it. */
  readonly way?: (node: Node) => string;
}

const filters: readonly Filter[] = [
  {
    passes: (_demand, _load, node) => isAvailable(node),
    text: (nodes) => `${nodes} not available for new tasks`,
    way: unavailability,
  },
  {
    passes: (demand, load) => hasResources(demand, load),
    text: (nodes) => `insufficient resources on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => hasPlugins(demand, node),
    text: (nodes) => `missing plugin on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => !demand.overlay || node.DataPath !== undefined,
    text: (nodes) => `overlay networks of this swarm not available on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => !demand.encrypted || node.DataPath?.publicKey !== undefined,
    text: (nodes) => `encryption of networks not available on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => !demand.ingress || (node.Attachments?.length ?? 0) > 0,
    text: (nodes) => `no address on the ingress network on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => matchesNode(demand.constraints, node),
    text: (nodes) => `scheduling constraints not satisfied on ${nodes}`,
  },
  {
    passes: (demand, _load, node) => hasPlatform(demand, node),
    text: (nodes) => `unsupported platform on ${nodes}`,
  },
  {
    passes: (demand, load) => hasPorts(demand, load),
    text: (nodes) => `host-mode port already in use on ${nodes}`,
  },
  {
    passes: (demand, _load, _node, ofService) => demand.maxReplicas === 0 || ofService < demand.maxReplicas,
    text: () => "max replicas per node limit exceed",
  },
];

/** Whether the node could take one more task, all filters considered. */
export function isFeasible(demand: Demand, load: NodeLoad, ofService: number): boolean {
  const { node } = load;
  return node !== undefined && filters.every(({ passes }) => passes(demand, load, node, ofService));
}

/** The filters that look only at the node itself, not at the tasks that it has. */
export function isEligible(demand: Demand, node: Node): boolean {
  return (
    isAvailable(node) &&
    hasPlugins(demand, node) &&
    hasNetworks(demand, node) &&
    matchesNode(demand.constraints, node) &&
    hasPlatform(demand, node)
  );
}

/** Whether the node takes part in the networks; a stock Engine takes part in none of ours. */
function hasNetworks(demand: Demand, { DataPath, Attachments }: Node): boolean {
  if (demand.overlay && !DataPath) return false;
  if (demand.encrypted && DataPath?.publicKey === undefined) return false;
  return !demand.ingress || (Attachments?.length ?? 0) > 0;
}

/**
 * Why none of the nodes can take one more task, most frequent reason first; "" without nodes.
 * @param ofService the service's active tasks on a node
 */
export function explain(demand: Demand, loads: Iterable<NodeLoad>, ofService: (load: NodeLoad) => number): string {
  const failed = new Map<Filter, Failures>(filters.map((filter) => [filter, { count: 0, ways: new Map() }]));
  for (const load of loads) {
    const { node } = load;
    if (!node) continue;
    const filter = filters.find(({ passes }) => !passes(demand, load, node, ofService(load)));
    if (!filter) continue;
    const failures = failed.get(filter)!;
    failures.count++;
    const way = filter.way?.(node);
    if (way !== undefined) failures.ways.set(way, (failures.ways.get(way) ?? 0) + 1);
  }
  return [...failed]
    .filter(([, { count }]) => count > 0)
    .sort(([, a], [, b]) => b.count - a.count)
    .map(([filter, failures]) => textOf(filter, failures))
    .join("; ");
}

/** The nodes that fail a filter. */
interface Failures {
  count: number;
  readonly ways: Map<string, number>;
}

function textOf(filter: Filter, { count, ways }: Failures): string {
  const text = filter.text(count === 1 ? "1 node" : `${count} nodes`);
  const listed = [...ways].sort(([, a], [, b]) => b - a).map(([way, times]) => `${times} ${way}`);
  return listed.length === 0 ? text : `${text}: ${listed.join(", ")}`;
}

function isAvailable(node: Node): boolean {
  return node.Status.State === "ready" && (node.Spec.Availability ?? "active") === "active";
}

function unavailability(node: Node): string {
  if (node.Status.State !== "ready") return node.Status.State;
  return node.Spec.Availability === "pause" ? "paused" : "drained";
}

/** Whether the node has unreserved what one more task reserves. */
export function hasResources(demand: Demand, load: NodeLoad): boolean {
  if (demand.nanoCpus > 0 && demand.nanoCpus > load.totalNanoCpus - load.nanoCpus) return false;
  if (demand.memoryBytes > 0 && demand.memoryBytes > load.totalMemoryBytes - load.memoryBytes) return false;
  if (demand.generic.length === 0) return true;
  const offered = load.node?.Description?.Resources?.GenericResources;
  return claimGeneric(demand.generic, offered, load.generic) !== undefined;
}

/** Whether none of the wanted host ports is taken on the node. */
export function hasPorts(demand: Demand, load: NodeLoad): boolean {
  const { hostPorts } = load;
  return demand.hostPorts.length === 0 || !hostPorts || !demand.hostPorts.some((port) => hostPorts.has(port));
}

function hasPlugins(demand: Demand, node: Node): boolean {
  if (demand.volumePlugins.length === 0 && demand.networkPlugins.length === 0 && !demand.logPlugin) return true;
  const engine = node.Description?.Engine;
  if (!engine) return true; // not an Engine: it has no plugins to speak of
  const plugins = engine.Plugins ?? [];
  const has = (type: string, name: string) =>
    plugins.some((plugin) => plugin.Type === type && (plugin.Name === name || plugin.Name === `${name}:latest`));
  if (!demand.volumePlugins.every((name) => has("Volume", name))) return false;
  if (!demand.networkPlugins.every((name) => has("Network", name))) return false;
  // An Engine that reports no log driver at all is too old to say which it has.
  return !demand.logPlugin || has("Log", demand.logPlugin) || !plugins.some(({ Type }) => Type === "Log");
}

function hasPlatform(demand: Demand, node: Node): boolean {
  if (demand.platforms.length === 0) return true;
  const own = node.Description?.Platform;
  if (!own) return false;
  return demand.platforms.some(
    (wanted) =>
      (!wanted.Architecture || architecture(wanted) === architecture(own)) && (!wanted.OS || wanted.OS === own.OS),
  );
}

/** Image manifests and machines have different names for the same processors. */
function architecture({ Architecture = "" }: Platform): string {
  if (Architecture === "x86_64") return "amd64";
  return Architecture === "aarch64" ? "arm64" : Architecture;
}
