/**
 * The networks of this node, by their namespaces. Those that are there at the start are kept as they are until the
 * managers have spoken of them; those that the node takes no part in go when no container is on them any more.
 */
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ContentChange } from "../model/network-state.ts";
import type { Commands } from "./commands.ts";
import { NetworkKernel, namespaces } from "./kernel.ts";
import { namespaceOf } from "./names.ts";
import { OverlayNetwork, type OverlayOptions } from "./overlay-network.ts";

/** What a message says of the networks. */
export interface NetworksOrder {
  readonly isComplete: boolean;
  readonly left: ReadonlySet<string>;
  /** By the network's id. */
  readonly contents: ReadonlyMap<string, readonly ContentChange[]>;
}

export interface NetworksOptions extends Omit<OverlayOptions, "namespace" | "found"> {
  readonly commands: Commands;
  readonly log: Logger;
}

export class Networks {
  readonly #options: NetworksOptions;
  readonly #byNamespace = new Map<string, OverlayNetwork>();
  #isComplete = false;

  constructor(options: NetworksOptions) {
    this.#options = options;
  }

  get(networkId: string): OverlayNetwork | undefined {
    return this.#byNamespace.get(namespaceOf(networkId));
  }

  [Symbol.iterator](): IterableIterator<OverlayNetwork> {
    return this.#byNamespace.values();
  }

  /** Whether anything of it may be needed here: before the first complete message of every one. */
  isNeeded(networkId: string): boolean {
    return !this.#isComplete || this.get(networkId) !== undefined;
  }

  /** Takes over what is there. */
  async adopt(): Promise<void> {
    const { commands, processId } = this.#options;
    for (const namespace of await namespaces(commands)) {
      if (this.#byNamespace.has(namespace)) continue;
      const cables = await new NetworkKernel(commands, namespace, processId).cables();
      this.#byNamespace.set(namespace, new OverlayNetwork({ ...this.#options, namespace, found: { cables } }));
    }
  }

  /** Does what a message says; networks side by side. Unavailable with all that has failed. */
  async apply({ isComplete, left, contents }: NetworksOrder): Promise<void> {
    const work: Promise<void>[] = [];
    const leaving = new Set([...left].map(namespaceOf));
    const spokenOf = new Set([...contents.keys()].map(namespaceOf));
    for (const network of this) {
      const isSpokenOf = spokenOf.has(network.namespace);
      if (leaving.has(network.namespace) || (isComplete && !isSpokenOf)) work.push(network.leave());
      // One that failed before is part of what the kernel has to be equal to.
      else if (network.problem !== undefined && !isSpokenOf) work.push(network.repair());
    }
    for (const [id, changes] of contents) {
      const network = this.#networkFor(id, changes);
      if (network) work.push(isComplete ? network.replace(changes) : network.update(changes));
    }
    const done = await Promise.allSettled(work);
    this.#isComplete ||= isComplete;
    this.#forgetGone();
    const failures = done.flatMap((one) => (one.status === "rejected" ? [messageOf(one.reason)] : []));
    if (failures.length > 0) throw new ShoalError("Unavailable", failures.join("; "));
  }

  /** Those that were left, and could not go then. */
  async collect(): Promise<void> {
    for (const network of this) if (network.isLeaving) await network.leave();
    this.#forgetGone();
  }

  /** Compares every one with the kernel; what differs is mended, and told. */
  async verify(): Promise<void> {
    for (const network of this) {
      if (!network.isReady) continue;
      const differences = await network.compare();
      if (differences.length === 0) continue;
      this.#options.log.warn("the kernel was not as the managers want it", { differences });
      await network.repair();
    }
  }

  /** All go, whoever is on them. */
  async removeAll(): Promise<void> {
    const { commands, processId } = this.#options;
    await Promise.all([...this].map((network) => network.leave()));
    for (const namespace of await namespaces(commands)) {
      await new NetworkKernel(commands, namespace, processId).remove();
    }
    this.#byNamespace.clear();
  }

  /** Undefined for a network that the node takes no part in. */
  #networkFor(id: string, changes: readonly ContentChange[]): OverlayNetwork | undefined {
    const known = this.get(id);
    if (known) return known;
    if (!changes.some(({ kind }) => kind === "network")) return undefined;
    const namespace = namespaceOf(id);
    const network = new OverlayNetwork({ ...this.#options, namespace });
    this.#byNamespace.set(namespace, network);
    return network;
  }

  #forgetGone(): void {
    for (const [namespace, { isGone }] of this.#byNamespace) if (isGone) this.#byNamespace.delete(namespace);
  }
}
