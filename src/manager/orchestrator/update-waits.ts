/**
 * Why an update does not get on: which slot it waits for, and what that slot's task waits for. It is added to the
 * message of the update's status while it holds (Swarm's update only stands still), and taken away when it goes on.
 *
 * Invariant: the text says how things are and never for how long, so it is written once and not every second; what
 * goes from one step to the next in time is never mentioned.
 */
import { isRunnableDesire, isTerminal, rank } from "../../model/state.ts";
import type { Task, UpdateStatus } from "../../model/types.ts";
import { startTime } from "./restart.ts";
import type { ServicePlan } from "./service-plan.ts";
import { newestTask, type Slot } from "./slot.ts";
import { isDisposable, isUnassigned } from "./task.ts";

/** A step that takes longer is worth a word. */
const longStepMs = 5_000;
/** Of the reason that a task gives; it may be a registry's whole page. */
const longestReason = 500;
const mark = "; waiting for ";

/** A slot in which the update waits for a task. */
export interface WaitingSlot {
  readonly slot: Slot;
  readonly task: Task;
  /** New tasks have ended here: the old one stays until one can be prepared. */
  readonly failing?: boolean;
}

/** The update's message, with what it waits for if that takes long; sees to it that the plan looks again in time. */
export function messageWhileWaiting(
  plan: ServicePlan,
  message: string,
  waiting: readonly WaitingSlot[],
  order: "stop-first" | "start-first",
): string {
  const base = message.split(mark)[0] ?? "";
  const stuck = waiting.filter((one) => {
    if (one.failing) return true;
    const since = Math.max(...one.slot.tasks.map((task) => plan.writtenAt(task)));
    plan.lookAgain(since + longStepMs);
    return since + longStepMs <= plan.now;
  });
  const first = stuck.toSorted((left, right) => comparePlaces(left.slot, right.slot))[0];
  if (!first) return base;
  const more = stuck.length > 1 ? ` (and ${stuck.length - 1} more)` : "";
  return `${base}${mark}${placeText(plan, first.slot)}${more}: ${reasonOf(plan, first, order)}`;
}

/** Whether the status says what its update waits for: then each step of a task is of interest. */
export function saysWhatItWaitsFor({ Message = "" }: UpdateStatus): boolean {
  return Message.includes(mark);
}

function comparePlaces(left: Slot, right: Slot): number {
  return left.place.slot - right.place.slot || (left.place.nodeId < right.place.nodeId ? -1 : 1);
}

function placeText(plan: ServicePlan, { place }: Slot): string {
  return place.slot > 0 ? `slot ${place.slot}` : `node ${nodeName(plan, place.nodeId)}`;
}

function reasonOf(plan: ServicePlan, waiting: WaitingSlot, order: "stop-first" | "start-first"): string {
  const { task, slot } = waiting;
  const { State, Err } = task.Status;
  if (waiting.failing) return failureText(slot, task);
  if (isUnassigned(task)) {
    // The old task's room is what the new one lacks, perhaps.
    const keeps = order === "start-first" && slot.live.length > 1;
    return `task ${task.ID} is ${State}: ${ownWords(task)}${keeps ? " (start-first: the old task stays until it runs)" : ""}`;
  }
  const where = `on node ${nodeName(plan, task.NodeID)}`;
  const [stopping] = stoppingTasks(plan, waiting);
  if (stopping) {
    return `task ${task.ID} is ${State}, and task ${stopping.ID} is still stopping on node ${nodeName(plan, stopping.NodeID)}`;
  }
  if (task.DesiredState === "ready" && startTime(task, plan.timesOf(task)) > plan.now) {
    return `task ${task.ID} is ${State} ${where}, and its restart delay is not over`;
  }
  if (Err || rank(State) >= rank("preparing")) {
    const words = ownWords(task);
    return `task ${task.ID} is ${State} ${where}${words === "" || words === State ? "" : `: ${words}`}`;
  }
  const state = plan.view.get("nodes", task.NodeID)?.Status.State ?? "unknown";
  return `task ${task.ID} is ${State} ${where}, which has not begun it${state === "ready" ? "" : ` (the node is ${state})`}`;
}

/** Without names of tasks: there is a new one every few seconds. */
function failureText(slot: Slot, task: Task): string {
  const last = newestTask(slot.tasks.filter(({ Status }) => isTerminal(Status.State) && Status.Err)) ?? task;
  return `its new task was ${last.Status.State}: ${ownWords(last)}`;
}

/** Why the task itself says that it waits, without its state's name. */
function ownWords({ Status: { State, Err, Message = "" } }: Task): string {
  const words = Err || (Message.startsWith(`${State}: `) ? Message.slice(State.length + 2) : Message);
  return words.length > longestReason ? `${words.slice(0, longestReason)}...` : words;
}

/** What a prepared task waits for: other tasks of its slot that are to stop and have not. */
function stoppingTasks(plan: ServicePlan, { slot, task }: WaitingSlot): Task[] {
  if (task.DesiredState !== "ready" || rank(task.Status.State) < rank("ready")) return [];
  return slot.tasks.filter(
    (other) => !isRunnableDesire(other.DesiredState) && !isDisposable(other) && !plan.isLost(other.NodeID),
  );
}

function nodeName(plan: ServicePlan, nodeId: string): string {
  return plan.view.get("nodes", nodeId)?.Description?.Hostname ?? nodeId;
}

/** Whether the task is one that an update may wait for. */
export function isOnItsWay(task: Task): boolean {
  return !isTerminal(task.Status.State) && rank(task.Status.State) < rank("running");
}
