/**
 * Virtual addresses of one network on one node: whoever of this node's tasks speaks to a service's address reaches one
 * of its active tasks in turn, and the task sees who it is. The kernel does it where the packet enters the bridge (DNAT
 * in the network's namespace), so nothing has to be set up in the task's own namespace, and answers are turned back on
 * the same bridge.
 *
 * - A connection stays with its task whatever is told later: only a connection's first packet is led. So a task that is
 *   no longer active keeps what it has, until its address is gone (conntrack.ts).
 * - A service without an active task refuses at once. It does so before the kernel remembers the connection: a UDP
 *   client that always uses the same port would else be refused for ever.
 * - A task that reaches itself by its service's address sees the network's gateway as its client: it would else answer
 *   itself directly, with the wrong address.
 *
 * Swarm leads with IPVS in a namespace beside the network's, and the task sees that namespace as its client.
 */
import { type Commands, inNamespace, parsedList } from "./commands.ts";
import type { AddressView } from "./kernel-links.ts";
import { bridgeName } from "./names.ts";
import { auditTable, type NftFrame, NftTable } from "./nft.ts";
import { type Settings, setSettings, wrongSettings } from "./settings.ts";
import type { NetworkTable, TableChanges } from "./table.ts";

export interface BalancerOptions {
  readonly commands: Commands;
  /** Name of the network's namespace. */
  readonly namespace: string;
  readonly selfNodeId: string;
}

/** What the kernel has been told. */
interface Told {
  readonly table: NftTable;
  /** Virtual address by service. */
  readonly addresses: Map<string, string>;
  /** Address of this node's endpoints by task. */
  readonly locals: Map<string, string>;
}

/** What has been led is given a route, though it stays on the bridge, and a namespace that doesn't forward has none. */
const settings: Settings = {
  ip_forward: "1",
  "conf/all/send_redirects": "0",
  [`conf/${bridgeName}/send_redirects`]: "0",
};

/** One for each network that isn't the ingress network; one call at a time. */
export class Balancer {
  readonly #commands: Commands;
  readonly #selfNodeId: string;
  #told: Told | undefined;

  constructor(options: BalancerOptions) {
    this.#commands = inNamespace(options.commands, options.namespace);
    this.#selfNodeId = options.selfNodeId;
  }

  /**
   * Makes the namespace equal to `table`: the nft table, and the virtual addresses on the bridge (which must be there).
   * @param changes what may differ since the last call; undefined: anything, whatever the kernel has
   */
  async apply(table: NetworkTable, changes: TableChanges | undefined): Promise<void> {
    const told = this.#told;
    if (!changes || changes.network || !told) return this.#replace(table);
    // Whoever else has changed the table makes a change fail; the whole never does for that.
    return this.#change(table, changes, told).catch(() => this.#replace(table));
  }

  /** How the kernel differs from what `table` says, one line each. */
  async audit(table: NetworkTable): Promise<string[]> {
    const wanted = balanceOf(table, this.#selfNodeId);
    const { missing, strangers } = await this.#compareAddresses(wanted);
    return [
      ...(await auditTable(this.#commands, wanted.table)),
      ...(await wrongSettings(this.#commands, settings)),
      ...missing.map((address) => `virtual address ${address} is missing on ${bridgeName}`),
      ...strangers.map((address) => `address ${address} should not be on ${bridgeName}`),
    ];
  }

  async #replace(table: NetworkTable): Promise<void> {
    this.#told = undefined;
    const next = balanceOf(table, this.#selfNodeId);
    await setSettings(this.#commands, settings);
    const { missing, strangers } = await this.#compareAddresses(next);
    await this.#run(missing, next.table.render(), strangers);
    next.table.takeChanges();
    this.#told = next;
  }

  async #change(table: NetworkTable, changes: TableChanges, told: Told): Promise<void> {
    // Until the kernel has taken it, what it has is uncertain.
    this.#told = undefined;
    const before = [...changes.services].flatMap((serviceId) => told.addresses.get(serviceId) ?? []);
    update(told, table, changes.endpoints, changes.services, this.#selfNodeId);
    const after = [...changes.services].flatMap((serviceId) => told.addresses.get(serviceId) ?? []);
    // Those that only another service has by now are in both.
    const missing = after.filter((address) => !before.includes(address));
    const strangers = before.filter((address) => !after.includes(address));
    await this.#run(missing, told.table.renderChanges(), strangers);
    told.table.takeChanges();
    this.#told = told;
  }

  /** An address is answered for before anybody is led by it, and until nobody is. */
  async #run(missing: readonly string[], script: string, strangers: readonly string[]): Promise<void> {
    await this.#addresses("replace", missing);
    if (script !== "") await this.#commands.run("nft", ["-f", "-"], script);
    await this.#addresses("del", strangers);
  }

  async #addresses(verb: "replace" | "del", addresses: readonly string[]): Promise<void> {
    if (addresses.length === 0) return;
    const lines = addresses.map((address) => `address ${verb} ${address}/32 dev ${bridgeName}\n`);
    await this.#commands.run("ip", ["-batch", "-"], lines.join(""));
  }

  async #compareAddresses({ addresses }: Told): Promise<{ missing: string[]; strangers: string[] }> {
    const listed = await this.#commands.run("ip", ["-json", "-4", "address", "show", "dev", bridgeName]);
    const there = new Set<string>();
    for (const { addr_info: infos = [] } of parsedList<AddressView>(listed)) {
      for (const { local, prefixlen } of infos) if (local !== undefined && prefixlen === 32) there.add(local);
    }
    const wanted = new Set(addresses.values());
    return {
      missing: [...wanted].filter((address) => !there.has(address)),
      strangers: [...there].filter((address) => !wanted.has(address)),
    };
  }
}

function frameOf(gateway: string): NftFrame {
  return {
    collections: {
      services: { kind: "map", type: "type ipv4_addr : verdict" },
      itself: { kind: "set", type: "type ipv4_addr . ipv4_addr" },
    },
    hooks: {
      lead: {
        hook: "type nat hook prerouting priority dstnat; policy accept;",
        rules: ["meta l4proto { tcp, udp, sctp } ip daddr vmap @services"],
      },
      hairpin: {
        hook: "type nat hook postrouting priority srcnat; policy accept;",
        rules: [`ct status dnat ip saddr . ip daddr @itself snat to ${gateway}`],
      },
    },
  };
}

/** The whole balance of a network, as the kernel of that node is to have it. */
export function balanceOf(table: NetworkTable, selfNodeId: string): Told {
  const told: Told = { table: new NftTable(frameOf(table.network.gateway)), addresses: new Map(), locals: new Map() };
  update(told, table, table.endpoints.keys(), table.services.keys(), selfNodeId);
  return told;
}

/** Brings what these tasks and services have up to date; an address may go from one to another. */
function update(
  told: Told,
  table: NetworkTable,
  taskIds: Iterable<string>,
  serviceIds: Iterable<string>,
  selfNodeId: string,
): void {
  const { table: nft, locals, addresses } = told;
  const localOf = (taskId: string) => {
    const endpoint = table.endpoints.get(taskId);
    return endpoint?.nodeId === selfNodeId ? endpoint.address : undefined;
  };
  const virtualOf = (serviceId: string) => table.services.get(serviceId)?.virtualAddress;

  move(locals, taskIds, localOf, (address, taskId) =>
    nft.setElement("itself", `${address} . ${address}`, taskId === undefined ? undefined : ""),
  );
  const ids = [...serviceIds];
  move(addresses, ids, virtualOf, (address, serviceId) =>
    nft.setElement("services", address, serviceId === undefined ? undefined : `goto ${chainOf(serviceId)}`),
  );
  for (const serviceId of ids) {
    if (!addresses.has(serviceId)) nft.setChain(chainOf(serviceId), undefined);
    else {
      const backends = table.activeEndpoints(serviceId).map(({ address }) => address);
      nft.setChain(chainOf(serviceId), backends.length === 0 ? refusal : [`dnat to ${inTurn(backends)}`]);
    }
  }
}

/** Those that lose their address first: another one may have got it. */
function move(
  told: Map<string, string>,
  ids: Iterable<string>,
  addressOf: (id: string) => string | undefined,
  set: (address: string, id: string | undefined) => void,
): void {
  const gained: [string, string][] = [];
  for (const id of ids) {
    const [before, after] = [told.get(id), addressOf(id)];
    if (before === after) continue;
    if (before !== undefined) set(before, undefined);
    told.delete(id);
    if (after !== undefined) gained.push([id, after]);
  }
  for (const [id, address] of gained) {
    told.set(id, address);
    set(address, id);
  }
}

function chainOf(serviceId: string): string {
  return `s_${serviceId}`;
}

/** What a client is told where nobody is active. */
export const refusal: readonly string[] = ["meta l4proto tcp reject with tcp reset", "reject"];

/** The address of a new connection's task: one after the other. */
export function inTurn(backends: readonly string[]): string {
  if (backends.length === 1) return backends[0]!;
  const numbered = backends.map((address, index) => `${index} : ${address}`);
  return `numgen inc mod ${backends.length} map { ${numbered.join(", ")} }`;
}
