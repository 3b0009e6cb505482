/**
 * A manager among the others: lets new ones into the store (the first time, it moves the store from LMDB into etcd),
 * takes those out that go, says in the store that this one is there, and brings logs together that come from nodes
 * whose sessions are with different managers.
 */

import { rm } from "node:fs/promises";
import { type Clock, pause } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { merge } from "../lib/merge.ts";
import type { Random } from "../lib/random.ts";
import type { Fellows, Manager } from "../manager/manager.ts";
import { type JoinStoreRequest, PeerConnection, type PeerService, type TaskSelector } from "../rpc/peers.ts";
import type { Caller, LogMessage, LogOptions, NodeIdentity } from "../rpc/services.ts";
import type { StoredRecord } from "../store/backend.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import { findEtcd } from "../store/etcd/process.ts";
import type { MovableReplica } from "../store/movable.ts";
import type { Replica, ReplicaTicket } from "../store/replica.ts";
import type { Store } from "../store/store.ts";
import { type TableName, tableNames } from "../store/tables.ts";
import { etcdOptions, storeDirectory } from "./open-store.ts";
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

  async joinStore(caller: Caller, { peerAddress }: JoinStoreRequest): Promise<ReplicaTicket> {
    const { store } = this.#options;
    const node = store.view.get("nodes", caller.nodeId);
    if (node?.Role !== "manager" || node.Spec.Role !== "manager") {
      throw new ShoalError("FailedPrecondition", "the node is not to be a manager");
    }
    const replica = await this.#shared();
    await replica.add(caller.nodeId, peerAddress);
    return await replica.ticket();
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

  /** Lines of the matching tasks from all nodes, whichever managers they have their sessions with. */
  async *allLogs(
    selector: TaskSelector,
    options: LogOptions,
    signal: AbortSignal,
  ): AsyncGenerator<LogMessage, void, void> {
    const { store, state } = this.#options;
    const manager = this.#requireManager();
    const others = [...store.view.all("nodes")].flatMap(({ ID, ManagerStatus }) =>
      ID !== state.nodeId && ManagerStatus?.Addr && manager.reachability.isReachable(ID) ? [ManagerStatus.Addr] : [],
    );
    const isElsewhere = (nodeId: string) => {
      const holder = store.view.get("nodes", nodeId)?.SessionManager;
      return holder !== undefined && holder !== state.nodeId && manager.reachability.isReachable(holder);
    };
    if (others.length === 0) {
      yield* manager.logBroker.logs(selector, options, signal);
      return;
    }
    const ended = new AbortController();
    const both = AbortSignal.any([signal, ended.signal]);
    // What is missing is said at the end, after the others' lines.
    let missing: unknown;
    const near = async function* () {
      try {
        yield* manager.logBroker.logs(selector, options, both, isElsewhere);
      } catch (error) {
        missing = error;
      }
    };
    try {
      yield* merge([near(), ...others.map((address) => this.#logsOf(address, selector, options, both))]);
    } finally {
      ended.abort(new ShoalError("Canceled", "nobody reads any more"));
    }
    if (missing !== undefined && !signal.aborted) throw missing;
  }

  async *#logsOf(
    address: string,
    selector: TaskSelector,
    options: LogOptions,
    signal: AbortSignal,
  ): AsyncGenerator<LogMessage, void, void> {
    const connection = this.connect(address);
    try {
      yield* connection.logs(selector, options, signal);
    } catch (error) {
      if (!signal.aborted) {
        this.#options.log.warn("the logs of another manager's nodes ended", {
          manager: address,
          error: messageOf(error),
        });
      }
    } finally {
      connection.close();
    }
  }

  /** What this manager's own nodes have: another manager asks. */
  async *logs(
    selector: TaskSelector,
    options: LogOptions,
    signal: AbortSignal,
  ): AsyncGenerator<LogMessage, void, void> {
    try {
      yield* this.#requireManager().logBroker.logs(selector, options, signal, () => true);
    } catch (error) {
      // What is missing is said once, by the manager that was asked first.
      if (!isShoalError(error, "Unknown")) throw error;
    }
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
      await replica.move(store, next, async () => {
        await next.fill({ revision: store.view.revision, records: everythingIn(store) });
        await saveStore("etcd");
      });
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
    await rm(storeDirectory(dataDirectory), { recursive: true, force: true });
    return founded;
  }
}

function* everythingIn(store: Store): Generator<StoredRecord> {
  for (const table of tableNames as readonly TableName[]) {
    for (const object of store.view.all(table)) yield { table, object };
  }
}
