/**
 * A manager's replica on etcd: one etcd member, run by this manager as a child process, and the store's backend on it.
 * Other members are reached under mutual TLS with certificates of the store's own CA, whose key is kept here sealed
 * with the cluster's data key; this manager alone reaches the member's unix socket.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { writeFileDurably } from "../../lib/files.ts";
import type { Backend, BackendCommit } from "../backend.ts";
import { ValueCipher } from "../encryption.ts";
import type { Destination } from "../movable.ts";
import type { Election, Replica, ReplicaMember, ReplicaTicket } from "../replica.ts";
import type { Store } from "../store.ts";
import type { Bootstrap } from "./arguments.ts";
import { EtcdClient } from "./client.ts";
import { clientSocket, dataDirectory } from "./directory.ts";
import { EtcdBackend } from "./etcd-backend.ts";
import { Filling, type Source } from "./fill.ts";
import type { StatusResponse } from "./gen/etcd_pb.js";
import { RaftElection } from "./lead.ts";
import { Maintenance } from "./maintenance.ts";
import { Membership, urlOf } from "./membership.ts";
import type { EtcdReplicaOptions, KeyedCertificate } from "./options.ts";
import { endOrphan } from "./orphan.ts";
import { EtcdProcess } from "./process.ts";
import { findEtcd } from "./program.ts";

const startMs = 15_000;
const joinMs = 20_000;
const callMs = 1_000;
const pollMs = 20;
const caPlace = "store-ca";

/** `replica.json`: what a member needs beside etcd's data. */
interface ReplicaFile {
  readonly version: 1;
  readonly nodeId: string;
  readonly peerAddress: string;
  /** Base64 of the sealed JSON of the store CA and its key. */
  readonly storeCA: string;
}

export class EtcdReplica implements Replica, Destination {
  readonly #options: EtcdReplicaOptions;
  readonly #storeCA: KeyedCertificate;
  readonly #cipher: ValueCipher;
  readonly #client: EtcdClient;
  readonly #membership: Membership;
  readonly #maintenance: Maintenance;
  readonly #backend: EtcdBackend;
  #filling: Filling;
  readonly #removed = new AbortController();
  #process: EtcdProcess | undefined;

  private constructor(options: EtcdReplicaOptions, storeCA: KeyedCertificate) {
    const { nodeId, clock, random } = options;
    const log = options.log.child({ module: "store" });
    this.#options = { ...options, log };
    this.#storeCA = storeCA;
    this.#cipher = new ValueCipher(options.dataKey, random);
    const client = new EtcdClient(clientSocket(options.directory), clock);
    this.#client = client;
    this.#filling = new Filling(client, this.#cipher);
    const activePeers = () => client.activePeers();
    this.#membership = new Membership({ client, clock, log, activePeers, removed: this.#removed.signal });
    this.#maintenance = new Maintenance({ client, clock, log });
    const trouble = () => this.#process?.trouble;
    this.#backend = new EtcdBackend({ client, nodeId, cipher: this.#cipher, clock, random, log, trouble });
  }

  /**
   * The first member of a new, empty cluster; whatever was in the directory is removed. It must be filled (`copy`,
   * `finish`) before its backend can be loaded.
   * FailedPrecondition, naming the package, where the etcd program is not installed.
   */
  static async found(options: EtcdReplicaOptions): Promise<EtcdReplica> {
    await findEtcd();
    await EtcdReplica.destroy(options);
    const replica = new EtcdReplica(options, await options.certificates.newAuthority());
    const self = { name: options.nodeId, url: urlOf(options.peerAddress) };
    await replica.#start({ state: "new", members: [self] }, (status) => status.leader !== 0n, startMs);
    return replica;
  }

  /**
   * Enters a cluster: the manager that gave the ticket has called `add` for this node before. Whatever was in the
   * directory is removed. Resolves when this member has a vote, and with it all data; Unavailable when that takes
   * longer than 20 s.
   */
  static async join(options: EtcdReplicaOptions, ticket: ReplicaTicket): Promise<EtcdReplica> {
    await findEtcd();
    await EtcdReplica.destroy(options);
    const replica = new EtcdReplica(options, ticket.storeCA);
    const others = ticket.members.filter(({ peerAddress }) => peerAddress !== options.peerAddress);
    const members = [
      ...others.map(({ nodeId, peerAddress }, at) => ({ name: nodeId || `unnamed-${at}`, url: urlOf(peerAddress) })),
      { name: options.nodeId, url: urlOf(options.peerAddress) },
    ];
    await replica.#start({ state: "existing", members }, ({ isLearner }) => !isLearner, joinMs);
    return replica;
  }

  /** An existing member again. Resolves when its etcd answers, be there a quorum or not. */
  static async restart(options: EtcdReplicaOptions): Promise<EtcdReplica> {
    const { replica, file } = await EtcdReplica.#reopen(options);
    await replica.#start(replica.#alone(), () => true, startMs);
    if (file.peerAddress !== options.peerAddress) replica.#announceAddress();
    replica.#adoptLearners();
    return replica;
  }

  /** Makes a former member's data a cluster of this member alone: for a quorum that is lost for good. */
  static async forceNewCluster(options: EtcdReplicaOptions): Promise<EtcdReplica> {
    const { replica } = await EtcdReplica.#reopen(options);
    await replica.#start(replica.#alone(), (status) => status.leader === status.header!.memberId, startMs, true);
    await replica.#membership.becomeOnly(options.peerAddress);
    return replica;
  }

  /** Whether a directory holds a member. */
  static exists(directory: string): boolean {
    return existsSync(replicaPath(directory)) && existsSync(dataDirectory(directory));
  }

  /** Ends what may still run on the directory, and deletes it. */
  static async destroy(options: Pick<EtcdReplicaOptions, "directory" | "clock" | "log">): Promise<void> {
    await endOrphan(options.directory, options.clock, options.log);
    await rm(options.directory, { recursive: true, force: true });
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** Copies some of a single manager's store into this founded one, which is no store yet. */
  copy(writes: BackendCommit["writes"]): Promise<void> {
    return this.#filling.copy(writes);
  }

  /** Makes it a store, of these objects, which were all copied: its revisions go on from the source's. */
  async finish(source: Source): Promise<void> {
    this.#backend.filled(await this.#filling.finish(source), source.revision);
    this.#filling = new Filling(this.#client, this.#cipher);
  }

  elect(store: Store): Promise<Election> {
    const { nodeId, clock, log } = this.#options;
    return RaftElection.start({ store, nodeId, raft: this.#membership, clock, log });
  }

  async members(): Promise<readonly ReplicaMember[]> {
    const members = await this.#membership.members();
    return members.map(({ nodeId, peerAddress, voter }) => ({ nodeId, peerAddress, voter }));
  }

  /** For a manager that joins. `add` it first: it has to be among the members. */
  async ticket(): Promise<ReplicaTicket> {
    const { dataKey } = this.#options;
    return {
      members: await this.members(),
      dataKey: Buffer.from(dataKey).toString("base64"),
      storeCA: this.#storeCA,
    };
  }

  /**
   * Lets a node join as a learner, and looks after its vote in the background. Repeatable with the same node and
   * address. Unavailable where another one is still joining after 10 s, AlreadyExists where one that is there
   * has the address; Swarm's no-leader text without a quorum.
   */
  add(nodeId: string, peerAddress: string): Promise<void> {
    return this.#membership.add(nodeId, peerAddress);
  }

  /**
   * Takes a member out for good (a leader hands over first); nothing happens where there is none.
   * FailedPrecondition with Swarm's text where the rest would have no quorum.
   */
  remove(nodeId: string): Promise<void> {
    return this.#membership.remove(nodeId);
  }

  /** Ends the member, which hands its lead over; its data stays. */
  async stop(): Promise<void> {
    await this.#maintenance.stop();
    await this.#membership.stop();
    await this.#backend.close();
    this.#client.close();
    await this.#process?.stop();
  }

  /** Process id of the running etcd, for tests and `doctor`. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  static async #reopen(options: EtcdReplicaOptions): Promise<{ replica: EtcdReplica; file: ReplicaFile }> {
    const path = replicaPath(options.directory);
    const cipher = new ValueCipher(options.dataKey, options.random);
    let file: ReplicaFile;
    let storeCA: KeyedCertificate;
    try {
      file = JSON.parse(await readFile(path, "utf8"));
      storeCA = JSON.parse(cipher.open(Buffer.from(file.storeCA, "base64"), caPlace).toString());
    } catch (cause) {
      throw new ShoalError("DataLoss", `the store's ${path} cannot be read: ${messageOf(cause)}`, { cause });
    }
    return { replica: new EtcdReplica(options, storeCA), file };
  }

  #alone(): Bootstrap {
    const { nodeId, peerAddress } = this.#options;
    return { state: "existing", members: [{ name: nodeId, url: urlOf(peerAddress) }] };
  }

  async #start(
    bootstrap: Bootstrap,
    isReady: (status: StatusResponse) => boolean,
    limitMs: number,
    forceNewCluster = false,
  ): Promise<void> {
    const { directory, nodeId, peerAddress, certificates, clock, random, log } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await this.#save();
    this.#process = await EtcdProcess.start({
      directory,
      name: nodeId,
      peerUrl: urlOf(peerAddress),
      listenPeerUrl: urlOf(this.#options.listenAddress ?? peerAddress),
      certificate: await certificates.issue(this.#storeCA, nodeId, hostOf(peerAddress)),
      trustedCA: this.#storeCA.certificate,
      bootstrap,
      forceNewCluster,
      clock,
      random,
      log,
      onRemoved: () => this.#onRemoved(),
    });
    try {
      await this.#answers(isReady, limitMs);
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#maintenance.start();
  }

  async #answers(isReady: (status: StatusResponse) => boolean, limitMs: number): Promise<void> {
    const { clock, signal } = this.#options;
    const end = clock.now() + limitMs;
    let last: unknown;
    while (clock.now() < end && !this.#removed.signal.aborted && !signal?.aborted) {
      try {
        if (isReady(await this.#client.call(callMs, (options) => this.#client.maintenance.status({}, options)))) return;
        last = new Error("it has no leader, or no vote yet");
      } catch (error) {
        last = error;
      }
      await sleep(clock, pollMs);
    }
    const reason = this.#process?.lastFatal || messageOf(last);
    throw new ShoalError("Unavailable", `the store's etcd did not become ready: ${reason}`, { cause: last });
  }

  async #save(): Promise<void> {
    const { directory, nodeId, peerAddress } = this.#options;
    const storeCA = this.#cipher.seal(Buffer.from(JSON.stringify(this.#storeCA)), caPlace).toString("base64");
    const file: ReplicaFile = { version: 1, nodeId, peerAddress, storeCA };
    await writeFileDurably(replicaPath(directory), JSON.stringify(file), 0o600);
  }

  #adoptLearners(): void {
    const { log } = this.#options;
    this.#membership.adoptLearners().catch((error) => {
      log.debug("whether a manager waits for its vote is not known", { error: messageOf(error) }); // no quorum yet
    });
  }

  /** This machine's address has changed: the others are told as soon as there is a quorum. */
  #announceAddress(): void {
    const { peerAddress, log } = this.#options;
    this.#membership
      .announce(peerAddress)
      .catch((error) => log.warn("the other managers do not know the new address", { error: messageOf(error) }));
  }

  #onRemoved(): void {
    if (this.#removed.signal.aborted) return;
    this.#removed.abort();
    this.#backend.fail(new ShoalError("FailedPrecondition", "this node has been removed from the swarm's managers"));
    this.#options.onRemoved?.();
  }
}

function replicaPath(directory: string): string {
  return join(directory, "replica.json");
}

function hostOf(address: string): string {
  return new URL(`https://${address}`).hostname.replace(/^\[|\]$/g, "");
}
