/**
 * Addresses on networks: who gets which. Tasks, virtual addresses of services and nodes' own share a network's pool; an
 * address is in use as long as one of them has it in the store, and there is no other list of what is in use.
 *
 * They are handed out serially (`serial.ts`), so that whoever still remembers an address of someone who is gone does
 * not meet somebody else there. Each try looks the address up in the store's index; only where many in a row are in use
 * are those of the network read at once, so that a network that is nearly full costs no more than its size.
 */
import { contains, formatAddress, parseAddress, parseCidr, type Range } from "../../lib/ipv4.ts";
import { addressOf, virtualAddresses } from "../../model/networks.ts";
import type { AllocatedNetwork, Network, NetworkAddress } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { PlannedChange } from "../planner.ts";
import { lastChange, lastOf } from "./serial.ts";

/** A network that has an address plan. */
export type OverlayNetwork = Network & { readonly Allocated: AllocatedNetwork };

export function isOverlay(network: Network | undefined): network is OverlayNetwork {
  return network?.Allocated !== undefined;
}

/** The name under which the last address of a network is kept (`serial.ts`). */
export function addressSerial(networkId: string): string {
  return `address-${networkId}`;
}

export interface AddressUse {
  /** Addresses that the network can hand out. */
  readonly total: number;
  readonly used: number;
  /** Also those that nobody can be given: the network's own, its gateway's. */
  readonly inUse: number;
}

/** How many of a network's addresses are in use. */
export function addressUse(view: View, network: OverlayNetwork): AddressUse {
  const { pool, reserved, subnet } = rangesOf(network.Allocated);
  const all = usedAddresses(view, network.ID);
  let used = 0;
  for (const address of all) if (contains(pool, address) && !reserved.has(address)) used++;
  const own = [...reserved].filter((address) => contains(subnet, address));
  const inPool = own.filter((address) => contains(pool, address)).length;
  return { total: pool.last - pool.first + 1 - inPool, used, inUse: new Set([...all, ...own]).size };
}

/** Why nothing can be had from the network, for whoever waits. */
export function exhaustedText(view: View, network: OverlayNetwork): string {
  const { total, used } = addressUse(view, network);
  return `network ${network.Name} has no free address: ${used} of ${total} are in use`;
}

/** Tries in a row that find an address in use, before all of them are read. */
const triesOneByOne = 32;

/** The addresses that one plan hands out: those it has given are taken for its later steps. */
export class AddressPlan {
  readonly #view: View;
  readonly #networks = new Map<string, Handout>();

  constructor(view: View) {
    this.#view = view;
  }

  /** The next address (CIDR); undefined where there is none. */
  take(network: OverlayNetwork): string | undefined {
    const handout = this.#handout(network);
    const address = handout.next();
    return address === undefined ? undefined : cidr(address, handout.subnet);
  }

  /** An address that was asked for (CIDR); "foreign" where it is not of the network or nobody's, "used" where it is taken. */
  takeAsked(network: OverlayNetwork, text: string): { readonly address: string } | "foreign" | "used" {
    const handout = this.#handout(network);
    const address = parseAddress(text);
    if (address === undefined || !contains(handout.subnet, address)) return "foreign";
    if (handout.isReserved(address)) return "foreign";
    if (handout.isUsed(address)) return "used";
    handout.keep(address);
    return { address: cidr(address, handout.subnet) };
  }

  /** Takes back what this plan has given. */
  giveBack(networkId: string, address: string): void {
    this.#networks.get(networkId)?.giveBack(parseAddress(addressOf(address))!);
  }

  /** What has to be written with what was given. */
  changes(): PlannedChange[] {
    const changes: PlannedChange[] = [];
    for (const [id, { last, moved }] of this.#networks) {
      if (moved) changes.push(lastChange(this.#view, addressSerial(id), last));
    }
    return changes;
  }

  #handout(network: OverlayNetwork): Handout {
    let handout = this.#networks.get(network.ID);
    if (!handout) this.#networks.set(network.ID, (handout = new Handout(this.#view, network)));
    return handout;
  }
}

/** One network's part of a plan. */
class Handout {
  readonly subnet: Range;
  last: number;
  /** The row with the last one is to be written: it keeps two managers from giving one address away. */
  moved = false;
  readonly #view: View;
  readonly #networkId: string;
  readonly #pool: Range;
  readonly #reserved: ReadonlySet<number>;
  readonly #given = new Set<number>();
  /** All that are in use in the view, once they have been read. */
  #used: ReadonlySet<number> | undefined;
  /** What was last before the newest one was given. */
  #lastBefore = 0;
  /** Nothing was free, and nothing was given back since. */
  #exhausted = false;

  constructor(view: View, { ID, Allocated }: OverlayNetwork) {
    const { pool, reserved, subnet } = rangesOf(Allocated);
    this.#view = view;
    this.#networkId = ID;
    this.#pool = pool;
    this.#reserved = reserved;
    this.subnet = subnet;
    this.last = lastOf(view, addressSerial(ID)) ?? pool.first - 1;
  }

  next(): number | undefined {
    if (this.#exhausted) return undefined;
    const { first, last } = this.#pool;
    let address = this.last;
    for (let tried = 0; tried <= last - first; tried++) {
      address = address < first || address >= last ? first : address + 1;
      if (tried === triesOneByOne) this.#used ??= usedAddresses(this.#view, this.#networkId);
      if (this.isReserved(address) || this.isUsed(address)) continue;
      this.#given.add(address);
      this.#lastBefore = this.last;
      this.last = address;
      this.moved = true;
      return address;
    }
    this.#exhausted = true;
    return undefined;
  }

  keep(address: number): void {
    this.#given.add(address);
    this.moved = true; // not its place, but whoever gives away another one at the same moment must meet it
  }

  giveBack(address: number): void {
    this.#given.delete(address);
    this.#exhausted = false;
    // Nobody has had it: the next one may.
    if (address === this.last) this.last = this.#lastBefore;
  }

  isReserved(address: number): boolean {
    return this.#reserved.has(address);
  }

  isUsed(address: number): boolean {
    if (this.#given.has(address)) return true;
    return this.#used?.has(address) ?? this.#view.isAddressUsed(this.#networkId, formatAddress(address));
  }
}

function rangesOf({ Subnet, IPRange, Gateway }: AllocatedNetwork) {
  const subnet = parseCidr(Subnet)!.range;
  const pool = IPRange ? parseCidr(IPRange)!.range : subnet;
  // The network's own address and that of its broadcasts are nobody's.
  return { subnet, pool, reserved: new Set([subnet.first, subnet.last, parseAddress(Gateway)!]) };
}

/** The addresses that tasks, services and nodes have on the network. */
function usedAddresses(view: View, networkId: string): Set<number> {
  const used = new Set<number>();
  const add = (addresses: readonly NetworkAddress[] = []) => {
    for (const { NetworkID, Address } of addresses) {
      if (NetworkID === networkId) used.add(parseAddress(addressOf(Address))!);
    }
  };
  for (const { Addresses } of view.tasksOfNetwork(networkId)) add(Addresses);
  for (const service of view.servicesOfNetwork(networkId)) add(virtualAddresses(service));
  // Only on the ingress network nodes have addresses of their own; there all of them do.
  if (view.network(networkId)?.Spec?.Ingress) for (const { Attachments } of view.all("nodes")) add(Attachments);
  return used;
}

function cidr(address: number, subnet: Range): string {
  return `${formatAddress(address)}/${subnet.length}`;
}
