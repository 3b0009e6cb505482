/**
 * A manager among the others: lets new ones into the store (the first time, it moves the store from LMDB into etcd),
 * takes those out that go, says in the store that this one is there, and asks the others for the logs of their nodes.
 */

import { type Clock, pause } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { Fellows, Manager } from "../manager/manager.ts";
import {
  type JoinStoreRequest,
  type LogsRequest,
  PeerConnection,
  type PeerService,
  type StoreTicket,
} from "../rpc/peers.ts";
import type { Caller, LogMessage, NodeIdentity } from "../rpc/services.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import { findEtcd } from "../store/etcd/program.ts";
import type { MovableReplica } from "../store/movable.ts";
import type { Replica } from "../store/replica.ts";
import type { Store } from "../store/store.ts";
import { etcdOptions, removeSingle } from "./open-store.ts";
import type { NodeState } from "./state-file.ts";

export interface FellowshipOptions {
  readonly dataDirectory: string;
  readonly dataKey: Uint8Array;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly state: NodeState;
  readonly store: Store;
  readonly replica: MovableReplica<Replica>;
  readonly identity: () => NodeIdentity;
  readonly saveStore: (store: "lmdb" | "etcd") => Promise<void>;
  readonly onRemoved: () => void;
}

const announceEveryMs = 1_000;

export class Fellowship implements PeerService, Fellows {
  readonly #options: FellowshipOptions;
  readonly #stopped = new AbortController();
  #manager: Manager | undefined;
  #sharing: Promise<EtcdReplica> | undefined;

  constructor(options: FellowshipOptions) {
    this.#options = options;
  }

  /** Whose log broker has the lines of the nodes that are here. */
  serveLogs(manager: Manager): void {
    this.#manager = manager;
  }

  async stop(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the manager stops"));
    await this.#sharing?.catch(() => undefined); // whoever asked for it has heard
  }

  connect(address: string): PeerConnection {
    return new PeerConnection(address, this.#options.identity());
  }

  async admits(): Promise<void> {
    await findEtcd();
  }

  async removeReplica(nodeId: string): Promise<void> {
    const { place } = this.#options.replica;
    if (place instanceof EtcdReplica) await place.remove(nodeId);
  }

  async joinStore(caller: Caller, { peerAddress }: JoinStoreRequest): Promise<StoreTicket> {
    const { store } = this.#options;
    const node = store.view.get("nodes", caller.nodeId);
    if (node?.Role !== "manager" || node.Spec.Role !== "manager") {
      throw new ShoalError("FailedPrecondition", "the node is not to be a manager");
    }
    const replica = await this.#shared();
    await replica.add(caller.nodeId, peerAddress);
    return { ...(await replica.ticket()), unlockKey: store.view.cluster()?.UnlockKey };
  }

  leaveStore(caller: Caller, forget: boolean): Promise<void> {
    return this.leave(caller.nodeId, forget);
  }

  /** Takes a manager out: from now on it is a worker that is gone, or (`forget`) it never was there. */
  async leave(nodeId: string, forget: boolean): Promise<void> {
    const { store } = this.#options;
    await this.removeReplica(nodeId);
    await store.update((tx) => {
      const node = tx.get("nodes", nodeId);
      if (!node) return;
      const { ManagerStatus: _, ...rest } = node;
      if (forget) tx.delete("nodes", nodeId);
      else tx.put("nodes", { ...rest, Role: "worker", Spec: { ...node.Spec, Role: "worker" } });
    });
  }

  /** This manager goes: another one takes it out, since who is out can't write that down. */
  async leaveTogether(): Promise<void> {
    const { store, state, log } = this.#options;
    for (const { ID, ManagerStatus } of [...store.view.all("nodes")]) {
      if (ID === state.nodeId || !ManagerStatus?.Addr || !this.#requireManager().reachability.isReachable(ID)) continue;
      const connection = this.connect(ManagerStatus.Addr);
      try {
        return await connection.leaveStore(false, this.#stopped.signal);
      } catch (error) {
        if (isShoalError(error, "FailedPrecondition")) throw error;
        log.warn("another manager did not help with leaving", { manager: ID, error: messageOf(error) });
      } finally {
        connection.close();
      }
    }
    throw new ShoalError("Unavailable", "no other manager can be reached");
  }

  /** Says in the store where this manager is, as soon as the store takes writes. */
  announce(): void {
    void this.#announce();
  }

  async #announce(): Promise<void> {
    const { clock, log, state, store } = this.#options;
    const { nodeId, advertiseAddress } = state;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        await store.update((tx) => {
          const node = tx.get("nodes", nodeId);
          if (node?.Role !== "manager" || node.ManagerStatus?.Addr === advertiseAddress) return;
          tx.put("nodes", { ...node, ManagerStatus: { Addr: advertiseAddress } });
        });
        return;
      } catch (error) {
        log.debug("the store does not take writes yet", { error: messageOf(error) });
      }
      await pause(clock, announceEveryMs, signal);
    }
  }

  async *logsOf(address: string, request: LogsRequest, signal: AbortSignal): AsyncGenerator<LogMessage, void, void> {
    const connection = this.connect(address);
    try {
      yield* connection.logs(request, signal);
    } finally {
      connection.close();
    }
  }

  ping(): number {
    return this.#manager?.inServiceMs ?? 0;
  }

  /** What this manager's own nodes have: another manager asks. */
  logs(request: LogsRequest, signal: AbortSignal): AsyncIterable<LogMessage> {
    return this.#requireManager().logBroker.logs(request, signal);
  }

  async withdrawTasks(taskIds: readonly string[], holdMs: number): Promise<void> {
    await this.#requireManager().networks.withdrawTasks(taskIds, holdMs);
  }

  #requireManager(): Manager {
    if (!this.#manager) throw new ShoalError("Unavailable", "the manager is starting");
    return this.#manager;
  }

  /** The replica that others can join: this manager moves its store there when the first one comes. */
  #shared(): Promise<EtcdReplica> {
    const { place } = this.#options.replica;
    if (place instanceof EtcdReplica) return Promise.resolve(place);
    this.#sharing ??= this.#share().finally(() => {
      this.#sharing = undefined;
    });
    return this.#sharing;
  }

  async #share(): Promise<EtcdReplica> {
    const { dataDirectory, log, state, store, replica, saveStore, onRemoved, clock } = this.#options;
    const options = etcdOptions({ ...this.#options, nodeId: state.nodeId }, state, onRemoved);
    let founded: EtcdReplica | undefined;
    try {
      const next = await EtcdReplica.found(options);
      founded = next;
      const start = clock.now();
      await replica.move(store, next, () => saveStore("etcd"));
      log.info("the store has moved into etcd", { durationMs: clock.now() - start });
    } catch (error) {
      // Until it has moved, nothing has happened.
      if (!founded || replica.place !== founded) {
        await saveStore("lmdb");
        await founded?.stop();
        await EtcdReplica.destroy(options);
      }
      throw error;
    }
    await removeSingle({ dataDirectory });
    return founded;
  }
}
