/**
 * The routing mesh on one node: a port that a service publishes answers on every node, whichever nodes its tasks run on,
 * and the tasks see the client's own address. What the node's own namespace does is in ingress-host.ts, what the ingress
 * network's does in ingress-table.ts; here both are made, changed and compared with the kernel.
 *
 * Nothing listens on a published port on the node: nothing has to be kept running, a restart of the daemon interrupts
 * nothing, and a program that has the port already keeps it but is not reached by it any more, as with Swarm.
 */
import type { Logger } from "../lib/log.ts";
import { type Commands, inNamespace, parsedList } from "./commands.ts";
import {
  auditFirewall,
  cablePrefix,
  closeFirewall,
  hostAddress,
  hostLink,
  meshAddress,
  meshLink,
  openFirewall,
} from "./ingress-host.ts";
import { type HostPort, IngressTables } from "./ingress-table.ts";
import type { AddressView } from "./kernel-links.ts";
import { bridgeName } from "./names.ts";
import { auditTable, removeTable } from "./nft.ts";
import { type Settings, setSettings, wrongSettings } from "./settings.ts";
import type { NetworkTable, TableChanges } from "./table.ts";

interface RouteView {
  readonly gateway?: string;
  readonly dev?: string;
}

/** Of the node. The Engine sets the first one too. */
const hostSettings: Settings = {
  ip_forward: "1",
  // Answers to 127.0.0.1 come by the cable.
  [`conf/${hostLink}/route_localnet`]: "1",
};

/** Of the namespace: it forwards between the cable and the bridge, whatever the client's address is. */
const meshSettings: Settings = {
  ip_forward: "1",
  "conf/all/rp_filter": "0",
  [`conf/${meshLink}/rp_filter`]: "0",
  [`conf/${bridgeName}/rp_filter`]: "0",
  // It looks for a socket of its own for each packet that it forwards, and has none: a twentieth of the mesh's speed.
  ip_early_demux: "0",
  // It is the tasks' gateway to each other's node on purpose.
  "conf/all/send_redirects": "0",
  [`conf/${bridgeName}/send_redirects`]: "0",
};

/**
 * The node's side of the mesh, of which there is one. While the ingress network is replaced by another, the old one is
 * there until its last task has ended: the newer has this side then, and the older leaves it alone.
 */
export class NodeSide {
  holder: IngressMesh | undefined;
}

export interface IngressMeshOptions {
  /** Run in the node's own namespace. */
  readonly commands: Commands;
  /** Name of the ingress network's namespace. */
  readonly namespace: string;
  readonly selfNodeId: string;
  readonly log: Logger;
  /** Shared by all ingress networks of the node; by default it has one only. */
  readonly nodeSide?: NodeSide;
}

/** One call at a time. */
export class IngressMesh {
  readonly #host: Commands;
  readonly #mesh: Commands;
  readonly #namespace: string;
  readonly #selfNodeId: string;
  readonly #log: Logger;
  readonly #nodeSide: NodeSide;
  #hostPorts: readonly HostPort[] = [];
  #table: NetworkTable | undefined;
  /** What the kernel has been told; undefined where that is uncertain. */
  #told: IngressTables | undefined;

  constructor(options: IngressMeshOptions) {
    this.#host = options.commands;
    this.#mesh = inNamespace(options.commands, options.namespace);
    this.#namespace = options.namespace;
    this.#selfNodeId = options.selfNodeId;
    this.#log = options.log;
    this.#nodeSide = options.nodeSide ?? new NodeSide();
  }

  /**
   * Makes the kernel equal to `table`; the namespace and its bridge must be there.
   * @param changes what may differ since the last call; undefined: anything, whatever the kernel has
   */
  async apply(table: NetworkTable, changes: TableChanges | undefined): Promise<void> {
    if (!this.#table || !this.#nodeSide.holder) {
      this.#nodeSide.holder = this;
      this.#told = undefined;
    }
    this.#table = table;
    if (!this.#isHolder) return;
    const told = this.#told;
    if (!changes || changes.network || !told) return this.#replace(table);
    told.update(table, changes);
    // Whoever else has changed the tables makes a change fail; the whole never does for that.
    return this.#change(told).catch(() => this.#replace(table));
  }

  /**
   * Ports of single tasks on this node (`mode=host`) that the Engine leaves to their gateway: all of them, each time.
   * Before the first `apply` they are only noted.
   */
  async setHostPorts(ports: readonly HostPort[]): Promise<void> {
    this.#hostPorts = ports;
    const [told, table] = [this.#told, this.#table];
    if (!table || !this.#isHolder) return;
    if (!told) return this.#replace(table);
    told.setHostPorts(ports);
    return this.#change(told).catch(() => this.#replace(table));
  }

  /** How the kernel differs from what `table` says, one line each. */
  async audit(table: NetworkTable): Promise<string[]> {
    if (this.#nodeSide.holder && !this.#isHolder) return [];
    const wanted = new IngressTables(table, this.#hostPorts, this.#selfNodeId);
    const named = (where: string, lines: readonly string[]) => lines.map((line) => `${where}: ${line}`);
    return [
      ...named("ingress namespace", await auditTable(this.#mesh, wanted.mesh)),
      ...named("node", await auditTable(this.#host, wanted.host)),
      ...named("node", (await auditFirewall(this.#host)).differences),
      ...(await this.#auditCable()),
      ...named("ingress namespace", await wrongSettings(this.#mesh, meshSettings)),
      ...named("node", await wrongSettings(this.#host, hostSettings)),
    ];
  }

  /** Takes all of it away, also what a daemon before this one has made; repeatable. */
  async remove(): Promise<void> {
    this.#told = undefined;
    this.#table = undefined;
    if (this.#nodeSide.holder && !this.#isHolder) return;
    this.#nodeSide.holder = undefined;
    await removeTable(this.#host);
    await closeFirewall(this.#host);
    await this.#cut(this.#host, hostLink);
  }

  get #isHolder(): boolean {
    return this.#nodeSide.holder === this;
  }

  /** The other end, and the routes of both, go with it. */
  async #cut(commands: Commands, name: string): Promise<void> {
    if (!(await this.#has(commands, name))) return;
    try {
      await commands.run("ip", ["link", "del", name]);
    } catch (error) {
      // The kernel takes a namespace down some time after its removal, and the cable with it: perhaps just now.
      if (await this.#has(commands, name)) throw error;
    }
  }

  async #replace(table: NetworkTable): Promise<void> {
    this.#told = undefined;
    const tables = new IngressTables(table, this.#hostPorts, this.#selfNodeId);
    await this.#lay();
    await setSettings(this.#mesh, meshSettings);
    await setSettings(this.#host, hostSettings);
    for (const what of await openFirewall(this.#host)) this.#log.info(`ingress: ${what}: put right`);
    await this.#mesh.run("nft", ["-f", "-"], tables.mesh.render());
    await this.#host.run("nft", ["-f", "-"], tables.host.render());
    tables.mesh.takeChanges();
    tables.host.takeChanges();
    this.#told = tables;
  }

  /** The namespace comes first: what is led there by the node is answered, be it with a refusal. */
  async #change(told: IngressTables): Promise<void> {
    this.#told = undefined;
    for (const [commands, table] of [
      [this.#mesh, told.mesh],
      [this.#host, told.host],
    ] as const) {
      const script = table.renderChanges();
      if (script !== "") await commands.run("nft", ["-f", "-"], script);
      table.takeChanges();
    }
    this.#told = told;
  }

  /** The cable between the node and the namespace. */
  async #lay(): Promise<void> {
    const namespace = this.#namespace;
    // Its end may be in a namespace of ours that is gone, or in another network's that was the ingress network before.
    const there = (await this.#has(this.#host, hostLink)) && (await this.#has(this.#mesh, meshLink));
    const lines = [
      ...(there ? [] : [`link add ${hostLink} type veth peer name ${meshLink} netns ${namespace}`]),
      `address replace ${hostAddress}/${cablePrefix} dev ${hostLink}`,
      `link set ${hostLink} up`,
    ];
    if (!there) {
      await this.#cut(this.#host, hostLink);
      await this.#cut(this.#mesh, meshLink);
    }
    await this.#host.run("ip", ["-batch", "-"], `${lines.join("\n")}\n`);
    const meshLines = [
      `address replace ${meshAddress}/${cablePrefix} dev ${meshLink}`,
      `link set ${meshLink} up`,
      `route replace default via ${hostAddress} dev ${meshLink}`,
    ];
    await this.#mesh.run("ip", ["-batch", "-"], `${meshLines.join("\n")}\n`);
  }

  async #auditCable(): Promise<string[]> {
    const differences: string[] = [];
    for (const [commands, name, address] of [
      [this.#host, hostLink, hostAddress],
      [this.#mesh, meshLink, meshAddress],
    ] as const) {
      const [link] = await this.#show(commands, name);
      if (!link) differences.push(`${name} is missing`);
      else {
        if (!link.flags?.includes("UP")) differences.push(`${name} is down`);
        const has = link.addr_info?.some(({ local, prefixlen }) => local === address && prefixlen === cablePrefix);
        if (!has) differences.push(`${name} lacks the address ${address}/${cablePrefix}`);
      }
    }
    const routes = parsedList<RouteView>(await this.#mesh.run("ip", ["-json", "route", "show", "default"]));
    if (!routes.some(({ gateway, dev }) => gateway === hostAddress && dev === meshLink)) {
      differences.push(`ingress namespace: there is no default route by ${hostAddress}`);
    }
    return differences;
  }

  async #has(commands: Commands, name: string): Promise<boolean> {
    return (await this.#show(commands, name)).length > 0;
  }

  async #show(commands: Commands, name: string): Promise<readonly AddressView[]> {
    // Asked for by name, one that is absent is a failure like any other.
    const listed = await commands.run("ip", ["-json", "address", "show"]);
    return parsedList<AddressView>(listed).filter(({ ifname }) => ifname === name);
  }
}
