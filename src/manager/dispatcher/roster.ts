/** The managers as agents are to know them: all of them, and how the sessions spread over them. */
import type { Node } from "../../model/types.ts";
import type { WeightedPeer } from "../../rpc/services.ts";
import { Spread } from "./spread.ts";

export class Roster {
  readonly #read: () => readonly WeightedPeer[];
  readonly #spread = new Spread();
  #known: readonly WeightedPeer[] | undefined;

  /** @param read the managers as the store has them; never empty */
  constructor(read: () => readonly WeightedPeer[]) {
    this.#read = read;
  }

  get #managers(): readonly WeightedPeer[] {
    this.#known ??= this.#read();
    return this.#known;
  }

  get size(): number {
    return this.#managers.length;
  }

  /** There is no other manager to which an agent could turn. */
  get isAlone(): boolean {
    return this.size === 1;
  }

  weighted(): readonly WeightedPeer[] {
    return this.#spread.weigh(this.#managers);
  }

  /** Some node's manager status is another one. */
  managersChanged(): void {
    this.#known = undefined;
  }

  /** A node as it is now, and thus which manager has its session. */
  observe(nodeId: string, node: Node | undefined): void {
    this.#spread.observe(nodeId, node?.Status.State === "down" ? undefined : node?.SessionManager);
  }
}
