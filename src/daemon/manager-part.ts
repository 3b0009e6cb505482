/**
 * What a manager has beyond any other node, running: its replica of the store, the manager on it, and the port (2377)
 * that nodes and other managers call.
 */
import type { ActiveManager } from "../api/context.ts";
import { type Clock, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { watchRemovedNodes } from "../manager/certificates/removed.ts";
import { Manager } from "../manager/manager.ts";
import { PeerConnection, type StoreTicket } from "../rpc/peers.ts";
import { createRpcServer, type RpcServer } from "../rpc/server.ts";
import type { NodeIdentity, WeightedPeer } from "../rpc/services.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import { findEtcd } from "../store/etcd/program.ts";
import { MovableReplica } from "../store/movable.ts";
import type { Election, Replica } from "../store/replica.ts";
import { Store } from "../store/store.ts";
import { parseAddress } from "./address.ts";
import { AutoLock } from "./auto-lock.ts";
import type { NodeKeys } from "./data-key.ts";
import { Fellowship } from "./fellowship.ts";
import { etcdOptions, openSingle, peerAddressOf, removeEtcd, removeSingle } from "./open-store.ts";
import type { NodeState } from "./state-file.ts";

export interface ManagerPartOptions {
  readonly dataDirectory: string;
  readonly keys: NodeKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly state: NodeState;
  /** As it is now. */
  readonly identity: () => NodeIdentity;
  /** Records on the disk where the store is from now on. */
  readonly saveStore: (store: "lmdb" | "etcd") => Promise<void>;
  /** The other managers have taken this one out of the store: it is of no more use. */
  readonly onRemoved: () => void;
  /** Ends a start that is under way. */
  readonly signal: AbortSignal;
}

/** The parts in the order in which they were opened: closed in the opposite one. */
interface Parts {
  readonly replica: MovableReplica<Replica>;
  readonly store: Store;
  readonly autoLock: AutoLock;
  readonly election: Election;
  readonly fellowship: Fellowship;
  readonly manager: Manager;
  readonly server: RpcServer;
  readonly unwatch: () => void;
}

/** A manager that moves its store first takes this long at most; then another is asked. */
const ticketLimitMs = 15_000;

export class ManagerPart {
  readonly #parts: Parts;

  private constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * Opens the store (a manager that is new enters it first), takes part in the election, starts the manager and
   * listens. Nothing stays open when it fails.
   */
  static async start(options: ManagerPartOptions): Promise<ManagerPart> {
    const { keys, clock, random, log, state, identity } = options;
    const { nodeId } = state;
    const closing: (() => Promise<void> | void)[] = [];
    try {
      const replica = new MovableReplica<Replica>(await openReplica(options));
      closing.push(() => replica.stop());
      const store = await Store.open(replica.backend, clock);
      closing.push(() => store.close());
      const autoLock = new AutoLock(store, keys, log);
      closing.push(() => autoLock.stop());
      await autoLock.sealed();
      const election = await replica.elect(store);
      closing.push(() => election.stop());
      const fellowship = new Fellowship({ ...options, dataKey: keys.dataKey, store, replica });
      const peers = () => managersIn(store, state);
      const manager = new Manager({ nodeId, store, election, clock, random, log, peers, fellows: fellowship });
      closing.push(() => manager.stop());
      fellowship.serveLogs(manager);
      const server = createRpcServer({ services: manager.services, peers: fellowship, identity: identity(), log });
      closing.push(() => server.close());
      const unwatch = watchRemovedNodes(store, (removed) => server.disconnect(removed));
      closing.push(unwatch);
      await manager.start();
      await listen(server, state.listenAddress);
      fellowship.announce();
      closing.push(() => fellowship.stop());
      return new ManagerPart({ replica, store, autoLock, election, fellowship, manager, server, unwatch });
    } catch (error) {
      for (const close of closing.reverse()) await close();
      throw error;
    }
  }

  get store(): Store {
    return this.#parts.store;
  }

  get leads(): boolean {
    return this.#parts.election.fence !== undefined;
  }

  active(): ActiveManager {
    const { manager, store, autoLock } = this.#parts;
    return {
      nodeId: manager.nodeId,
      store,
      sealed: () => autoLock.sealed(),
      logs: (selector, options, signal) => manager.logs(selector, options, signal),
      isReachable: (nodeId) => manager.reachability.isReachable(nodeId),
      watchReachability: (listener) => manager.reachability.listen(listener),
    };
  }

  loopReports(): LoopReport[] {
    return this.#parts.manager.reports();
  }

  setIdentity(identity: NodeIdentity): void {
    this.#parts.server.setIdentity(identity);
  }

  /** Takes this manager out of the store, where the others can go on without it. */
  async leaveStore(): Promise<void> {
    const { election, fellowship } = this.#parts;
    await election.resign();
    await fellowship.leaveTogether();
  }

  /** The port first, so that nobody is answered by half a manager. */
  async stop(): Promise<void> {
    const { replica, store, election, fellowship, manager, server, unwatch, autoLock } = this.#parts;
    unwatch();
    await server.close();
    await fellowship.stop();
    await manager.stop();
    await election.stop();
    await autoLock.stop();
    await store.close();
    await replica.stop();
  }
}

/** This manager's replica as it is on the disk; one that has none enters the others' store. */
async function openReplica(options: ManagerPartOptions): Promise<Replica> {
  const { dataDirectory, keys, clock, random, log, state, saveStore, onRemoved, signal } = options;
  const { nodeId } = state;
  const store = { dataDirectory, nodeId, clock, random, log };
  switch (state.store) {
    case "lmdb":
      await removeEtcd(store); // the rest of a move that was cut short
      return openSingle({ ...store, dataKey: keys.dataKey });
    case "etcd":
      await removeSingle(store); // likewise
      return await EtcdReplica.restart(etcdOptions({ ...store, dataKey: keys.dataKey }, state, onRemoved, signal));
    case undefined: {
      await findEtcd();
      const ticket = await askForTicket(options);
      const dataKey = Buffer.from(ticket.dataKey, "base64");
      await keys.beManager(dataKey, ticket.unlockKey);
      const replica = await EtcdReplica.join(etcdOptions({ ...store, dataKey }, state, onRemoved, signal), ticket);
      await saveStore("etcd");
      return replica;
    }
  }
}

/** From any of the managers that this node knows. */
async function askForTicket({ state, identity, clock, log }: ManagerPartOptions): Promise<StoreTicket> {
  let failure: unknown = new ShoalError("Unavailable", "no other manager is known");
  for (const { nodeId, address } of state.managers) {
    if (nodeId === state.nodeId || address === state.advertiseAddress) continue;
    const connection = new PeerConnection(address, identity());
    const ended = new AbortController();
    try {
      const request = { address: state.advertiseAddress, peerAddress: peerAddressOf(state) };
      return await within(clock, ticketLimitMs, connection.joinStore(request, ended.signal), () => {
        throw new ShoalError("DeadlineExceeded", "the manager did not let this one into the store in time");
      });
    } catch (error) {
      log.warn("a manager did not let this one in", { manager: address, error: messageOf(error) });
      failure = error;
    } finally {
      ended.abort();
      connection.close();
    }
  }
  throw failure;
}

async function listen(server: RpcServer, listenAddress: string): Promise<void> {
  const { host, port } = parseAddress(listenAddress);
  try {
    await server.listen(host, port);
  } catch (cause) {
    // Status 500 and these words are dockerd's.
    const text = `manager stopped: failed to listen on remote API address: ${messageOf(cause)}`;
    throw new ShoalError("Unknown", text, { cause });
  }
}

/** The managers that agents are to know: all that take part in the store, this one always. */
function managersIn(store: Store, { nodeId, advertiseAddress }: NodeState): WeightedPeer[] {
  const peers: WeightedPeer[] = [{ nodeId, address: advertiseAddress, weight: 1 }];
  for (const node of store.view.all("nodes")) {
    if (node.ID === nodeId || !node.ManagerStatus?.Addr) continue;
    peers.push({ nodeId: node.ID, address: node.ManagerStatus.Addr, weight: 1 });
  }
  return peers.sort((left, right) => (left.nodeId < right.nodeId ? -1 : 1));
}
