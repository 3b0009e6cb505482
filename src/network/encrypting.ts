/** The encryption as all encrypted networks of the node need it together: it is one, with every node of any of them. */
import type { NetworkKey, NetworkNode } from "../model/network-state.ts";
import type { Networks } from "./networks.ts";
import type { NetworkEncryption } from "./parts.ts";

export class Encrypting {
  readonly #encryption: NetworkEncryption;
  readonly #networks: Networks;
  readonly #selfNodeId: string;
  readonly #address: string;
  /** Calls take turns, and each takes what is there when its turn comes. */
  #turn: Promise<void> = Promise.resolve();

  constructor(encryption: NetworkEncryption, networks: Networks, selfNodeId: string, address: string) {
    this.#encryption = encryption;
    this.#networks = networks;
    this.#selfNodeId = selfNodeId;
    this.#address = address;
  }

  /** Resolves when packets to every node of an encrypted network are. */
  apply(key: NetworkKey | undefined): Promise<void> {
    const done = this.#turn.then(() =>
      this.#encryption.apply({ address: this.#address, peers: [...this.#peers().values()], key }),
    );
    this.#turn = done.catch(() => undefined); // `done` is its caller's
    return done;
  }

  /** Another key, where there is anything to encrypt. */
  async renew(key: NetworkKey | undefined): Promise<void> {
    if (this.#tables().length > 0) await this.apply(key);
  }

  #tables() {
    return [...this.#networks].flatMap(({ table }) => (table?.network.encrypted ? [table] : []));
  }

  #peers(): Map<string, NetworkNode> {
    const peers = new Map<string, NetworkNode>();
    for (const { nodes } of this.#tables()) {
      for (const node of nodes.values()) if (node.nodeId !== this.#selfNodeId) peers.set(node.nodeId, node);
    }
    return peers;
  }
}
