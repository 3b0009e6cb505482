/** The managers that the agent may turn to, and which of them to try next. */
import type { Random } from "../lib/random.ts";
import type { WeightedPeer } from "../rpc/services.ts";

export class ManagerList {
  readonly #random: Random;
  #peers: readonly WeightedPeer[];
  /** Failures in a row, by address. */
  readonly #failures = new Map<string, number>();
  /** The one that has worked since the last failure. */
  #working: string | undefined;

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

  /** One of those that failed least, at random by their weights; undefined when there are none at all. */
  pick(): string | undefined {
    const fewest = this.#fewestFailures();
    const best = this.#peers.filter(({ address }) => this.#failuresOf(address) === fewest);
    let left = this.#random.float() * best.reduce((sum, peer) => sum + positive(peer.weight), 0);
    return best.find((peer) => (left -= positive(peer.weight)) < 0)?.address ?? best.at(-1)?.address;
  }

  /** True when another one has failed less often, so that it can be tried without a pause. */
  failed(address: string): boolean {
    if (address === this.#working) this.#forgive(address);
    this.#working = undefined;
    const failures = this.#failuresOf(address) + 1;
    this.#failures.set(address, failures);
    return this.#fewestFailures() < failures;
  }

  worked(address: string): void {
    this.#failures.delete(address);
    this.#working = address;
  }

  /** What the others did before that one worked is old: the best of them is as good as new. */
  #forgive(address: string): void {
    const others = this.#peers.filter((peer) => peer.address !== address);
    const fewest = Math.min(...others.map((peer) => this.#failuresOf(peer.address)));
    for (const peer of others) this.#failures.set(peer.address, this.#failuresOf(peer.address) - fewest);
  }

  #failuresOf(address: string): number {
    return this.#failures.get(address) ?? 0;
  }

  #fewestFailures(): number {
    return Math.min(...this.#peers.map(({ address }) => this.#failuresOf(address)));
  }
}

/** A stock manager may send a weight that is no share. */
function positive(weight: number): number {
  return Math.max(1, weight);
}
