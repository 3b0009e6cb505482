/**
 * Whom a node can reach on one network, and where: the addresses of other nodes' endpoints (on the ingress network also
 * those of the nodes themselves), each with the node that its packets go to. Nothing is learned from packets: what is
 * not here is not reachable.
 *
 * Invariant: after `plan` and its success told by `done`, the kernel has exactly what the managers say. Only addresses
 * that something happened to are looked at.
 */
import { addTo, removeFrom } from "../lib/sets.ts";
import type { NetworkChange, NetworkNode } from "../model/network-state.ts";

export interface Peer {
  readonly address: string;
  /** Address of its node, outside of the network. */
  readonly via: string;
}

export interface PeerPlan {
  /** New or elsewhere. */
  readonly set: readonly Peer[];
  /** Addresses that nobody has any more. */
  readonly remove: readonly string[];
}

export class Peers {
  readonly #selfNodeId: string;
  readonly #nodes = new Map<string, NetworkNode>();
  /** By what holds it (a task, or `node ID`): address and node. */
  readonly #holdings = new Map<string, { readonly address: string; readonly nodeId: string }>();
  /** Who holds an address, the last one last: it may go from one task to the next before the first is heard to be gone. */
  readonly #holders = new Map<string, Set<string>>();
  readonly #byNode = new Map<string, Set<string>>();
  readonly #touched = new Set<string>();
  readonly #programmed = new Map<string, string>();

  constructor(selfNodeId: string) {
    this.#selfNodeId = selfNodeId;
  }

  /** Takes a change of this network; those that tell of no address are nothing to it. */
  take(change: NetworkChange): void {
    switch (change.kind) {
      case "node": {
        const { nodeId, ownAddress } = change.node;
        this.#nodes.set(nodeId, change.node);
        for (const address of this.#byNode.get(nodeId) ?? []) this.#touched.add(address);
        this.#hold(nodeHolder(nodeId), ownAddress === undefined ? undefined : { address: ownAddress, nodeId });
        return;
      }
      case "remove-node":
        this.#nodes.delete(change.nodeId);
        for (const address of this.#byNode.get(change.nodeId) ?? []) this.#touched.add(address);
        this.#hold(nodeHolder(change.nodeId), undefined);
        return;
      case "endpoint": {
        const { taskId, address, nodeId } = change.endpoint;
        this.#hold(taskId, { address, nodeId });
        return;
      }
      case "remove-endpoint":
        this.#hold(change.taskId, undefined);
        return;
      default:
        return;
    }
  }

  /** What the kernel still lacks, and what it has too much. */
  plan(): PeerPlan {
    const set: Peer[] = [];
    const remove: string[] = [];
    for (const address of this.#touched) {
      const via = this.viaOf(address);
      const before = this.#programmed.get(address);
      if (via === before) continue;
      if (via === undefined) remove.push(address);
      else set.push({ address, via });
    }
    return { set, remove };
  }

  /** The kernel has been told. */
  done({ set, remove }: Partial<PeerPlan>): void {
    for (const { address, via } of set ?? []) this.#programmed.set(address, via);
    for (const address of remove ?? []) this.#programmed.delete(address);
    for (const address of this.#touched) {
      if (this.viaOf(address) === this.#programmed.get(address)) this.#touched.delete(address);
    }
  }

  /** The kernel has been made equal to `all`. */
  synchronised(): void {
    this.#programmed.clear();
    for (const { address, via } of this.all()) this.#programmed.set(address, via);
    this.#touched.clear();
  }

  /** Where packets to the address go; undefined for one on this node, or nobody's. */
  viaOf(address: string): string | undefined {
    const holder = [...(this.#holders.get(address) ?? [])].at(-1);
    const nodeId = holder === undefined ? undefined : this.#holdings.get(holder)?.nodeId;
    if (nodeId === undefined || nodeId === this.#selfNodeId) return undefined;
    return this.#nodes.get(nodeId)?.address;
  }

  /** Whether anybody has the address, here or elsewhere. */
  isHeld(address: string): boolean {
    return this.#holders.has(address);
  }

  /** Everybody who is to be reached on other nodes. */
  *all(): Generator<Peer> {
    for (const address of this.#holders.keys()) {
      const via = this.viaOf(address);
      if (via !== undefined) yield { address, via };
    }
  }

  #hold(holder: string, holding: { readonly address: string; readonly nodeId: string } | undefined): void {
    const before = this.#holdings.get(holder);
    if (before?.address === holding?.address && before?.nodeId === holding?.nodeId) return;
    if (before) {
      this.#touched.add(before.address);
      removeFrom(this.#holders, before.address, holder);
      // Another holder of the same address may be on the same node.
      const stays = [...(this.#holders.get(before.address) ?? [])].some(
        (other) => this.#holdings.get(other)?.nodeId === before.nodeId,
      );
      if (!stays) removeFrom(this.#byNode, before.nodeId, before.address);
    }
    if (!holding) {
      this.#holdings.delete(holder);
      return;
    }
    this.#touched.add(holding.address);
    this.#holdings.set(holder, holding);
    addTo(this.#holders, holding.address, holder);
    addTo(this.#byNode, holding.nodeId, holding.address);
  }
}

function nodeHolder(nodeId: string): string {
  return `node ${nodeId}`;
}
