/**
 * One network on this node. What the managers say of it, and what is plugged into it, is done one after the other: first
 * whoever is to be led to is made reachable, then names and balance lead there; and the other way round when they go.
 *
 * Invariant: what the managers have said is kept, also while the kernel can't be made equal to it. After a failure
 * everything is compared with what is really there, and only the difference is changed, so that tasks that run are
 * disturbed by neither the failure nor its end. The namespace goes when the node no longer takes part and no container
 * is plugged in any more.
 */
import { assert, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { sameJson } from "../lib/same.ts";
import type { ContentChange, NetworkState } from "../model/network-state.ts";
import { type Cable, newCable } from "./cable.ts";
import type { Commands } from "./commands.ts";
import type { HostPort } from "./ingress-table.ts";
import { NetworkKernel } from "./kernel.ts";
import type { NetworkLinks } from "./kernel-links.ts";
import { compareTables, type LocalEndpoint, removePeers, setPeers, type TablesDifference } from "./kernel-tables.ts";
import { namespacePath } from "./names.ts";
import type { IngressBalance, NetworkBalance, NetworkParts } from "./parts.ts";
import { Peers } from "./peers.ts";
import { NetworkTable, type TableChanges } from "./table.ts";
import { differenceFrom } from "./table-difference.ts";

export interface OverlayOptions {
  /** Name of its namespace. */
  readonly namespace: string;
  readonly nodeId: string;
  readonly commands: Commands;
  /** Of a process in the node's own namespace. */
  readonly processId: number;
  readonly parts: NetworkParts;
  readonly log: Logger;
  /** The links' measures on this node. */
  readonly measure: (network: NetworkState) => Promise<Pick<NetworkLinks, "mtu" | "local" | "underlay">>;
  /** Brings the encryption up between this node and the table's; called before they are reachable. */
  readonly encrypt: (table: NetworkTable) => Promise<void>;
  /** The namespace that was there already, with what is plugged into it. */
  readonly found?: { readonly cables: readonly Cable[] } | undefined;
}

type Balance =
  | { readonly kind: "ordinary"; readonly part: NetworkBalance }
  | { readonly kind: "ingress"; readonly part: IngressBalance };

type Step =
  | { readonly kind: "complete"; readonly changes: readonly ContentChange[] }
  | { readonly kind: "incremental"; readonly changes: readonly ContentChange[] }
  | { readonly kind: "leave" }
  | { readonly kind: "repair" };

/** VXLAN's own. */
const vxlanPort = 4789;

export class OverlayNetwork {
  readonly #options: OverlayOptions;
  readonly #kernel: NetworkKernel;
  #peers: Peers;
  /** By the Engine's id of the endpoint. */
  readonly #cables = new Map<string, Cable>();
  readonly #steps: Step[] = [];
  #membership: "unknown" | "member" | "left" = "unknown";
  #table: NetworkTable | undefined;
  #balance: Balance | undefined;
  #links: NetworkLinks | undefined;
  #hostPorts: readonly HostPort[] = [];
  /** The kernel may differ from what was told: all of it is compared. */
  #isDirty = true;
  #isGone = false;
  #problem: string | undefined;
  /** Somebody may be led by what the kernel has of it. */
  #mayLead: boolean;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: OverlayOptions) {
    this.#options = options;
    this.#kernel = new NetworkKernel(options.commands, options.namespace, options.processId);
    this.#peers = new Peers(options.nodeId);
    this.#mayLead = options.found !== undefined;
    for (const cable of options.found?.cables ?? []) this.#cables.set(cable.endpointId, cable);
  }

  /** What the managers have said of it; undefined before they have, and when the node takes no part any more. */
  get table(): NetworkTable | undefined {
    return this.#table;
  }

  get namespace(): string {
    return this.#kernel.namespace;
  }

  /** The kernel is as the managers said. */
  get isReady(): boolean {
    return this.#table !== undefined && this.#links !== undefined && !this.#isDirty;
  }

  /** Why it is not ready; undefined where nothing has failed. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** The node takes no part in it any more; containers may still be plugged in. */
  get isLeaving(): boolean {
    return this.#membership === "left";
  }

  /** It has left the node, and nothing of it is left. */
  get isGone(): boolean {
    return this.#isGone && this.#steps.length === 0;
  }

  get cables(): ReadonlyMap<string, Cable> {
    return this.#cables;
  }

  /** The node's own address on it; undefined where it has none (yet). */
  get ownAddress(): string | undefined {
    const network = this.#table?.network;
    return network?.ingress ? this.#table?.nodes.get(this.#options.nodeId)?.ownAddress : network?.gateway;
  }

  /** What a complete message has of it. */
  replace(changes: readonly ContentChange[]): Promise<void> {
    return this.#do({ kind: "complete", changes });
  }

  update(changes: readonly ContentChange[]): Promise<void> {
    return this.#do({ kind: "incremental", changes });
  }

  /** Compares everything with the kernel, and mends it. */
  repair(): Promise<void> {
    return this.#do({ kind: "repair" });
  }

  /** The node takes no part any more: names and balance end at once, the rest when no container is plugged in. */
  leave(): Promise<void> {
    return this.#do({ kind: "leave" });
  }

  /** Plugs a container in. Unavailable where the network is not there yet. */
  plug(endpointId: string, taskId: string, address: string): Promise<Cable> {
    return this.#after(async () => {
      const links = this.#links;
      const network = this.#table?.network;
      if (!links || !network) throw new ShoalError("Unavailable", "the network is not on this node");
      const cable = newCable(network.id, endpointId, taskId, address);
      for (const [id, { inside }] of this.#cables) if (inside === cable.inside) this.#cables.delete(id);
      await this.#kernel.plug(cable, links.mtu);
      this.#cables.set(endpointId, cable);
      return cable;
    });
  }

  /** Repeatable. The last one to be unplugged from a network that the node has left takes it along. */
  unplug(endpointId: string): Promise<void> {
    return this.#after(async () => {
      const cable = this.#cables.get(endpointId);
      if (!cable) return;
      const { address } = cable;
      const via = this.#peers.viaOf(address);
      const isHeld = via !== undefined || this.#hasCable(address, cable);
      await this.#kernel.unplug(cable, isHeld);
      this.#cables.delete(endpointId);
      // Its address has gone to a task of another node already.
      if (via !== undefined) await this.#kernel.program(setPeers([{ address, via }]));
      if (this.isLeaving) await this.#leave();
    });
  }

  /** All ports of the node that lead to tasks here: on the ingress network only. */
  setHostPorts(ports: readonly HostPort[]): Promise<void> {
    return this.#after(async () => {
      this.#hostPorts = ports;
      if (this.#balance?.kind === "ingress") await this.#balance.part.setHostPorts(ports);
    });
  }

  /** Differences between the kernel and what the managers said, a line each. */
  compare(): Promise<string[]> {
    return this.#after(() => this.#compare());
  }

  /** The same, and whether exactly those containers are plugged in that should be. */
  audit(): Promise<string[]> {
    return this.#after(async () => {
      const wrong = await this.#compare();
      if (this.#table && wrong.length === 0) wrong.push(...(await this.#compareCables(this.#table)));
      return wrong;
    });
  }

  async #compare(): Promise<string[]> {
    const table = this.#table;
    if (!table) return this.#isGone ? [] : [`${this.namespace} is left, ${this.#cables.size} containers are on it`];
    if (!this.#links) return [this.#problem ?? "it is not set up"];
    const links = await this.#kernel.compare(this.#links);
    if (links.length > 0) return [...links];
    return [...(await this.#compareTables()).differences, ...((await this.#balance?.part.audit(table)) ?? [])];
  }

  #do(step: Step): Promise<void> {
    this.#steps.push(step);
    return this.#after(async () => {
      // Another call may have done it already; it is done well only if all of it is.
      for (let next = this.#nextStep(); next; next = this.#nextStep()) await this.#run(next);
      // One that has never been there leads nobody astray: that it is not is for whoever wants to use it.
      if (this.#problem === undefined || !this.#mayLead) return;
      throw new ShoalError("Unavailable", `network ${this.#name}: ${this.#problem}`);
    });
  }

  /** Changes that have come meanwhile are done together. */
  #nextStep(): Step | undefined {
    const first = this.#steps.shift();
    if (first?.kind !== "incremental") return first;
    const changes = [...first.changes];
    for (let next = this.#steps[0]; next?.kind === "incremental"; next = this.#steps[0]) {
      changes.push(...next.changes);
      this.#steps.shift();
    }
    return { kind: "incremental", changes };
  }

  async #run(step: Step): Promise<void> {
    try {
      if (step.kind === "leave") {
        this.#membership = "left";
        await this.#leave();
      } else if (step.kind === "repair" && this.isLeaving) await this.#leave();
      else {
        if (step.kind === "repair") this.#isDirty = true;
        await this.#apply(step);
      }
      this.#problem = undefined;
    } catch (error) {
      this.#isDirty = true;
      const before = this.#problem;
      this.#problem = messageOf(error);
      if (before === this.#problem) return; // it is tried again and again
      this.#options.log.error("a network is not as the managers want it", {
        network: this.#name,
        error: this.#problem,
      });
    }
  }

  /** After everything before it; its failure is its caller's alone. */
  #after<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(work);
    this.#tail = done.catch(() => undefined); // the caller has `done`
    return done;
  }

  async #apply(step: Step): Promise<void> {
    const table = this.#tableFor(step);
    if (!table) return; // of a network that the node has left, or has never heard of
    const changes = step.kind === "complete" ? differenceFrom(table, step.changes) : contentOf(step);
    const gone = changes.flatMap((change) => addressBefore(table, change));
    for (const change of changes) {
      this.#peers.take(change);
      table.apply(change);
    }
    const noted = table.takeChanges();
    const everything = this.#isDirty;
    this.#isDirty = true; // until all of it is done
    if (this.ownAddress === undefined) return;
    const made = await this.#makeLinks(table, everything ? undefined : noted);
    if (made) {
      // Nobody is on a new network who could be led astray: all is done at once.
      this.#cables.clear();
      this.#options.parts.names.stop(table.network.id);
      await Promise.all([this.#setAll(), this.#lead(table, undefined)]);
    } else {
      const removal = everything ? await this.#compareAndSet() : await this.#setPeers();
      await this.#lead(table, everything ? undefined : noted);
      const forgotten = gone.filter((address) => !this.#peers.isHeld(address));
      if (forgotten.length > 0) await this.#options.parts.forgetFlows(this.namespace, forgotten);
      await removal();
    }
    this.#isDirty = false;
    this.#mayLead = true;
  }

  #tableFor(step: Step): NetworkTable | undefined {
    if (this.#table || step.kind === "repair") return this.#table;
    const first = contentOf(step).find((change) => change.kind === "network");
    if (!first) return undefined;
    this.#membership = "member";
    this.#isGone = false;
    this.#isDirty = true;
    this.#peers = new Peers(this.#options.nodeId);
    this.#table = new NetworkTable(first.network);
    return this.#table;
  }

  /** @returns whether the namespace is new */
  async #makeLinks(table: NetworkTable, changes: TableChanges | undefined): Promise<boolean> {
    const { network } = table;
    const ownAddress = this.ownAddress;
    assert(ownAddress !== undefined, "links are made for an address");
    const peersChanged = !changes || changes.network || changes.nodes.size > 0;
    if (network.encrypted && peersChanged) await this.#options.encrypt(table);
    if (changes && !changes.network && !changes.nodes.has(this.#options.nodeId)) return false;
    const links: NetworkLinks = {
      ...(await this.#options.measure(network)),
      vxlanId: network.vxlanId,
      port: network.dataPathPort ?? vxlanPort,
      subnet: network.subnet,
      address: ownAddress,
    };
    if (changes && sameJson(links, this.#links)) return false;
    const made = (await this.#kernel.ensure(links)) === "made";
    this.#links = links;
    return made;
  }

  /** Sets what has changed; what it gives back takes away what is too much. */
  async #setPeers(): Promise<() => Promise<void>> {
    const plan = this.#peers.plan();
    // One that is still plugged in here keeps its port until it is unplugged.
    await this.#kernel.program(setPeers(plan.set.filter(({ address }) => !this.#hasCable(address))));
    this.#peers.done({ set: plan.set });
    return async () => {
      await this.#kernel.program(removePeers(plan.remove, (address) => this.#hasCable(address)));
      this.#peers.done({ remove: plan.remove });
    };
  }

  /** Into a namespace that has nothing yet. */
  async #setAll(): Promise<void> {
    await this.#kernel.program(setPeers([...this.#peers.all()]));
    this.#peers.synchronised();
  }

  /** The same after a look at what is there. */
  async #compareAndSet(): Promise<() => Promise<void>> {
    const difference = await this.#compareTables();
    await this.#kernel.program(difference);
    return async () => {
      await this.#kernel.program(difference.removal);
      this.#peers.synchronised();
    };
  }

  async #compareTables(): Promise<TablesDifference> {
    const { neighbours, forwarding } = await this.#kernel.tables();
    return compareTables(this.#peers.all(), this.#localEndpoints(), neighbours, forwarding);
  }

  async #lead(table: NetworkTable, changes: TableChanges | undefined): Promise<void> {
    const { names } = this.#options.parts;
    const ownAddress = this.ownAddress;
    assert(ownAddress !== undefined, "names are served at an address");
    this.#balance ??= await this.#newBalance(table);
    names.update(table, changes);
    await Promise.all([
      this.#balance.part.apply(table, changes),
      names.serve(table.network.id, namespacePath(this.namespace), ownAddress),
    ]);
  }

  async #newBalance({ network }: NetworkTable): Promise<Balance> {
    const { balance, ingress } = this.#options.parts;
    if (!network.ingress) return { kind: "ordinary", part: balance(this.namespace) };
    const part = ingress(this.namespace);
    await part.setHostPorts(this.#hostPorts);
    return { kind: "ingress", part };
  }

  async #leave(): Promise<void> {
    const balance = this.#balance;
    if (this.#table) this.#options.parts.names.stop(this.#table.network.id);
    this.#table = undefined;
    this.#links = undefined;
    this.#isDirty = true;
    if (balance?.kind === "ingress") await balance.part.remove();
    this.#balance = undefined;
    // What is plugged in is asked of the kernel: it may be gone without our knowledge.
    const there = new Set((await this.#kernel.cables()).map(({ endpointId }) => endpointId));
    for (const endpointId of this.#cables.keys()) if (!there.has(endpointId)) this.#cables.delete(endpointId);
    if (this.#cables.size > 0) return;
    await this.#kernel.remove();
    this.#isGone = true;
    this.#mayLead = false;
  }

  async #compareCables(table: NetworkTable): Promise<string[]> {
    const wrong: string[] = [];
    const there = new Map((await this.#kernel.cables()).map((cable) => [cable.endpointId, cable]));
    const plugged = new Set<string>();
    for (const { endpointId, taskId, address } of this.#cables.values()) {
      if (!there.delete(endpointId)) wrong.push(`the cable of task ${taskId} is missing`);
      const endpoint = table.endpoints.get(taskId);
      if (endpoint?.address !== address || endpoint.nodeId !== this.#options.nodeId) {
        wrong.push(`task ${taskId} is plugged in with ${address}, which is not its address`);
      }
      plugged.add(taskId);
    }
    for (const { taskId } of there.values()) wrong.push(`the cable of task ${taskId} is left`);
    for (const { taskId, nodeId, active } of table.endpoints.values()) {
      if (active && nodeId === this.#options.nodeId && !plugged.has(taskId)) {
        wrong.push(`task ${taskId} is not plugged in`);
      }
    }
    return wrong;
  }

  get #name(): string {
    return this.#table?.network.name ?? this.namespace;
  }

  #hasCable(address: string, but?: Cable): boolean {
    for (const cable of this.#cables.values()) if (cable.address === address && cable !== but) return true;
    return false;
  }

  *#localEndpoints(): Generator<LocalEndpoint> {
    for (const { address, inside } of this.#cables.values()) yield { address, port: inside };
  }
}

function contentOf(step: Step): readonly ContentChange[] {
  return "changes" in step ? step.changes : [];
}

/** The address that an endpoint had before the change. */
function addressBefore(table: NetworkTable, change: ContentChange): string[] {
  if (change.kind !== "endpoint" && change.kind !== "remove-endpoint") return [];
  const taskId = change.kind === "endpoint" ? change.endpoint.taskId : change.taskId;
  const address = table.endpoints.get(taskId)?.address;
  return address === undefined ? [] : [address];
}
