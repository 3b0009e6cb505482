/**
 * What the names of one network lead to. It is a copy, taken when the data plane says so and not when the managers do:
 * a name leads to an address only while the kernel can reach it.
 *
 * A name is a service's or one of its aliases (its virtual address, else its tasks' own), `tasks.` before one of these
 * (the tasks' own), or one task's alone. Names have no case. Several services may have one alias; it means all of them.
 */
import { addTo, removeFrom } from "../../lib/sets.ts";
import type { NetworkService } from "../../model/network-state.ts";
import type { NetworkTable, TableChanges } from "../table.ts";

interface ServiceNames {
  readonly names: readonly string[];
  readonly virtualAddress: string | undefined;
  /** Of its active tasks. */
  readonly addresses: readonly string[];
  readonly name: string;
}

interface TaskNames {
  readonly names: readonly string[];
  readonly address: string;
  readonly active: boolean;
}

const tasksPrefix = "tasks.";

export class NetworkNames {
  readonly #services = new Map<string, ServiceNames>();
  readonly #tasks = new Map<string, TaskNames>();
  readonly #servicesByName = new Map<string, Set<string>>();
  readonly #tasksByName = new Map<string, Set<string>>();
  readonly #taskByAddress = new Map<string, string>();
  readonly #serviceByAddress = new Map<string, string>();

  /** @param changes what may have changed since the last update; undefined: everything */
  update(table: NetworkTable, changes: TableChanges | undefined): void {
    const services = changes?.services ?? [...this.#services.keys(), ...table.services.keys()];
    const tasks = changes?.endpoints ?? [...this.#tasks.keys(), ...table.endpoints.keys()];
    for (const id of new Set(services)) this.#setService(id, serviceNames(table, table.services.get(id)));
    for (const id of new Set(tasks)) {
      const endpoint = table.endpoints.get(id);
      const names = endpoint?.names.filter((name) => name !== "").map((name) => name.toLowerCase()) ?? [];
      this.#setTask(id, endpoint && { names, address: endpoint.address, active: endpoint.active });
    }
  }

  /** The addresses that a name in lower case leads to, none while nothing runs; undefined for an unknown name. */
  addressesOf(name: string): string[] | undefined {
    const wantsTasks = name.startsWith(tasksPrefix);
    const services = this.#servicesByName.get(wantsTasks ? name.slice(tasksPrefix.length) : name);
    const tasks = this.#tasksByName.get(name);
    if (!services && !tasks) return undefined;
    const found = new Set<string>();
    for (const id of services ?? []) {
      const service = this.#services.get(id)!;
      if (service.virtualAddress && !wantsTasks) found.add(service.virtualAddress);
      else for (const address of service.addresses) found.add(address);
    }
    for (const id of tasks ?? []) {
      const task = this.#tasks.get(id)!;
      if (task.active) found.add(task.address);
    }
    return [...found];
  }

  /** The name of the task or the service that has this address. */
  nameOf(address: string): string | undefined {
    const service = this.#serviceByAddress.get(address);
    if (service !== undefined) return this.#services.get(service)?.name;
    const task = this.#taskByAddress.get(address);
    return task === undefined ? undefined : this.#tasks.get(task)?.names[0];
  }

  /** The task that has this address. */
  taskOf(address: string): string | undefined {
    return this.#taskByAddress.get(address);
  }

  has(taskId: string): boolean {
    return this.#tasks.has(taskId);
  }

  #setService(id: string, after: ServiceNames | undefined): void {
    const before = this.#services.get(id);
    for (const name of before?.names ?? []) removeFrom(this.#servicesByName, name, id);
    if (before?.virtualAddress && this.#serviceByAddress.get(before.virtualAddress) === id)
      this.#serviceByAddress.delete(before.virtualAddress);
    if (!after) {
      this.#services.delete(id);
      return;
    }
    this.#services.set(id, after);
    for (const name of after.names) addTo(this.#servicesByName, name, id);
    if (after.virtualAddress) this.#serviceByAddress.set(after.virtualAddress, id);
  }

  #setTask(id: string, after: TaskNames | undefined): void {
    const before = this.#tasks.get(id);
    for (const name of before?.names ?? []) removeFrom(this.#tasksByName, name, id);
    if (before && this.#taskByAddress.get(before.address) === id) this.#taskByAddress.delete(before.address);
    if (!after) {
      this.#tasks.delete(id);
      return;
    }
    this.#tasks.set(id, after);
    for (const name of after.names) addTo(this.#tasksByName, name, id);
    this.#taskByAddress.set(after.address, id);
  }
}

function serviceNames(table: NetworkTable, service: NetworkService | undefined): ServiceNames | undefined {
  if (!service) return undefined;
  return {
    // An alias may be anything that a user wrote, but no name at all is a name.
    names: [service.name, ...service.aliases].filter((name) => name !== "").map((name) => name.toLowerCase()),
    virtualAddress: service.virtualAddress,
    addresses: table.activeEndpoints(service.serviceId).map(({ address }) => address),
    name: service.name,
  };
}
