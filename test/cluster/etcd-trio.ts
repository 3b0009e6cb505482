/** Three managers' replicas on etcd, on loopback addresses of this machine, and ways to hurt them. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { storeCertificates } from "../../src/ca/store-ca.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { eventually } from "../../src/playground/wait.ts";
import { EtcdReplica } from "../../src/store/etcd/etcd-replica.ts";
import type { Source } from "../../src/store/etcd/fill.ts";
import type { EtcdReplicaOptions } from "../../src/store/etcd/options.ts";
import type { Election } from "../../src/store/replica.ts";
import { Store } from "../../src/store/store.ts";

export interface Seat {
  readonly replica: EtcdReplica;
  readonly store: Store;
  readonly election: Election;
  readonly options: EtcdReplicaOptions;
}

export const dataKey = systemRandom.bytes(32);

/** A directory and a free port for each of them; `clean` ends all that was opened. */
export class Managers {
  readonly directory = mkdtempSync(join(tmpdir(), "shoal-etcd-"));
  readonly seats = new Map<number, Seat>();

  async options(number: number): Promise<EtcdReplicaOptions> {
    const open = this.seats.get(number)?.options;
    if (open) return open;
    return {
      directory: join(this.directory, `m${number}`),
      nodeId: `manager${number}`,
      peerAddress: `127.0.0.1:${await freePort()}`,
      dataKey,
      certificates: storeCertificates(() => systemClock.now()),
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    };
  }

  async found(number: number, source: Source = { revision: 0, records: [] }): Promise<Seat> {
    const options = await this.options(number);
    const replica = await EtcdReplica.found(options);
    await fill(replica, source);
    return this.sit(number, options, replica);
  }

  /** Joins through the seat `through`; `before`: as a node that was there already. */
  async join(number: number, through: Seat, before?: EtcdReplicaOptions): Promise<Seat> {
    const options = before ?? (await this.options(number));
    await through.replica.add(options.nodeId, options.peerAddress);
    return this.sit(number, options, await EtcdReplica.join(options, await through.replica.ticket()));
  }

  async trio(source?: Source): Promise<readonly [Seat, Seat, Seat]> {
    const first = await this.found(1, source);
    const second = await this.join(2, first);
    return [first, second, await this.join(3, second)];
  }

  async sit(number: number, options: EtcdReplicaOptions, replica: EtcdReplica): Promise<Seat> {
    const store = await Store.open(replica.backend, systemClock);
    const seat = { replica, store, election: await replica.elect(store), options };
    this.seats.set(number, seat);
    return seat;
  }

  async rise(number: number): Promise<void> {
    const seat = this.seats.get(number)!;
    this.seats.delete(number);
    await seat.election.stop();
    await seat.store.close();
    await seat.replica.stop();
  }

  async clean(): Promise<void> {
    await Promise.all([...this.seats.keys()].map((number) => this.rise(number)));
    rmSync(this.directory, { recursive: true });
  }
}

/** Makes a founded replica the store of a former single manager. */
export async function fill(replica: EtcdReplica, { revision, records }: Source): Promise<void> {
  const all = [...records];
  await replica.copy(all.map(({ table, object }) => ({ table, id: object.ID, object })));
  await replica.finish({ revision, records: all });
}

export function leaderOf(seats: readonly Seat[]): Seat | undefined {
  return seats.find(({ election }) => election.fence);
}

export async function until(what: string, probe: () => boolean): Promise<void> {
  await eventually({ what, limitMs: 15_000, intervalMs: 10, details: async () => "" }, async () => probe());
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Stands between a backend and its etcd, and loses what it is told to lose. */
export class Wire {
  readonly path: string;
  readonly #target: string;
  readonly #server: Server;
  readonly #pairs = new Set<{ client: Socket; etcd: Socket; held: Buffer[] | undefined }>();
  #refuses = false;

  private constructor(path: string, target: string) {
    this.path = path;
    this.#target = target;
    this.#server = createServer((client) => this.#accept(client));
  }

  static async open(path: string, target: string): Promise<Wire> {
    const wire = new Wire(path, target);
    await new Promise<void>((resolve) => wire.#server.listen(path, resolve));
    return wire;
  }

  /** Ends every connection and takes no new one. */
  cut(): void {
    this.#refuses = true;
    for (const { client, etcd } of this.#pairs) {
      client.destroy();
      etcd.destroy();
    }
  }

  mend(): void {
    this.#refuses = false;
  }

  /** Keeps what comes from the backend on the connections that there are, instead of handing it on. */
  hold(): void {
    for (const pair of this.#pairs) pair.held ??= [];
  }

  /** The backend sees its connections break; etcd still has its ends. */
  forsake(): void {
    for (const { client } of this.#pairs) client.destroy();
  }

  get heldBytes(): number {
    let bytes = 0;
    for (const { held } of this.#pairs) for (const part of held ?? []) bytes += part.length;
    return bytes;
  }

  /** Hands on what was held. */
  release(): void {
    for (const pair of this.#pairs) {
      for (const part of pair.held ?? []) pair.etcd.write(part);
      pair.held = undefined;
    }
  }

  /** Keeps etcd's answers back, for good. */
  muffle(): void {
    for (const { etcd } of this.#pairs) etcd.removeAllListeners("data").resume();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(client: Socket): void {
    if (this.#refuses) {
      client.destroy();
      return;
    }
    const pair = { client, etcd: connect(this.#target), held: undefined as Buffer[] | undefined };
    this.#pairs.add(pair);
    client.on("data", (part) => (pair.held ? pair.held.push(part) : pair.etcd.write(part)));
    client.on("close", () => !pair.held && pair.etcd.destroy());
    pair.etcd.on("data", (part) => client.write(part));
    pair.etcd.on("close", () => {
      client.destroy();
      this.#pairs.delete(pair);
    });
    for (const socket of [client, pair.etcd]) socket.on("error", () => socket.destroy());
  }
}
