/**
 * The task reaper: what is kept of the past. A slot (for a global service: a node) keeps the newest tasks up to the
 * cluster's history limit, and enough to count its restarts; tasks that are to be removed go as soon as no agent runs
 * them; and a spec revision goes with the last task that was made from it.
 *
 * Invariants: nothing goes that an agent may still be running, that is still wanted, that an update under way judges
 * by, or that is all a slot has (the orchestrator sees from it that the slot is finished).
 *
 * Unlike Swarm's, it looks at every slot of a service that it is woken for, not only at those in which a task was made,
 * and it trims jobs too.
 */
import { isActiveDesire, isRunnableDesire, isTerminal } from "../../model/state.ts";
import type { Service, Task } from "../../model/types.ts";
import type { Change, View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange, Planner } from "../planner.ts";
import { restartRules } from "./restart.ts";
import { isNewer } from "./slot.ts";
import { isDisposable } from "./task.ts";
import { isMadeBy } from "./updater.ts";
import { serviceKeys } from "./wakes.ts";

const defaultHistoryLimit = 5;

/** Keys are ids of services, also of removed ones. */
export const reaperPlanner: Planner = {
  name: "reaper",
  *keys(view) {
    yield* serviceKeys(view);
    for (const spec of view.all("specs")) if (!view.service(spec.ServiceID)) yield spec.ServiceID;
  },
  wakes,
  plan,
};

function* wakes(change: Change, view: View): Iterable<string> {
  switch (change.table) {
    case "cluster":
      if (historyLimit(change.before) !== historyLimit(change.after)) yield* serviceKeys(view);
      return;
    case "services":
      yield change.id;
      return;
    case "tasks":
      if (isReapable(change, view)) yield (change.after ?? change.before)!.ServiceID;
      return;
    default:
      return;
  }
}

function isReapable({ before, after }: Change & { readonly table: "tasks" }, view: View): boolean {
  if (!after) return true; // perhaps the last of its spec revision
  if (!before) return hasHistory(view, after);
  if (after.Attachment) return isTerminal(after.Status.State);
  return !isRunnableDesire(after.DesiredState) && isDisposable(after);
}

/** Its slot has more tasks than the history limit allows. */
function hasHistory(view: View, task: Task): boolean {
  const limit = historyLimit(view.cluster());
  if (limit < 0) return false;
  let count = 0;
  for (const _ of view.tasksOfSlot(task.ServiceID, task.Slot)) if (++count > limit) return true;
  return false;
}

function historyLimit(cluster: ReturnType<View["cluster"]>): number {
  return cluster?.Spec.Orchestration?.TaskHistoryRetentionLimit ?? defaultHistoryLimit;
}

function plan(view: View, key: string, context: PlanContext): Plan {
  const service = view.service(key);
  const changes: PlannedChange[] = [];
  const usedRevisions = new Set<number>([service?.SpecVersion.Index ?? 0, service?.PreviousSpecVersion?.Index ?? 0]);

  const placeOf = placesOf(view, service);
  const counts = new Map<number | string, number>();
  const doomed: Task[] = [];
  for (const task of view.tasksOfService(key)) {
    if (isDoomed(task, service)) {
      doomed.push(task);
      continue;
    }
    usedRevisions.add(task.SpecVersion.Index);
    counts.set(placeOf(task), (counts.get(placeOf(task)) ?? 0) + 1);
  }
  if (service) {
    const kept = tasksToKeep(view, service);
    for (const slot of crowdedSlots(view, service, placeOf, counts, kept))
      doomed.push(...surplusOf(slot, kept, service));
  }
  for (const task of doomed) {
    if (changes.length >= context.room) return { changes, more: true };
    changes.push({ kind: "delete", table: "tasks", id: task.ID });
  }
  // The revision of a task that leaves the history here may still be counted: that deletion wakes the next plan.
  for (const spec of view.specsOfService(key)) {
    if (!usedRevisions.has(spec.Revision)) changes.push({ kind: "delete", table: "specs", id: spec.ID });
  }
  return { changes };
}

type PlaceOf = (task: Task) => number | string;

/** By the number of the slot, or by the node of a global service or job. */
function placesOf(view: View, service: Service | undefined): PlaceOf {
  const mode = service && view.specOf(service).Spec.Mode;
  return mode?.Global || mode?.GlobalJob ? (task) => task.NodeID : (task) => task.Slot;
}

/** The tasks of each slot that has more than it keeps, without those that go anyway. */
function crowdedSlots(
  view: View,
  service: Service,
  placeOf: PlaceOf,
  counts: ReadonlyMap<number | string, number>,
  kept: number,
): Iterable<Task[]> {
  const crowded = new Map<number | string, Task[]>();
  for (const [place, count] of counts) if (count > kept) crowded.set(place, []);
  if (crowded.size === 0) return [];
  for (const task of view.tasksOfService(service.ID)) {
    if (!isDoomed(task, service)) crowded.get(placeOf(task))?.push(task);
  }
  return crowded.values();
}

/** It goes, however short the history is. */
function isDoomed(task: Task, service: Service | undefined): boolean {
  if (task.Attachment) return isTerminal(task.Status.State); // without a service from the start: for a user's container
  if (!isDisposable(task)) return false;
  return task.DesiredState === "remove" || !service;
}

/** How many tasks a slot keeps, the running one included. */
function tasksToKeep(view: View, service: Service): number {
  const limit = historyLimit(view.cluster());
  if (limit < 0) return Infinity;
  const { maxAttempts } = restartRules(view.specOf(service).Spec.TaskTemplate);
  return Math.max(limit, maxAttempts > 0 ? maxAttempts + 1 : 0);
}

/** The oldest tasks beyond `kept`, of those that may go. */
function surplusOf(slot: readonly Task[], kept: number, service: Service): Task[] {
  const newestFirst = slot.toSorted((left, right) => (isNewer(left, right) ? -1 : 1));
  const hasLive = slot.some((task) => isWanted(task, service));
  const surplus: Task[] = [];
  for (const task of newestFirst.slice(hasLive ? 0 : 1).reverse()) {
    if (slot.length - surplus.length <= kept) break;
    if (!isWanted(task, service) && isDisposable(task) && !isEvidence(task, service)) surplus.push(task);
  }
  return surplus;
}

/** It fills its slot; so does a completed task of a job until the job runs again. */
function isWanted(task: Task, service: Service): boolean {
  if (!task.JobIteration) return isRunnableDesire(task.DesiredState);
  if (task.JobIteration.Index !== service.JobStatus?.JobIteration.Index) return false;
  return isActiveDesire(task.DesiredState) || task.Status.State === "complete";
}

/** The update under way counts its failures by the tasks that it made. */
function isEvidence(task: Task, service: Service): boolean {
  const state = service.UpdateStatus?.State;
  if (state !== "updating" && state !== "rollback_started") return false;
  return isMadeBy(service, task);
}
