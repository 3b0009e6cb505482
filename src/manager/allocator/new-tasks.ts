/** New tasks: each gets its addresses and goes on, or says why it waits. */
import { isActiveDesire } from "../../model/state.ts";
import type { NetworkAddress, NetworkAttachmentOfContainer, Task } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange } from "../planner.ts";
import { AddressPlan, exhaustedText, isOverlay, type OverlayNetwork } from "./addresses.ts";
import { isAllocated, type Lack, lackOf, networksOf } from "./endpoint.ts";

/** Plans the tasks in turn. @param tasks in state "new" */
export function planNewTasks(view: View, tasks: Iterable<Task>, context: PlanContext): Plan {
  const allocation = new TaskAllocation(view, context.nowText);
  for (const task of tasks) {
    if (allocation.changes.length >= context.room) return allocation.result(true);
    allocation.plan(task);
  }
  return allocation.result(false);
}

/** What is the same for all new tasks of one spec revision. */
type Prospect =
  | { readonly kind: "ready"; readonly endpoint: Task["Endpoint"]; readonly networks: readonly OverlayNetwork[] }
  | { readonly kind: "lacks"; readonly lack: Lack }
  /** Its service's turn is still to come, or the service is being removed. */
  | { readonly kind: "not yet" };

/** One plan's work on new tasks. */
export class TaskAllocation {
  readonly changes: PlannedChange[] = [];
  readonly #view: View;
  readonly #nowText: string;
  readonly #addresses: AddressPlan;
  readonly #prospects = new Map<string, Prospect>();
  readonly #texts = new Map<string, string>();

  constructor(view: View, nowText: string) {
    this.#view = view;
    this.#nowText = nowText;
    this.#addresses = new AddressPlan(view);
  }

  result(more: boolean): Plan {
    return { changes: [...this.changes, ...this.#addresses.changes()], more };
  }

  /** @returns what the task lacks; undefined where it goes on, or nothing is to be done for now */
  plan(task: Task): Lack | undefined {
    if (!isActiveDesire(task.DesiredState)) {
      const Status = { Timestamp: this.#nowText, State: "shutdown", Message: "shut down before it was allocated" };
      this.#put({ ...withoutWait(task), Status: Status as Task["Status"] }); // nobody else would end it
      return undefined;
    }
    const outcome = task.Attachment ? this.#attach(task, task.Attachment) : this.#allocate(task);
    if (outcome && "lack" in outcome) {
      this.#explain(task, outcome.lack);
      return outcome.lack;
    }
    if (outcome) this.#put(outcome.task);
    return undefined;
  }

  #allocate(task: Task): { readonly task: Task } | { readonly lack: Lack } | undefined {
    const prospect = this.#prospectOf(task);
    if (prospect.kind === "not yet") return undefined;
    if (prospect.kind === "lacks") return prospect;
    const addresses: NetworkAddress[] = [];
    for (const network of prospect.networks) {
      const Address = this.#addresses.take(network);
      if (Address === undefined) {
        for (const taken of addresses) this.#addresses.giveBack(taken.NetworkID, taken.Address);
        return { lack: this.#full(network) };
      }
      addresses.push({ NetworkID: network.ID, Address });
    }
    const Status = { Timestamp: this.#nowText, State: "pending", Message: "pending task scheduling" } as const;
    return {
      task: {
        ...withoutWait(task),
        Status,
        ...(prospect.endpoint ? { Endpoint: prospect.endpoint } : {}),
        ...(addresses.length > 0 ? { Addresses: addresses } : {}),
      },
    };
  }

  #attach(
    task: Task,
    { NetworkID, Address: asked }: NetworkAttachmentOfContainer,
  ): { readonly task: Task } | { readonly lack: Lack } {
    const network = this.#view.network(NetworkID);
    if (!isOverlay(network) || network.Removed) return { lack: { text: `network ${NetworkID} not found` } };
    const taken = asked ? this.#addresses.takeAsked(network, asked) : this.#addresses.take(network);
    if (taken === undefined) return { lack: this.#full(network) };
    if (taken === "used") {
      return { lack: { text: `address ${asked} of network ${network.Name} is in use`, networkId: NetworkID } };
    }
    if (taken === "foreign") {
      const { Subnet } = network.Allocated;
      return { lack: { text: `address ${asked} is none that network ${network.Name} (${Subnet}) could give` } };
    }
    const Address = typeof taken === "string" ? taken : taken.address;
    const Status = { Timestamp: this.#nowText, State: "assigned", Message: "address assigned" } as const;
    return { task: { ...withoutWait(task), Status, Addresses: [{ NetworkID, Address }] } };
  }

  #prospectOf(task: Task): Prospect {
    const key = `${task.ServiceID}.${task.SpecVersion.Index}`;
    let prospect = this.#prospects.get(key);
    if (!prospect) this.#prospects.set(key, (prospect = this.#look(task)));
    return prospect;
  }

  #look(task: Task): Prospect {
    const service = this.#view.service(task.ServiceID);
    const revision = this.#view.spec(task.ServiceID, task.SpecVersion.Index);
    if (!service || !revision) return { kind: "not yet" };
    if (isAllocated(service, this.#view)) {
      return { kind: "ready", endpoint: service.Endpoint, networks: networksOf(revision.Spec, this.#view) };
    }
    const lack = lackOf(this.#view, service);
    return lack ? { kind: "lacks", lack } : { kind: "not yet" };
  }

  #full(network: OverlayNetwork): Lack {
    let text = this.#texts.get(network.ID);
    if (text === undefined) this.#texts.set(network.ID, (text = exhaustedText(this.#view, network)));
    return { text, networkId: network.ID };
  }

  #explain(task: Task, { text, networkId }: Lack): void {
    if (task.Status.Err === text && task.WaitsFor === networkId) return;
    const Status = { ...task.Status, Timestamp: this.#nowText, Err: text };
    this.#put({ ...withoutWait(task), Status, ...(networkId !== undefined && { WaitsFor: networkId }) });
  }

  #put(task: Task): void {
    this.changes.push({ kind: "update", table: "tasks", object: task });
  }
}

function withoutWait({ WaitsFor: _, ...task }: Task): Task {
  return task;
}
