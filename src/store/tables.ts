/** The store's tables and their indexes: what there is, and by what it is found. */
import { addressesHeld, addressOf, virtualAddresses } from "../model/networks.ts";
import type {
  Cluster,
  Config,
  Lock,
  Network,
  NetworkAddress,
  Node,
  Secret,
  Service,
  SpecRevision,
  StoredObject,
  Task,
} from "../model/types.ts";
import { type KeysOf, Table } from "./table.ts";

export interface Tables {
  cluster: Cluster;
  nodes: Node;
  services: Service;
  /** Service specs, one row per revision. */
  specs: SpecRevision;
  tasks: Task;
  networks: Network;
  secrets: Secret;
  configs: Config;
  /** The managers' lead, and what else only one of them may decide at a time. */
  locks: Lock;
}

export type TableName = keyof Tables;

export const tableNames = [
  "cluster",
  "nodes",
  "services",
  "specs",
  "tasks",
  "networks",
  "secrets",
  "configs",
  "locks",
] as const satisfies TableName[];

/** For each table, its indexes: from an object to its key or keys (undefined: not in this index). */
export const indexes: { [T in TableName]: Record<string, KeysOf<Tables[T]>> } = {
  cluster: {},
  nodes: {
    /** Their own addresses on networks (`addressKey`). */
    address: (node) => addressKeys(node.Attachments),
    /** Takes part in networks, and has no address of its own yet. */
    unattached: (node) => (node.DataPath && !node.Attachments?.length ? "yes" : undefined),
  },
  services: {
    name: (service) => service.Name,
    /** Names are unique whatever their case, as host names are. */
    foldedName: (service) => service.Name.toLowerCase(),
    /** Their virtual addresses (`addressKey`). */
    address: (service) => addressKeys(virtualAddresses(service)),
    /** Networks on which they have a virtual address. */
    network: ({ Endpoint }) => Endpoint?.VirtualIPs?.map(({ NetworkID }) => NetworkID ?? ""),
  },
  specs: { service: (spec) => spec.ServiceID },
  tasks: {
    service: (task) => task.ServiceID,
    node: (task) => task.NodeID || undefined,
    slot: (task) => slotKey(task.ServiceID, task.Slot),
    /** Only the states in which a manager's loop still has to act before an agent can: `new` and `pending`. */
    state: (task) => (task.Status.State === "new" || task.Status.State === "pending" ? task.Status.State : undefined),
    /** Those that are new, by service. */
    newOfService: (task) => (task.Status.State === "new" ? task.ServiceID : undefined),
    /** Those that wait for an address, by network. */
    waitsFor: (task) => (task.Status.State === "new" ? task.WaitsFor : undefined),
    /** Networks on which they hold an address. */
    network: (task) => addressesHeld(task)?.map(({ NetworkID }) => NetworkID),
    /** The addresses that they hold (`addressKey`). */
    address: (task) => addressKeys(addressesHeld(task)),
  },
  networks: {
    /** A removed one has given back its name. */
    name: (network) => (network.Removed ? undefined : network.Name),
    ingress: (network) => (network.Spec?.Ingress && !network.Removed ? "yes" : undefined),
  },
  secrets: { name: ({ Spec }) => Spec.Name },
  configs: { name: ({ Spec }) => Spec.Name },
  locks: {},
};

export function slotKey(serviceId: string, slot: number): string {
  return `${serviceId}/${slot}`;
}

/** The key of an address (without prefix) of a network. */
export function addressKey(networkId: string, address: string): string {
  return `${networkId}/${address}`;
}

function addressKeys(addresses: readonly NetworkAddress[] | undefined): string[] | undefined {
  return addresses?.map(({ NetworkID, Address }) => addressKey(NetworkID, addressOf(Address)));
}

/** An empty table with the indexes of `name`. */
export function tableOf(name: TableName): Table<StoredObject> {
  return new Table(indexes[name] as Record<string, KeysOf<StoredObject>>);
}
