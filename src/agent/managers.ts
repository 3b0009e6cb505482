/** The managers that the agent may turn to, and which of them to try next. */
import type { Random } from "../lib/random.ts";
import type { WeightedPeer } from "../rpc/services.ts";

export class ManagerList {
  readonly #random: Random;
  #peers: readonly WeightedPeer[];
  /** Failures in a row, by address. */
  readonly #failures = new Map<string, number>();

  /** @param addresses host:port */
  constructor(addresses: readonly string[], random: Random) {
    this.#random = random;
    this.#peers = addresses.map((address) => ({ nodeId: "", address, weight: 1 }));
  }

  get peers(): readonly WeightedPeer[] {
    return this.#peers;
  }

  /** Exactly these from now on. An empty list would leave the agent alone for ever, and is not taken. */
  replace(peers: readonly WeightedPeer[]): void {
    if (peers.length === 0) return;
    this.#peers = peers;
    const known = new Set(peers.map(({ address }) => address));
    for (const address of this.#failures.keys()) if (!known.has(address)) this.#failures.delete(address);
  }

  /** One of those that failed least, at random; undefined when there are none at all. */
  pick(): string | undefined {
    const failures = this.#peers.map(({ address }) => this.#failures.get(address) ?? 0);
    const fewest = Math.min(...failures);
    const best = this.#peers.filter((_, index) => failures[index] === fewest);
    return best[Math.floor(this.#random.float() * best.length)]?.address;
  }

  failed(address: string): void {
    this.#failures.set(address, (this.#failures.get(address) ?? 0) + 1);
  }

  worked(address: string): void {
    this.#failures.delete(address);
  }
}
