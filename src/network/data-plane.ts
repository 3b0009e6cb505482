/**
 * A node's data plane: the public face of this folder. It makes the kernel equal to what the managers say of the
 * networks that the node takes part in, and plugs containers into them when the Engine asks for it.
 *
 * What is there when it starts is taken over: the kernel says which networks there are and whose cables are plugged in
 * (nothing of it is on the disk), and nothing is changed before the managers have spoken. From then on each network is
 * on its own (`overlay-network.ts`); what can't be done is tried again, compared with the kernel from time to time, and
 * what nobody needs any more is taken away, but never under a container that runs.
 */
import type { Engine } from "../engine/engine.ts";
import { type Clock, within } from "../lib/clock.ts";
import { isShoalError, messageOf, ShoalError, unreachable } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { Loop, type LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { driverOption } from "../model/driver-options.ts";
import type { ContentChange, DataPath, NetworkKey, NetworkState, NetworksMessage } from "../model/network-state.ts";
import { addressOf } from "../model/networks.ts";
import type { AssignedTask, AttachedNetwork } from "../model/types.ts";
import type { Commands } from "./commands.ts";
import type { TaskDns } from "./dns/resolver.ts";
import { type DriverServer, serveDriver } from "./driver/server.ts";
import { Encrypting } from "./encrypting.ts";
import { EngineNetworks } from "./engine-networks.ts";
import { linkOf, namespaces, outsideCables } from "./kernel.ts";
import { Networks, type NetworksOrder } from "./networks.ts";
import type { NetworkParts } from "./parts.ts";
import type { ContainerNetwork, ContainerNetworks, NetworkPlane } from "./plane.ts";
import { Plugging } from "./plugging.ts";
import { checkRequirements } from "./requirements.ts";

export interface DataPlaneOptions {
  readonly nodeId: string;
  /** Where the node's VXLAN packets are to be sent: without port. */
  readonly address: string;
  readonly engine: Engine;
  /** Path of the socket at which the Engine looks for the driver. */
  readonly pluginSocket: string;
  readonly commands: Commands;
  /** Of a process in the node's own namespaces: the daemon's. */
  readonly processId: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** @param dnsOf name servers and search domains of a task of this node, where it has its own */
  readonly parts: (dnsOf: (taskId: string) => TaskDns | undefined) => NetworkParts;
}

/** What a VXLAN adds to a packet: over IPv4, over IPv6. */
const overheadBytes = 50;
const overheadBytesIpv6 = 70;
/** What WireGuard adds at most. */
const encryptionOverheadBytes = 80;
/** The managers' state comes with a node's session; a task that waits longer for it is told so, and tried again. */
const stateLimitMs = 30_000;
/** The Engine waits for a driver's answer far longer. */
const plugLimitMs = 10_000;
/** What the loop does besides mending networks: its keys. */
const sweepKey = "what nobody needs";
const verifyKey = "the kernel";
/** Leftovers harm nobody for so long. */
const sweepEveryMs = 60_000;
const sweepSoonMs = 2_000;
/** Reads all of the kernel's tables. */
const verifyEveryMs = 300_000;

export class DataPlane implements NetworkPlane {
  readonly #options: DataPlaneOptions;
  readonly #log: Logger;
  readonly #parts: NetworkParts;
  readonly #networks: Networks;
  readonly #plugging: Plugging;
  readonly #engineNetworks: EngineNetworks;
  readonly #encrypting: Encrypting;
  readonly #loop: Loop;
  readonly #stopped = new AbortController();
  /** Messages that are being applied. */
  readonly #applying = new Set<Promise<void>>();
  /** Woken after each change of a network. */
  readonly #waiting = new Set<() => void>();
  #key: NetworkKey | undefined;
  #server: DriverServer | undefined;
  #verifyAt = 0;
  #hasHeard = false;
  /** Why the node has no data plane; undefined while that is not known. */
  #lack: string | undefined;
  #isChecked = false;

  constructor(options: DataPlaneOptions) {
    const { engine, clock, random, log, commands, nodeId, processId, address } = options;
    this.#options = options;
    this.#log = log;
    this.#parts = options.parts((taskId) => this.#plugging.dnsOf(taskId));
    this.#networks = new Networks({
      nodeId,
      commands,
      processId,
      parts: this.#parts,
      log,
      measure: (network) => this.#measure(network),
      encrypt: () => this.#encrypting.apply(this.#key),
    });
    this.#encrypting = new Encrypting(this.#parts.encryption, this.#networks, nodeId, address);
    this.#engineNetworks = new EngineNetworks(engine, log);
    this.#plugging = new Plugging({
      networks: this.#networks,
      engine,
      clock,
      log,
      ready: (networkId) => this.#readyToPlug(networkId),
      onLess: () => this.#loop.wake(sweepKey),
      onActivated: () => {
        // An Engine that starts puts its firewall rules first.
        this.#verifyAt = clock.now();
        this.#loop.wake(verifyKey);
      },
    });
    this.#loop = new Loop({
      name: "networks",
      clock,
      random,
      log,
      run: (keys) => this.#look(keys),
      allKeys: () => [sweepKey, verifyKey],
      resyncMs: sweepEveryMs,
    });
  }

  /**
   * Takes over what is there, and lets the Engine find the driver. Never rejects: a node that can't have a data plane
   * runs without one, and `describe` says why.
   */
  async start(): Promise<void> {
    try {
      await this.#networks.adopt();
      await this.#plugging.restore();
    } catch (error) {
      this.#log.warn("the node's networks can't be taken over", { error: messageOf(error) });
    }
    try {
      this.#server = await serveDriver(this.#options.pluginSocket, this.#plugging);
    } catch (error) {
      this.#lack = `the Engine can't be offered networks: ${messageOf(error)}`;
      this.#log.error(this.#lack);
    }
    this.#verifyAt = this.#options.clock.now() + verifyEveryMs;
    this.#loop.start();
  }

  /**
   * Ends what this process does; the kernel stays as it is, and tasks run on. Repeatable. Resolves when nothing is
   * under way any more: who leaves a swarm takes everything away next.
   */
  async stop(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the node stops"));
    this.#parts.names.close();
    await Promise.allSettled(this.#applying);
    await this.#loop.stop();
    await this.#server?.close();
    this.#server = undefined;
  }

  /**
   * The node leaves its swarm, and no container of it runs any more: nothing of ours stays. Ends a plane that was
   * started; one that was not finds what there is all the same.
   */
  async remove(): Promise<void> {
    await this.#loop.stop();
    await this.#networks.removeAll();
    await this.#parts.removeIngress();
    await this.#parts.encryption.remove();
    try {
      // The Engine asks the driver before it lets go of a network, and waits long for one that is not there.
      this.#server ??= await serveDriver(this.#options.pluginSocket, this.#plugging);
      await this.#engineNetworks.removeAllBut(() => false);
    } catch (error) {
      // They lead nowhere; the next swarm that the node joins takes them away.
      this.#log.warn("the Engine's networks stay", { error: messageOf(error) });
    } finally {
      await this.stop();
    }
  }

  async describe(): Promise<DataPath> {
    if (!this.#server && this.#lack !== undefined) throw new ShoalError("FailedPrecondition", this.#lack);
    try {
      if (!this.#isChecked) await checkRequirements(this.#options.commands);
    } catch (error) {
      this.#lack = messageOf(error);
      throw error;
    }
    this.#isChecked = true;
    this.#lack = undefined;
    const { address } = this.#options;
    const encryption = await this.#parts.encryption.describe();
    return "problem" in encryption ? { address, encryptionProblem: encryption.problem } : { address, ...encryption };
  }

  async apply(message: NetworksMessage): Promise<void> {
    this.#stopped.signal.throwIfAborted();
    const applying = this.#apply(message);
    this.#applying.add(applying);
    try {
      await applying;
    } finally {
      this.#applying.delete(applying);
    }
  }

  async #apply(message: NetworksMessage): Promise<void> {
    const { order, key } = sorted(message);
    const isNewKey = key !== undefined && key.revision !== this.#key?.revision;
    this.#key = key ?? this.#key;
    try {
      // All are asked in this turn: what comes later must not overtake.
      const networks = this.#networks.apply(order);
      if (isNewKey) await this.#encrypting.renew(this.#key);
      await networks;
    } finally {
      for (const look of [...this.#waiting]) look();
      for (const { problem, namespace } of this.#networks) if (problem !== undefined) this.#loop.wake(namespace);
      if (order.isComplete || order.left.size > 0) this.#loop.wake(sweepKey);
      this.#hasHeard ||= order.isComplete;
    }
  }

  async attach(task: AssignedTask, signal: AbortSignal): Promise<ContainerNetworks> {
    if (this.#lack !== undefined) throw new ShoalError("Unavailable", this.#lack);
    const attached = task.Networks.filter(({ Network: { Driver } }) => Driver === "overlay");
    const ready = await Promise.all(attached.map((one) => this.#ready(task.ID, one, signal)));
    // The container's names are asked for on the first one; the ingress network has none.
    ready.sort((left, right) => Number(left.network.ingress) - Number(right.network.ingress));
    const [first] = ready;
    if (!first) throw new ShoalError("InvalidArgument", `task ${task.ID} is on no network of the swarm`);
    const networks = ready.map(async ({ network, address }): Promise<ContainerNetwork> => {
      const driverOptions = {
        [driverOption.network]: network.id,
        [driverOption.task]: task.ID,
        [driverOption.address]: address,
      };
      return { engineNetwork: await this.#engineNetworks.ensure(network), driverOptions };
    });
    return { networks: await Promise.all(networks), nameserver: first.nameserver };
  }

  async drained(task: AssignedTask, limitMs: number): Promise<void> {
    await Promise.all(
      task.Networks.map(async ({ Network: { ID }, Addresses }) => {
        const network = this.#networks.get(ID);
        if (!network?.isReady) return;
        await this.#parts.drained(network.namespace, Addresses.map(addressOf), limitMs);
      }),
    );
  }

  /** Compares the kernel and the Engine with what the managers said: a line for each difference. */
  async audit(): Promise<string[]> {
    const { commands } = this.#options;
    const audits = [...this.#networks].map(async (network) => {
      const name = network.table?.network.name ?? network.namespace;
      return (await network.audit()).map((line) => `network ${name}: ${line}`);
    });
    const lines = (await Promise.all(audits)).flat();
    const known = new Set([...this.#networks].map(({ namespace }) => namespace));
    for (const namespace of await namespaces(commands)) {
      if (!known.has(namespace)) lines.push(`namespace ${namespace} belongs to no network of this node`);
    }
    for (const cable of await outsideCables(commands)) lines.push(`no container has taken the interface ${cable}`);
    try {
      lines.push(...(await this.#engineNetworks.audit((id) => this.#networks.isNeeded(id))));
    } catch (error) {
      lines.push(`the Engine's networks can't be compared: ${messageOf(error)}`);
    }
    lines.push(...(await this.#parts.encryption.audit()));
    return lines;
  }

  report(): LoopReport {
    return this.#loop.report();
  }

  /** A run of the loop: keys are namespaces of networks that have failed, and the two kinds of looking after all. */
  async #look(keys: ReadonlySet<string>) {
    const { clock } = this.#options;
    const later = new Map<string, number>();
    if (keys.has(verifyKey) && clock.now() >= this.#verifyAt) {
      this.#verifyAt = clock.now() + verifyEveryMs;
      await this.#networks.verify();
    }
    let changes = 0;
    const failures: string[] = [];
    for (const network of this.#networks) {
      if (!keys.has(network.namespace) || network.problem === undefined) continue;
      changes++;
      await network.repair().catch((error) => failures.push(messageOf(error)));
      if (network.problem !== undefined && failures.length === 0) failures.push(network.problem);
    }
    for (const look of [...this.#waiting]) look();
    if (keys.has(sweepKey) && !(await this.#sweep())) later.set(sweepKey, clock.now() + sweepSoonMs);
    // Tried again after a growing while.
    if (failures.length > 0) throw new ShoalError("Unavailable", failures.join("; "));
    return { changes, later };
  }

  /** Takes away what nobody needs any more. @returns whether that was all */
  async #sweep(): Promise<boolean> {
    try {
      await this.#plugging.sweep();
      const isAll = !this.#hasHeard || (await this.#collect());
      return isAll && !this.#plugging.isWaiting;
    } catch (error) {
      if (!isShoalError(error, "Unavailable")) throw error;
      this.#log.debug("what nobody needs stays for now", { error: messageOf(error) }); // the Engine is not there
      return false;
    }
  }

  async #collect(): Promise<boolean> {
    await this.#networks.collect();
    const isAll = await this.#engineNetworks.removeAllBut((id) => this.#networks.isNeeded(id));
    const tables = [...this.#networks].map(({ table }) => table?.network);
    if (!tables.some((network) => network?.ingress)) await this.#parts.removeIngress();
    if (!tables.some((network) => network?.encrypted)) await this.#parts.encryption.remove();
    return isAll;
  }

  async #measure({ mtu, encrypted }: NetworkState) {
    const { address, commands } = this.#options;
    const link = await linkOf(commands, address);
    const overhead = address.includes(":") ? overheadBytesIpv6 : overheadBytes;
    return {
      mtu: mtu ?? link.mtu - overhead - (encrypted ? encryptionOverheadBytes : 0),
      local: link.isOwn ? address : undefined,
      underlay: encrypted ? this.#parts.encryption.namespace : undefined,
    };
  }

  /** The network as soon as it is there and has the task among its endpoints. */
  #ready(taskId: string, { Network: { ID, Name }, Addresses }: AttachedNetwork, signal: AbortSignal) {
    const find = () => {
      const found = this.#networks.get(ID);
      const network = found?.table?.network;
      const endpoint = found?.table?.endpoints.get(taskId);
      const nameserver = found?.ownAddress;
      if (!found?.isReady || !network || !endpoint || nameserver === undefined) return undefined;
      const address = Addresses.find((one) => addressOf(one) === endpoint.address);
      return address === undefined ? undefined : { network, address, nameserver };
    };
    return this.#until(find, stateLimitMs, signal, () => `network ${Name} is not ready on this node: ${this.#why(ID)}`);
  }

  #readyToPlug(networkId: string) {
    const find = () => {
      const network = this.#networks.get(networkId);
      return network?.isReady ? network : undefined;
    };
    const { signal } = this.#stopped;
    return this.#until(
      find,
      plugLimitMs,
      signal,
      () => `the network is not ready on this node: ${this.#why(networkId)}`,
    );
  }

  #why(networkId: string): string {
    return this.#networks.get(networkId)?.problem ?? "the managers have not told this node of it yet";
  }

  /** Waits for what `find` gives; Unavailable with `failure` where it does not come. */
  #until<T>(find: () => T | undefined, limitMs: number, signal: AbortSignal, failure: () => string): Promise<T> {
    const found = find();
    if (found !== undefined) return Promise.resolve(found);
    const ends = AbortSignal.any([signal, this.#stopped.signal]);
    let settle = () => {};
    const waiting = new Promise<T>((resolve, reject) => {
      const look = () => {
        const now = find();
        if (now !== undefined) resolve(now);
      };
      const abort = () => reject(ends.reason);
      ends.addEventListener("abort", abort, { once: true });
      if (ends.aborted) abort();
      this.#waiting.add(look);
      settle = () => {
        this.#waiting.delete(look);
        ends.removeEventListener("abort", abort);
      };
    });
    const limited = within(this.#options.clock, limitMs, waiting, () => {
      throw new ShoalError("Unavailable", failure());
    });
    return limited.finally(settle);
  }
}

/** A message's changes, by what they are about. */
function sorted({ type, changes }: NetworksMessage): { order: NetworksOrder; key: NetworkKey | undefined } {
  const contents = new Map<string, ContentChange[]>();
  const left = new Set<string>();
  let key: NetworkKey | undefined;
  for (const change of changes) {
    switch (change.kind) {
      case "key":
        key = change.key;
        break;
      case "remove-network":
        left.add(change.networkId);
        contents.delete(change.networkId);
        break;
      case "network":
      case "node":
      case "remove-node":
      case "endpoint":
      case "remove-endpoint":
      case "service":
      case "remove-service": {
        const list = contents.get(networkIdOf(change));
        if (list) list.push(change);
        else contents.set(networkIdOf(change), [change]);
        break;
      }
      default:
        unreachable(change);
    }
  }
  return { order: { isComplete: type === "complete", left, contents }, key };
}

function networkIdOf(change: ContentChange): string {
  return change.kind === "network" ? change.network.id : change.networkId;
}
