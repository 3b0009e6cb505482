/**
 * The node's resolver: what containers on the swarm's networks ask for names. It has a socket in the namespace of each
 * network, at the node's own end of it; the socket and the asker's address say which task asks, and so which networks'
 * names it may know.
 *
 * Known names are answered here, also with nothing (a type that they have no record of), and are never asked outside;
 * unknown ones go to the task's own servers, else to the node's. Names of the ingress network are nobody's: every
 * published service is on it, and it must not connect what the user has kept apart.
 * Differs from Swarm in the time to live: an address is right now, and nobody is told to keep it for ten minutes.
 */
import type { Socket } from "node:dgram";
import type { Socket as Connection, Server } from "node:net";
import { type Answer, decode, encode, type Packet, type Question } from "dns-packet";
import type { Clock } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import type { NetworkTable, TableChanges } from "../table.ts";
import { framed, Unframer } from "./frames.ts";
import { NetworkNames } from "./names.ts";
import { type BoundSockets, bindInNamespace } from "./sockets.ts";
import { type Protocol, Upstream } from "./upstream.ts";

/** A task's own settings (`--dns`, `--dns-search`). */
export interface TaskDns {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
}

export interface ResolverOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The node's own servers, read when they are needed. */
  readonly nodeServers: () => Promise<readonly string[]>;
  /** Of a task of this node; undefined where it has none, or is not known. */
  readonly taskDns: (taskId: string) => TaskDns | undefined;
  /** Opens the sockets of a network; other than the real one in tests. */
  readonly bind?: (namespace: string, address: string) => Promise<BoundSockets>;
  readonly upstream?: Pick<Upstream, "ask">;
}

interface ServedNetwork {
  readonly names: NetworkNames;
  name: string;
  ingress: boolean;
  internal: boolean;
  sockets?: BoundSockets;
  /** Where the sockets are bound. */
  address?: string;
  readonly connections: Set<Connection>;
}

const port = 53;
const timeToLiveSeconds = 1;
/** Without EDNS a UDP answer has at most so many bytes; with it no more than fits a packet anywhere. */
const plainUdpBytes = 512;
const largestUdpBytes = 1232;
const noSuchName = 3;
const serverFailure = 2;
const authoritative = 1 << 10;
const recursionDesired = 1 << 8;
const recursionAvailable = 1 << 7;
const truncated = 1 << 9;
/** A container that keeps connections open and says nothing must not use up the node's descriptors. */
const mostConnections = 100;
const idleConnectionMs = 10_000;

export class Resolver {
  readonly #options: ResolverOptions;
  readonly #upstream: Pick<Upstream, "ask">;
  readonly #networks = new Map<string, ServedNetwork>();
  #closed = false;

  constructor(options: ResolverOptions) {
    this.#options = options;
    this.#upstream = options.upstream ?? new Upstream(options.clock);
  }

  /** From now on the network's names lead where its table says. @param changes undefined: all of it is new */
  update(table: NetworkTable, changes: TableChanges | undefined): void {
    const { id, name, ingress, internal } = table.network;
    const served = this.#network(id);
    Object.assign(served, { name: name.toLowerCase(), ingress, internal });
    served.names.update(table, changes);
  }

  /**
   * Answers in the namespace at the address. Repeatable; another address takes the place of the first.
   * @param namespace path of its file
   */
  async serve(networkId: string, namespace: string, address: string): Promise<void> {
    const served = this.#network(networkId);
    if (this.#closed || (served.sockets && served.address === address)) return;
    this.#close(served);
    const bind = this.#options.bind ?? ((file, at) => bindInNamespace(file, at, port));
    const sockets = await bind(namespace, address);
    if (this.#closed || this.#networks.get(networkId) !== served) {
      sockets.udp.close();
      sockets.tcp.close();
      return;
    }
    served.sockets = sockets;
    served.address = address;
    this.#listenUdp(networkId, served, sockets.udp);
    this.#listenTcp(networkId, served, sockets.tcp);
  }

  /** The node no longer takes part in the network. */
  stop(networkId: string): void {
    const served = this.#networks.get(networkId);
    this.#networks.delete(networkId);
    if (served) this.#close(served);
  }

  /** For good: what is still being bound is closed, so that nothing keeps the process from ending. */
  close(): void {
    this.#closed = true;
    for (const networkId of [...this.#networks.keys()]) this.stop(networkId);
  }

  /**
   * The answer to a packet that has come to the network's socket; undefined for what is no question.
   * @param asker address without port
   */
  async answer(networkId: string, asker: string, query: Buffer, protocol: Protocol): Promise<Buffer | undefined> {
    const packet = decoded(query);
    const [question] = packet?.questions ?? [];
    if (packet?.type !== "query" || !question) return undefined;
    const taskId = this.#networks.get(networkId)?.names.taskOf(asker);
    const networks = this.#networksOf(networkId, taskId);
    const answers = this.#known(networks, question, taskId);
    if (answers) return this.#encoded(packet, answers, protocol);
    // A task that has no way out is not given one through its names.
    const isInternal = networks.length > 0 && networks.every(({ internal }) => internal);
    return isInternal ? failure(packet, noSuchName) : await this.#forward(packet, query, taskId, protocol);
  }

  #network(networkId: string): ServedNetwork {
    const known = this.#networks.get(networkId);
    if (known) return known;
    const names = new NetworkNames();
    const made: ServedNetwork = { names, name: "", ingress: false, internal: false, connections: new Set() };
    this.#networks.set(networkId, made);
    return made;
  }

  /** Those whose names the task may know, the one that it asks on first. */
  #networksOf(networkId: string, taskId: string | undefined): ServedNetwork[] {
    const asked = this.#networks.get(networkId);
    const found = asked && !asked.ingress ? [asked] : [];
    if (taskId === undefined) return found;
    for (const network of this.#networks.values())
      if (network !== asked && !network.ingress && network.names.has(taskId)) found.push(network);
    return found;
  }

  /** Undefined for a name that is not the swarm's. */
  #known(
    networks: readonly ServedNetwork[],
    question: Question,
    taskId: string | undefined,
  ): readonly Answer[] | undefined {
    const asked = question.name.toLowerCase().replace(/\.$/, "");
    if (question.type === "PTR") return pointers(networks, question.name, asked);
    for (const name of this.#spellings(asked, taskId)) {
      for (const network of networks) {
        const addresses = network.names.addressesOf(name) ?? network.names.addressesOf(without(name, network.name));
        if (!addresses) continue;
        if (question.type !== "A") return [];
        return this.#shuffled(addresses).map((data) => ({
          type: "A",
          name: question.name,
          ttl: timeToLiveSeconds,
          data,
        }));
      }
    }
    return undefined;
  }

  /** The name, and what it was before the container appended one of its search domains. */
  #spellings(name: string, taskId: string | undefined): string[] {
    const { search = [] } = (taskId !== undefined && this.#options.taskDns(taskId)) || {};
    const shorter = search.map((domain) => without(name, domain.toLowerCase())).filter((one) => one !== "");
    return [name, ...shorter];
  }

  async #forward(packet: Packet, query: Buffer, taskId: string | undefined, protocol: Protocol): Promise<Buffer> {
    try {
      const own = (taskId !== undefined && this.#options.taskDns(taskId)?.nameservers) || [];
      const servers = own.length > 0 ? own : await this.#options.nodeServers();
      return await this.#upstream.ask(query, protocol, servers);
    } catch (error) {
      this.#options.log.debug("a name could not be looked up outside", { error: messageOf(error) });
      return failure(packet, serverFailure);
    }
  }

  #encoded(query: Packet, answers: readonly Answer[], protocol: Protocol): Buffer {
    const reply = { ...replyTo(query), answers: [...answers] };
    const whole = encode(reply);
    if (protocol === "tcp" || whole.length <= udpBytesOf(query)) return whole;
    return encode({ ...reply, flags: (reply.flags ?? 0) | truncated, answers: [] });
  }

  #shuffled(addresses: readonly string[]): string[] {
    const left = [...addresses];
    for (let end = left.length - 1; end > 0; end--) {
      const other = Math.floor(this.#options.random.float() * (end + 1));
      [left[end], left[other]] = [left[other]!, left[end]!];
    }
    return left;
  }

  #listenUdp(networkId: string, served: ServedNetwork, socket: Socket): void {
    socket.on("error", (error) => this.#failed(networkId, served, error));
    socket.on("message", async (query, from) => {
      const answer = await this.#tryAnswer(networkId, from.address, query, "udp");
      // Its socket may have been closed meanwhile; a client that is gone is no error of ours.
      if (answer && served.sockets?.udp === socket) socket.send(answer, from.port, from.address, () => undefined);
    });
  }

  #listenTcp(networkId: string, served: ServedNetwork, server: Server): void {
    server.on("error", (error) => this.#failed(networkId, served, error));
    server.on("connection", (connection) => {
      if (served.connections.size >= mostConnections) {
        connection.destroy();
        return;
      }
      served.connections.add(connection);
      const unframer = new Unframer();
      let idle = this.#options.clock.after(idleConnectionMs, () => connection.destroy());
      connection.on("data", async (chunk) => {
        idle.cancel();
        idle = this.#options.clock.after(idleConnectionMs, () => connection.destroy());
        for (const query of unframer.push(chunk)) {
          const answer = await this.#tryAnswer(networkId, connection.remoteAddress ?? "", query, "tcp");
          if (answer && connection.writable) connection.write(framed(answer));
        }
      });
      connection.on("error", () => connection.destroy()); // the client's affair
      connection.on("close", () => {
        idle.cancel();
        served.connections.delete(connection);
      });
    });
  }

  async #tryAnswer(networkId: string, asker: string, query: Buffer, protocol: Protocol): Promise<Buffer | undefined> {
    try {
      return await this.answer(networkId, asker, query, protocol);
    } catch (error) {
      this.#options.log.warn("a question for a name could not be answered", { error: messageOf(error) });
      return undefined;
    }
  }

  /** The next `serve` binds anew. */
  #failed(networkId: string, served: ServedNetwork, error: Error): void {
    this.#options.log.warn("names are no longer served on a network", { network: networkId, error: messageOf(error) });
    this.#close(served);
  }

  #close(served: ServedNetwork): void {
    const { sockets } = served;
    delete served.sockets;
    delete served.address;
    sockets?.udp.close();
    sockets?.tcp.close();
    for (const connection of served.connections) connection.destroy();
  }
}

function decoded(query: Buffer): Packet | undefined {
  try {
    return decode(query);
  } catch {
    // Whatever a container sends to port 53 that is no question: it gets no answer.
    return undefined;
  }
}

/** The names of an address, asked for as `4.3.2.1.in-addr.arpa`; undefined where it is not the swarm's. */
function pointers(networks: readonly ServedNetwork[], name: string, asked: string): Answer[] | undefined {
  const [, reversed] = /^(\d+\.\d+\.\d+\.\d+)\.in-addr\.arpa$/.exec(asked) ?? [];
  const address = reversed?.split(".").reverse().join(".");
  if (!address) return undefined;
  for (const network of networks) {
    const found = network.names.nameOf(address);
    if (found) return [{ type: "PTR", name, ttl: timeToLiveSeconds, data: `${found}.${network.name}` }];
  }
  return undefined;
}

/** `name` without the domain at its end; "" where it does not end with it. */
function without(name: string, domain: string): string {
  return domain && name.endsWith(`.${domain}`) ? name.slice(0, -domain.length - 1) : "";
}

function replyTo({ id, flags = 0, questions }: Packet): Packet {
  return {
    type: "response",
    ...(id === undefined ? {} : { id }),
    flags: authoritative | recursionAvailable | (flags & recursionDesired),
    ...(questions ? { questions } : {}),
  };
}

function failure(query: Packet, code: number): Buffer {
  const reply = replyTo(query);
  return encode({ ...reply, flags: (reply.flags ?? 0) | code });
}

function udpBytesOf({ additionals = [] }: Packet): number {
  for (const record of additionals) {
    if (record.type === "OPT") return Math.max(plainUdpBytes, Math.min(record.udpPayloadSize, largestUdpBytes));
  }
  return plainUdpBytes;
}
