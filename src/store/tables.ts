/** The store's tables and their indexes: what there is, and by what it is found. */
import type { Cluster, Lock, Network, Node, Service, SpecRevision, StoredObject, Task } from "../model/types.ts";
import { Table } from "./table.ts";

export interface Tables {
  cluster: Cluster;
  nodes: Node;
  services: Service;
  /** Service specs, one row per revision. */
  specs: SpecRevision;
  tasks: Task;
  networks: Network;
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
  "locks",
] as const satisfies TableName[];

/** For each table, its indexes: from an object to its key (undefined: not in this index). */
export const indexes: { [T in TableName]: Record<string, (object: Tables[T]) => string | undefined> } = {
  cluster: {},
  nodes: {},
  services: {
    name: (service) => service.Name,
    /** Names are unique whatever their case, as host names are. */
    foldedName: (service) => service.Name.toLowerCase(),
  },
  specs: { service: (spec) => spec.ServiceID },
  tasks: {
    service: (task) => task.ServiceID,
    node: (task) => task.NodeID || undefined,
    slot: (task) => slotKey(task.ServiceID, task.Slot),
    /** Only the states in which a manager's loop still has to act before an agent can: `new` and `pending`. */
    state: (task) => (task.Status.State === "new" || task.Status.State === "pending" ? task.Status.State : undefined),
  },
  networks: { name: (network) => network.Name },
  locks: {},
};

export function slotKey(serviceId: string, slot: number): string {
  return `${serviceId}/${slot}`;
}

/** An empty table with the indexes of `name`. */
export function tableOf(name: TableName): Table<StoredObject> {
  return new Table(indexes[name] as Record<string, (object: StoredObject) => string | undefined>);
}
