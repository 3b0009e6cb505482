/**
 * A task is only given to a node that, in the view of whoever gives it, is ready and active, has what the task
 * reserves, and has its host ports free.
 */
import { rank } from "../../../src/model/state.ts";
import type { Node, Task } from "../../../src/model/types.ts";
import type { View } from "../../../src/store/store.ts";
import { type CheckerFactory, describeTask, type Finding } from "../checker.ts";

export const placedWhereAllowed: CheckerFactory = () => ({
  name: "placed where allowed",
  when: "always",
  attempt({ view, batch }) {
    const written = new Map<string, Task>();
    for (const { table, object } of batch.puts) if (table === "tasks") written.set(object.ID, object as Task);
    const receiving = new Map<string, Task[]>();
    for (const task of written.values()) {
      const before = view.get("tasks", task.ID);
      if (task.Status.State !== "assigned" || before?.Status.State === "assigned") continue;
      const tasks = receiving.get(task.NodeID) ?? [];
      receiving.set(task.NodeID, tasks);
      tasks.push(task);
    }
    for (const [nodeId, tasks] of receiving) {
      const finding = check(view, nodeId, tasks, written);
      if (finding) return `${finding}: ${tasks.map(describeTask).join("; ")}`;
    }
    return undefined;
  },
});

function check(view: View, nodeId: string, placed: readonly Task[], written: ReadonlyMap<string, Task>): Finding {
  const node = view.get("nodes", nodeId);
  if (!node) return `assigned to node ${nodeId} that is not there`;
  if (node.Status.State !== "ready") return `assigned to a node that is ${node.Status.State}`;
  if ((node.Spec.Availability ?? "active") !== "active") return `assigned to a node on ${node.Spec.Availability}`;
  const there = new Map<string, Task>();
  for (const task of view.tasksOfNode(nodeId)) there.set(task.ID, written.get(task.ID) ?? task);
  for (const task of placed) there.set(task.ID, task);
  return overcommitted(view, node, [...there.values()].filter(isBorne), placed);
}

function overcommitted(view: View, node: Node, borne: readonly Task[], placed: readonly Task[]): Finding {
  const sum = (of: (task: Task) => number, tasks: readonly Task[]) =>
    tasks.reduce((total, task) => total + of(task), 0);
  const cpus = (task: Task) => reservations(view, task)?.NanoCPUs ?? 0;
  const bytes = (task: Task) => reservations(view, task)?.MemoryBytes ?? 0;
  const { NanoCPUs = 0, MemoryBytes = 0 } = node.Description?.Resources ?? {};
  if (sum(cpus, placed) > 0 && sum(cpus, borne) > NanoCPUs) return `${sum(cpus, borne)} of ${NanoCPUs} nano CPUs`;
  if (sum(bytes, placed) > 0 && sum(bytes, borne) > MemoryBytes) return `${sum(bytes, borne)} of ${MemoryBytes} bytes`;
  const ports = new Set<string>();
  for (const task of borne) {
    for (const { PublishMode, PublishedPort, Protocol } of specOf(view, task)?.EndpointSpec?.Ports ?? []) {
      if (PublishMode !== "host" || !PublishedPort) continue;
      const port = `${Protocol ?? "tcp"}/${PublishedPort}`;
      if (ports.has(port)) return `two tasks have the host's port ${port}`;
      ports.add(port);
    }
  }
  return undefined;
}

function isBorne(task: Task): boolean {
  const state = rank(task.Status.State);
  return state >= rank("assigned") && state <= rank("running");
}

function specOf(view: View, task: Task) {
  return view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec;
}

function reservations(view: View, task: Task) {
  return specOf(view, task)?.TaskTemplate?.Resources?.Reservations;
}
