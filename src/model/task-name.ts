/** How a task is called: its container's name, and what templates know as `.Task.Name`. */
import type { AssignedTask } from "./types.ts";

/** `service.slot.taskID`; `service.nodeID.taskID` for a task without a slot (global services). */
export function taskName(task: AssignedTask): string {
  return `${task.ServiceAnnotations.Name}.${taskSlot(task)}.${task.ID}`;
}

/** The slot, or where there is none the node: it tells apart the tasks of a service. */
export function taskSlot(task: AssignedTask): string {
  return task.Slot ? String(task.Slot) : task.NodeID;
}
