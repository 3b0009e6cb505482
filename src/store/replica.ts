/**
 * A manager's replica of the store, where managers share it: the backend, which of them leads, and who takes part.
 * With one manager on LMDB there is nothing to share: `SingleReplica` leads from the start.
 */
import type { Backend } from "./backend.ts";
import type { Store } from "./store.ts";
import { type Fence, leadLock } from "./view.ts";

/** Which manager leads. The lead is a row in the store, so that every write of the leader can depend on it. */
export interface Election {
  /** This manager's lead; undefined while another one has it, or nobody. */
  readonly fence: Fence | undefined;
  /** Calls `listener` at each change of `fence`. Returns the way to stop. */
  watch(listener: (fence: Fence | undefined) => void): () => void;
  /** Hands the lead to another manager, where there is one that can take it. Resolves when it is gone, or can't go. */
  resign(): Promise<void>;
  stop(): Promise<void>;
}

export interface ReplicaMember {
  readonly nodeId: string;
  /** host:port that other managers' replicas reach it at; "" before it has started for the first time. */
  readonly peerAddress: string;
  /** False while it only learns: it does not count for the quorum yet. */
  readonly voter: boolean;
}

/** What a manager needs to enter the shared store; secret, for managers alone. */
export interface ReplicaTicket {
  readonly members: readonly ReplicaMember[];
  /** Base64 of the cluster's data key. */
  readonly dataKey: string;
  /** PEM: the CA of the store's own connections, and its key (each manager issues its own certificate from it). */
  readonly storeCA: { readonly certificate: string; readonly key: string };
}

export interface Replica {
  readonly backend: Backend;
  /** Begins to take part in the election; the store is the one opened on `backend`. */
  elect(store: Store): Promise<Election>;
  members(): Promise<readonly ReplicaMember[]>;
  /** Stops it; the data stays. */
  stop(): Promise<void>;
}

/** The replica of a manager that is alone: it leads as long as it runs. */
export class SingleReplica implements Replica {
  readonly backend: Backend;
  readonly #nodeId: string;

  constructor(backend: Backend, nodeId: string) {
    this.backend = backend;
    this.#nodeId = nodeId;
  }

  async elect(store: Store): Promise<Election> {
    const fence = await takeLead(store, this.#nodeId);
    return { fence, watch: () => () => {}, resign: async () => {}, stop: async () => {} };
  }

  async members(): Promise<readonly ReplicaMember[]> {
    return [{ nodeId: this.#nodeId, peerAddress: "", voter: true }];
  }

  async stop(): Promise<void> {}
}

/** Writes the lead's row: whoever led before can write nothing more under its fence. */
export async function takeLead(store: Store, nodeId: string): Promise<Fence> {
  const lead = await store.update((tx) => {
    const before = tx.get("locks", leadLock);
    return before
      ? tx.put("locks", { ...before, Holder: nodeId })
      : tx.create("locks", { ID: leadLock, Holder: nodeId });
  });
  return { nodeId, revision: lead.Version.Index };
}
