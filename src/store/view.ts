/** Reading the store: `View`, over what is committed, and `Transaction`, over that and its own writes. */
import { parseRfc3339 } from "../lib/clock.ts";
import { assert, ShoalError } from "../lib/errors.ts";
import type { JoinSource } from "../model/join.ts";
import {
  type Cluster,
  type Config,
  type Network,
  type Node,
  type Secret,
  type Service,
  type SpecRevision,
  type StoredObject,
  specKey,
  type Task,
} from "../model/types.ts";
import type { Batch } from "./backend.ts";
import type { Table } from "./table.ts";
import { addressKey, slotKey, type TableName, type Tables, tableOf } from "./tables.ts";

export interface View extends JoinSource {
  /** Revision of the newest commit that this view has. */
  readonly revision: number;
  get<T extends TableName>(table: T, id: string): Tables[T] | undefined;
  all<T extends TableName>(table: T): Iterable<Tables[T]>;
  count(table: TableName): number;
  cluster(): Cluster | undefined;
  service(id: string): Service | undefined;
  serviceByName(name: string): Service | undefined;
  spec(serviceId: string, revision: number): SpecRevision | undefined;
  /** The current spec of a service; every service has one. */
  specOf(service: Service): SpecRevision;
  specsOfService(serviceId: string): Iterable<SpecRevision>;
  tasksOfService(serviceId: string): Iterable<Task>;
  tasksOfNode(nodeId: string): Iterable<Task>;
  tasksOfSlot(serviceId: string, slot: number): Iterable<Task>;
  /** Tasks that a manager's loop has to act on: `new` waits for the allocator, `pending` for the scheduler. */
  tasksInState(state: "new" | "pending"): Iterable<Task>;
  /** New tasks of one service; "" for those that are a user's container. */
  newTasksOfService(serviceId: string): Iterable<Task>;
  /** New tasks that wait for an address of the network. */
  tasksWaitingFor(networkId: string): Iterable<Task>;
  /** Tasks that hold an address on the network. */
  tasksOfNetwork(networkId: string): Iterable<Task>;
  /** Services that have a virtual address on the network. */
  servicesOfNetwork(networkId: string): Iterable<Service>;
  /** Whether a task, a service or a node has the address (without prefix). */
  isAddressUsed(networkId: string, address: string): boolean;
  /** Nodes that take part in networks but have no address on the ingress network. */
  unattachedNodes(): Iterable<Node>;
  /** Also one that is removed and only waits for its last task. */
  network(id: string): Network | undefined;
  networkByName(name: string): Network | undefined;
  /** The ingress network; there is at most one. */
  ingressNetwork(): Network | undefined;
  /** A secret or a config. */
  payloadByName(table: "secrets" | "configs", name: string): Secret | Config | undefined;
  /**
   * When this manager heard of the object's last write (milliseconds since the epoch), by its own clock: never before
   * it was written, by whichever manager and whatever that one's clock says. Undefined for one that has not been
   * written since the store was opened.
   */
  heardAt(object: StoredObject): number | undefined;
}

/** When commits were heard of, by the version that each gave to what it wrote: all those objects share it. */
export type HeardTimes = WeakMap<StoredObject["Version"], number>;

export abstract class BaseView implements View {
  abstract readonly revision: number;
  abstract get<T extends TableName>(table: T, id: string): Tables[T] | undefined;
  abstract all<T extends TableName>(table: T): Iterable<Tables[T]>;
  abstract count(table: TableName): number;
  /** The objects under `key` in one of the table's indexes (`tables.ts`). */
  abstract find<T extends TableName>(table: T, index: string, key: string): Iterable<Tables[T]>;
  abstract heardAt(object: StoredObject): number | undefined;

  cluster(): Cluster | undefined {
    return first(this.all("cluster"));
  }
  service(id: string): Service | undefined {
    return this.get("services", id);
  }
  serviceByName(name: string): Service | undefined {
    return first(this.find("services", "name", name));
  }
  spec(serviceId: string, revision: number): SpecRevision | undefined {
    return this.get("specs", specKey(serviceId, revision));
  }
  specOf(service: Service): SpecRevision {
    const revision = this.spec(service.ID, service.SpecVersion.Index);
    assert(revision, `service ${service.ID} has no spec of its revision ${service.SpecVersion.Index}`);
    return revision;
  }
  specsOfService(serviceId: string): Iterable<SpecRevision> {
    return this.find("specs", "service", serviceId);
  }
  tasksOfService(serviceId: string): Iterable<Task> {
    return this.find("tasks", "service", serviceId);
  }
  tasksOfNode(nodeId: string): Iterable<Task> {
    return this.find("tasks", "node", nodeId);
  }
  tasksOfSlot(serviceId: string, slot: number): Iterable<Task> {
    return this.find("tasks", "slot", slotKey(serviceId, slot));
  }
  tasksInState(state: "new" | "pending"): Iterable<Task> {
    return this.find("tasks", "state", state);
  }
  network(id: string): Network | undefined {
    return this.get("networks", id);
  }
  networkByName(name: string): Network | undefined {
    return first(this.find("networks", "name", name));
  }
  ingressNetwork(): Network | undefined {
    return first(this.find("networks", "ingress", "yes"));
  }
  payloadByName(table: "secrets" | "configs", name: string): Secret | Config | undefined {
    return first<Secret | Config>(this.find(table, "name", name));
  }
  newTasksOfService(serviceId: string): Iterable<Task> {
    return this.find("tasks", "newOfService", serviceId);
  }
  tasksWaitingFor(networkId: string): Iterable<Task> {
    return this.find("tasks", "waitsFor", networkId);
  }
  tasksOfNetwork(networkId: string): Iterable<Task> {
    return this.find("tasks", "network", networkId);
  }
  servicesOfNetwork(networkId: string): Iterable<Service> {
    return this.find("services", "network", networkId);
  }
  isAddressUsed(networkId: string, address: string): boolean {
    const key = addressKey(networkId, address);
    for (const table of ["tasks", "services", "nodes"] as const) {
      if (first<StoredObject>(this.find(table, "address", key))) return true;
    }
    return false;
  }
  unattachedNodes(): Iterable<Node> {
    return this.find("nodes", "unattached", "yes");
  }
}

/** An object to write: the store fills in its version and times. */
export type Draft<T extends StoredObject> = Omit<T, "Version" | "CreatedAt" | "UpdatedAt">;

interface Write {
  readonly table: TableName;
  readonly id: string;
  /** undefined: deleted. */
  readonly object: StoredObject | undefined;
}

/** A manager's lead, as the lead's row in `locks` had it when the manager took it. */
export interface Fence {
  readonly nodeId: string;
  /** Revision of the row: taking the lead writes it anew. */
  readonly revision: number;
}

/** The row of `locks` that says which manager leads. */
export const leadLock = "lead";

/** Rows that the names of all locks share: a bound for the table, and far more than transactions that run at once. */
const turns = 4096;

/** A version that no client can have seen: that of an object whose commit is still under way. */
const uncommitted = { Index: -1 };

export class Transaction extends BaseView {
  readonly revision: number;
  /** The transaction's own time, RFC 3339; each object written gets it as UpdatedAt. */
  readonly now: string;
  readonly #base: Record<TableName, Table<StoredObject>>;
  readonly #heard: HeardTimes;
  /**
   * What this transaction has put, with the same indexes as the base: made for a table when it is first searched,
   * because most transactions never search what they wrote.
   */
  readonly #puts = new Map<TableName, Table<StoredObject>>();
  /** Table and id of everything written -> what it is now (undefined: deleted). */
  readonly #writes = new Map<string, Write>();
  /** What must still be as it was though it isn't written. */
  readonly #guarded = new Map<string, Batch["guards"][number]>();
  /** What each write replaced, for `undoTo`. */
  readonly #undo: { key: string; table: TableName; id: string; before: Write | undefined }[] = [];

  constructor(base: Record<TableName, Table<StoredObject>>, heard: HeardTimes, revision: number, now: string) {
    super();
    this.#base = base;
    this.#heard = heard;
    this.revision = revision;
    this.now = now;
  }

  override get<T extends TableName>(table: T, id: string): Tables[T] | undefined {
    const write = this.#writes.get(writeKey(table, id));
    return (write ? write.object : this.#base[table].get(id)) as Tables[T] | undefined;
  }

  override all<T extends TableName>(table: T): Iterable<Tables[T]> {
    return this.#merged(table, this.#base[table].values(), (puts) => puts.values()) as Iterable<Tables[T]>;
  }

  override count(table: TableName): number {
    let count = this.#base[table].size;
    for (const write of this.#writes.values()) {
      if (write.table === table) count += Number(!!write.object) - Number(!!this.#base[table].get(write.id));
    }
    return count;
  }

  override find<T extends TableName>(table: T, index: string, key: string): Iterable<Tables[T]> {
    return this.#merged(table, this.#base[table].find(index, key), (puts) => puts.find(index, key)) as Iterable<
      Tables[T]
    >;
  }

  override heardAt({ Version }: StoredObject): number | undefined {
    return Version === uncommitted ? parseRfc3339(this.now) : this.#heard.get(Version);
  }

  /** Adds a new object; its id must be unused. */
  create<T extends TableName>(table: T, draft: Draft<Tables[T]>): Tables[T] {
    if (this.get(table, draft.ID)) throw new ShoalError("AlreadyExists", `${table} ${draft.ID} already exists`);
    const object = { ...draft, Version: uncommitted, CreatedAt: this.now, UpdatedAt: this.now } as unknown as Tables[T];
    this.#write(table, draft.ID, object);
    return object;
  }

  /** Replaces an object that exists; version and times are the store's to set, whatever the argument has. */
  put<T extends TableName>(table: T, object: Tables[T]): Tables[T] {
    const before = this.get(table, object.ID);
    if (!before) throw new ShoalError("NotFound", `${table} ${object.ID} not found`);
    const after = { ...object, Version: uncommitted, CreatedAt: before.CreatedAt, UpdatedAt: this.now };
    this.#write(table, object.ID, after);
    return after;
  }

  /** Removes an object; nothing happens where there is none. */
  delete(table: TableName, id: string): void {
    if (this.get(table, id)) this.#write(table, id, undefined);
  }

  /** Throws Swarm's "update out of sequence" unless `version` is the object's current one. */
  checkVersion(object: StoredObject, version: number): void {
    if (object.Version.Index !== version) throw new ShoalError("Unknown", "update out of sequence");
  }

  /** Makes the whole commit depend on the lead. Throws Aborted where it has been lost. */
  requireLead(fence: Fence): void {
    const lead = this.get("locks", leadLock);
    if (lead?.Holder !== fence.nodeId || lead.Version.Index !== fence.revision) {
      throw new ShoalError("Aborted", "this manager no longer leads");
    }
    this.#guarded.set(writeKey("locks", leadLock), { table: "locks", id: leadLock, revision: fence.revision });
  }

  /**
   * Makes transactions that name the same lock follow one another, on whichever managers they run: for what a
   * transaction decides from more than the objects it writes (a name that is free, a port that nobody has).
   * Name what is decided as narrowly as it can be: those who meet at a lock have to begin anew.
   */
  takeLock(name: string): void {
    const ID = `turn-${fold(name) % turns}`;
    const lock = this.get("locks", ID);
    if (lock) this.put("locks", lock);
    else this.create("locks", { ID, Holder: "" });
  }

  get isEmpty(): boolean {
    return this.#writes.size === 0;
  }

  get size(): number {
    return this.#writes.size;
  }

  mark(): number {
    return this.#undo.length;
  }

  undoTo(mark: number): void {
    while (this.#undo.length > mark) {
      const { key, table, id, before } = this.#undo.pop()!;
      if (before) this.#writes.set(key, before);
      else this.#writes.delete(key);
      this.#index(table, id, before?.object);
    }
  }

  writes(): Iterable<Write> {
    return this.#writes.values();
  }

  toBatch(): Batch {
    const puts: { table: TableName; object: StoredObject }[] = [];
    const deletes: { table: TableName; id: string }[] = [];
    const guards: { table: TableName; id: string; revision: number }[] = [];
    for (const { table, id, object } of this.#writes.values()) {
      if (object) puts.push({ table, object });
      else deletes.push({ table, id });
      guards.push({ table, id, revision: this.#base[table].get(id)?.Version.Index ?? 0 });
    }
    for (const [key, guard] of this.#guarded) if (!this.#writes.has(key)) guards.push(guard);
    return { puts, deletes, guards };
  }

  #write(table: TableName, id: string, object: StoredObject | undefined): void {
    const key = writeKey(table, id);
    this.#undo.push({ key, table, id, before: this.#writes.get(key) });
    this.#writes.set(key, { table, id, object });
    this.#index(table, id, object);
  }

  #index(table: TableName, id: string, object: StoredObject | undefined): void {
    if (object) this.#puts.get(table)?.set(object);
    else this.#puts.get(table)?.delete(id);
  }

  #putsOf(table: TableName): Table<StoredObject> {
    let puts = this.#puts.get(table);
    if (!puts) {
      this.#puts.set(table, (puts = tableOf(table)));
      for (const write of this.#writes.values()) if (write.table === table && write.object) puts.set(write.object);
    }
    return puts;
  }

  *#merged(
    table: TableName,
    base: Iterable<StoredObject>,
    own: (puts: Table<StoredObject>) => Iterable<StoredObject>,
  ): Iterable<StoredObject> {
    if (this.#writes.size === 0) {
      yield* base;
      return;
    }
    // Own writes are listed first as they are now, so that the caller may write while it iterates.
    const written = [...own(this.#putsOf(table))];
    for (const object of base) if (!this.#writes.has(writeKey(table, object.ID))) yield object;
    yield* written;
  }
}

/** A number for a text, well spread (FNV-1a). */
function fold(text: string): number {
  let folded = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    folded = Math.imul(folded ^ text.charCodeAt(index), 0x01000193);
  }
  return (folded ^ (folded >>> 15)) >>> 0;
}

function writeKey(table: TableName, id: string): string {
  return `${table}/${id}`;
}

function first<T>(items: Iterable<T>): T | undefined {
  for (const item of items) return item;
  return undefined;
}
