/**
 * What one node is told of its networks, and how far it has got.
 *
 * Invariants: after the changes of a message the node knows exactly what the index had when the message was taken, of
 * the networks that it takes part in. What happens while it is busy is noted by its id only, so that a node that is
 * slow, or does not read at all, costs no more than what there is to tell.
 */
import type { Clock, Timer } from "../../lib/clock.ts";
import type { ShoalError } from "../../lib/errors.ts";
import type { NetworkChange, NetworksMessage } from "../../model/network-state.ts";
import { Bell } from "../dispatcher/stream.ts";
import type { NetworkIndex, NetworkPart } from "./network-index.ts";

/** After a message so long passes until the next: what comes in a row goes together, and what comes alone, at once. */
const gatherMs = 5;

/** Ids of what may be different for the node; its parts are of no interest where the whole network is. */
interface Touched {
  readonly nodes: Set<string>;
  readonly endpoints: Set<string>;
  readonly services: Set<string>;
  network: boolean;
}

export interface NodeStreamOptions {
  readonly nodeId: string;
  readonly index: NetworkIndex;
  /** The store's, as the index has it. */
  readonly revision: () => number;
  readonly clock: Clock;
  /** Its messages' revisions are above this. */
  readonly after: number;
  /** Told of each network that the node knew and knows no more: it was told so, or the stream has ended. */
  readonly onForgotten: (networkId: string) => void;
}

interface Waiter {
  /** Undefined: that of the next message. */
  revision: number | undefined;
  readonly resolve: (isDone: boolean) => void;
}

/** Changes in the order in which they must take effect. */
class Changes {
  readonly networks: NetworkChange[] = [];
  readonly lostEndpoints: NetworkChange[] = [];
  readonly lostServices: NetworkChange[] = [];
  readonly lostNodes: NetworkChange[] = [];
  readonly nodes: NetworkChange[] = [];
  readonly endpoints: NetworkChange[] = [];
  readonly services: NetworkChange[] = [];
  readonly lostNetworks: (NetworkChange & { kind: "remove-network" })[] = [];

  /**
   * First goes what leads to those who go, then they themselves (their addresses may be others' by now), then come new
   * ones, and at last what leads to them.
   */
  inOrder(): NetworkChange[] {
    return [
      this.networks,
      this.lostServices,
      this.lostEndpoints,
      this.lostNodes,
      this.nodes,
      this.endpoints,
      this.services,
      this.lostNetworks,
    ].flat();
  }
}

export class NodeStream {
  readonly nodeId: string;
  readonly #index: NetworkIndex;
  readonly #revision: () => number;
  readonly #clock: Clock;
  readonly #onForgotten: (networkId: string) => void;
  readonly #bell = new Bell();
  readonly #touched = new Map<string, Touched>();
  /** Networks that the node knows. */
  readonly #sent = new Set<string>();
  /** Networks that it was told to leave, with the revision of that, until it has done so. */
  readonly #left = new Map<string, number>();
  #waiters: Waiter[] = [];
  #isComplete = false;
  /** Revision of the key that the node has. */
  #key: number | undefined;
  #keyTouched = false;
  #last: number;
  #first = 0;
  #applied = 0;
  /** A message has just been taken. */
  #gathers = false;
  #endedBy: ShoalError | undefined;

  constructor({ nodeId, index, revision, clock, after, onForgotten }: NodeStreamOptions) {
    this.nodeId = nodeId;
    this.#index = index;
    this.#revision = revision;
    this.#clock = clock;
    this.#last = after;
    this.#onForgotten = onForgotten;
  }

  /** Of the last message. */
  get revision(): number {
    return this.#last;
  }

  /** Whether it has been told of the network, and not that it is no longer its own. */
  knows(networkId: string): boolean {
    return this.#sent.has(networkId);
  }

  /** Whether the network may be in the node's kernel, or is to be. */
  concerns(networkId: string): boolean {
    // What it had before the first message was applied, nobody knows.
    if (!this.#isComplete || this.#applied < this.#first) return true;
    return this.#sent.has(networkId) || this.#left.has(networkId) || this.#index.takesPart(this.nodeId, networkId);
  }

  /** Something in the network is different. */
  touch(networkId: string, part: NetworkPart, id: string): void {
    if (!this.#isComplete) return; // the first message has it all
    let touched = this.#touched.get(networkId);
    if (!touched) {
      touched = { nodes: new Set(), endpoints: new Set(), services: new Set(), network: false };
      this.#touched.set(networkId, touched);
    }
    switch (part) {
      case "network":
        touched.network = true;
        break;
      case "node":
        touched.nodes.add(id);
        break;
      case "endpoint":
        touched.endpoints.add(id);
        break;
      case "service":
        touched.services.add(id);
        break;
    }
    this.#bell.ring();
  }

  touchKey(): void {
    this.#keyTouched = true;
    this.#bell.ring();
  }

  /** The node's kernel is at the revision of a message. */
  acknowledge(revision: number): void {
    this.#applied = Math.max(this.#applied, Math.min(revision, this.#last));
    for (const [id, left] of this.#left) if (left <= this.#applied) this.#left.delete(id);
    this.#settle();
  }

  /** True when the node has done all that has been noted for it until now; false when the stream ends before. */
  caughtUp(): Promise<boolean> {
    if (this.#endedBy) return Promise.resolve(false);
    const revision = this.#hasNews() ? undefined : this.#last;
    if (revision !== undefined && revision <= this.#applied) return Promise.resolve(true);
    return new Promise((resolve) => this.#waiters.push({ revision, resolve }));
  }

  /** Its messages end with this error. */
  end(error: ShoalError): void {
    if (this.#endedBy) return;
    this.#endedBy = error;
    for (const { resolve } of this.#waiters) resolve(false);
    this.#waiters = [];
    for (const id of this.#sent) this.#onForgotten(id);
    this.#bell.ring();
  }

  /** Until the signal aborts (a plain end), or `end` (its error). For one reader. */
  async *messages(signal: AbortSignal): AsyncGenerator<NetworksMessage, void, void> {
    const onAbort = () => this.#bell.ring();
    signal.addEventListener("abort", onAbort, { once: true });
    let timer: Timer | undefined;
    try {
      while (!signal.aborted) {
        if (this.#endedBy) throw this.#endedBy;
        const message = this.#gathers ? undefined : this.#take();
        if (!message) {
          await this.#bell.heard();
          continue;
        }
        this.#gathers = true;
        timer = this.#clock.after(gatherMs, () => {
          this.#gathers = false;
          if (this.#hasNews()) this.#bell.ring();
        });
        yield message;
      }
    } finally {
      timer?.cancel();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #hasNews(): boolean {
    return !this.#isComplete || this.#touched.size > 0 || this.#keyTouched;
  }

  #take(): NetworksMessage | undefined {
    if (!this.#hasNews()) return undefined;
    const type = this.#isComplete ? "incremental" : "complete";
    const changes = new Changes();
    if (type === "complete") {
      this.#isComplete = true;
      for (const id of this.#index.networkIds()) if (this.#index.takesPart(this.nodeId, id)) this.#join(id, changes);
    } else for (const [id, touched] of this.#touched) this.#look(id, touched, changes);
    this.#touched.clear();
    const list = [...this.#newKey(), ...changes.inOrder()];
    this.#keyTouched = false;
    if (list.length === 0 && type === "incremental") {
      this.#number(this.#last);
      this.#settle();
      return undefined;
    }
    // A withdrawal is news without a commit.
    this.#last = Math.max(this.#revision(), this.#last + 1);
    if (type === "complete") this.#first = this.#last;
    for (const { networkId } of changes.lostNetworks) this.#left.set(networkId, this.#last);
    this.#number(this.#last);
    return { type, revision: this.#last, changes: list };
  }

  #look(id: string, touched: Touched, changes: Changes): void {
    const knows = this.#sent.has(id);
    if (!this.#index.takesPart(this.nodeId, id)) {
      if (!knows) return;
      this.#sent.delete(id);
      this.#onForgotten(id);
      changes.lostNetworks.push({ kind: "remove-network", networkId: id });
    } else if (!knows) this.#join(id, changes);
    else this.#update(id, touched, changes);
  }

  #join(networkId: string, changes: Changes): void {
    const { state, nodes, endpoints, services } = this.#index.network(networkId)!;
    this.#sent.add(networkId);
    changes.networks.push({ kind: "network", network: state! });
    for (const node of nodes.values()) changes.nodes.push({ kind: "node", networkId, node });
    for (const endpoint of endpoints.values()) changes.endpoints.push({ kind: "endpoint", networkId, endpoint });
    for (const service of services.values()) changes.services.push({ kind: "service", networkId, service });
  }

  #update(networkId: string, touched: Touched, changes: Changes): void {
    const { state, nodes, endpoints, services } = this.#index.network(networkId)!;
    if (touched.network) changes.networks.push({ kind: "network", network: state! });
    for (const nodeId of touched.nodes) {
      const node = nodes.get(nodeId);
      if (node) changes.nodes.push({ kind: "node", networkId, node });
      else changes.lostNodes.push({ kind: "remove-node", networkId, nodeId });
    }
    for (const taskId of touched.endpoints) {
      const endpoint = endpoints.get(taskId);
      if (endpoint) changes.endpoints.push({ kind: "endpoint", networkId, endpoint });
      else changes.lostEndpoints.push({ kind: "remove-endpoint", networkId, taskId });
    }
    for (const serviceId of touched.services) {
      const service = services.get(serviceId);
      if (service) changes.services.push({ kind: "service", networkId, service });
      else changes.lostServices.push({ kind: "remove-service", networkId, serviceId });
    }
  }

  /** The key, where the node has to have it and has not. */
  *#newKey(): Iterable<NetworkChange> {
    const { key } = this.#index;
    if (!key || key.revision === this.#key) return;
    if (![...this.#sent].some((id) => this.#index.network(id)?.state?.encrypted)) return;
    this.#key = key.revision;
    yield { kind: "key", key };
  }

  /** Who has waited for the next message waits for this one. */
  #number(revision: number): void {
    for (const waiter of this.#waiters) waiter.revision ??= revision;
  }

  #settle(): void {
    const waiting = this.#waiters;
    this.#waiters = waiting.filter(({ revision }) => revision === undefined || revision > this.#applied);
    for (const { revision, resolve } of waiting) {
      if (revision !== undefined && revision <= this.#applied) resolve(true);
    }
  }
}
