/**
 * A place of a job: a slot, or a node of a global job, with all tasks that it has or had. What happens there is decided
 * here for both kinds: a task that failed is followed by another as its restart policy allows, and one that cannot stay
 * on its node by one that starts elsewhere at once.
 *
 * Invariants: a place whose task has completed gets no other in that iteration; and a task is let go to `complete` only
 * when no other task of the place can still be running.
 *
 * Better than Swarm: the loss of a node is no failure. It uses up no attempt, and nothing is waited for; only where the
 * restart condition is `none` the task is not made again, since it may have done its work. Attempts are counted on
 * nodes as they are in slots.
 */
import { isActiveDesire, isTerminal } from "../../../model/state.ts";
import type { Service, Task } from "../../../model/types.ts";
import { releaseTime, startTime } from "../restart.ts";
import type { ServicePlan } from "../service-plan.ts";
import { isNewer, newestTask, nextGeneration } from "../slot.ts";
import { discard, type Place, promote, shutDown } from "../task.ts";

export class JobPlace {
  readonly place: Place;
  /** Of the iteration that runs, in no order. */
  readonly tasks: Task[] = [];
  /** Of earlier iterations. */
  readonly former: Task[] = [];
  /** Of the iteration that runs, those that this plan tells to stop. */
  readonly stops: Task[] = [];

  constructor(place: Place) {
    this.place = place;
  }

  get isCompleted(): boolean {
    return this.tasks.some((task) => task.Status.State === "complete");
  }

  /** Those that are to come to their end by themselves, also where they have failed and nobody has acted on it yet. */
  get live(): readonly Task[] {
    return this.tasks.filter((task) => isActiveDesire(task.DesiredState) && task.Status.State !== "complete");
  }
}

/** The tasks of the service by their places. `keyOf`: the slot or the node of a task. */
export function jobPlaces<K>(
  plan: ServicePlan,
  keyOf: (task: Task) => K,
  placeOf: (key: K) => Place,
): Map<K, JobPlace> {
  const places = new Map<K, JobPlace>();
  for (const task of plan.view.tasksOfService(plan.service.ID)) {
    const key = keyOf(task);
    let place = places.get(key);
    if (!place) places.set(key, (place = new JobPlace(placeOf(key))));
    (isOfIteration(task, plan.service) ? place.tasks : place.former).push(task);
  }
  return places;
}

/** The task belongs to the run of the job that is under way (or was the last one). */
function isOfIteration(task: Task, service: Service): boolean {
  return (task.JobIteration?.Index ?? 0) === (service.JobStatus?.JobIteration.Index ?? 0);
}

/** Takes back what earlier iterations have not finished. */
export function endFormer(plan: ServicePlan, { former }: JobPlace): void {
  for (const task of former) {
    const change = isTerminal(task.Status.State) ? undefined : discard(task);
    if (change) plan.changes.push(change);
  }
}

/** Tells the live tasks of a place to stop; nothing follows them for now. */
export function endLive(plan: ServicePlan, place: JobPlace): void {
  place.stops.push(...place.live);
  tellStops(plan, place);
}

function tellStops(plan: ServicePlan, { stops }: JobPlace): void {
  for (const task of stops) plan.changes.push(shutDown(task, plan.context));
}

/** The place has no live task, and is to get one. */
export function isVacant(plan: ServicePlan, place: JobPlace): boolean {
  if (place.isCompleted || place.live.length > 0) return false;
  const newest = newestTask(place.tasks);
  return newest === undefined || mayFollow(plan, place, newest);
}

/** Its first task, or the next one after it was stopped. */
export function fillPlace(plan: ServicePlan, place: JobPlace): void {
  create(plan, place, plan.now);
}

/** What to do next in a place that has live tasks. @returns whether it still has one */
export function settlePlace(plan: ServicePlan, place: JobPlace): boolean {
  if (place.isCompleted) {
    endLive(plan, place);
    return false;
  }
  const [best, ...rest] = place.live.toSorted(
    (left, right) => Number(plan.isBroken(left)) - Number(plan.isBroken(right)) || (isNewer(left, right) ? -1 : 1),
  );
  if (!best) return false;
  place.stops.push(...rest);
  const isLive = settleTask(plan, place, best);
  tellStops(plan, place);
  return isLive;
}

/** How many tasks of any iteration still run though they are told to stop, be it by this plan. */
export function countStopping(plan: ServicePlan, place: JobPlace): number {
  let count = 0;
  for (const release of releases(plan, place)) {
    if (release <= plan.now) continue;
    plan.lookAgain(release);
    count++;
  }
  return count;
}

function settleTask(plan: ServicePlan, place: JobPlace, task: Task): boolean {
  if (isTerminal(task.Status.State)) return restart(plan, place, task);
  if (plan.isLost(task.NodeID) || plan.isDrained(task.NodeID)) return move(plan, place, task);
  if (task.DesiredState === "complete") return true;
  const readyAt = Math.max(startTime(task, plan.timesOf(task)), lastRelease(plan, place));
  if (readyAt <= plan.now) plan.changes.push(promote(task, "complete"));
  else plan.lookAgain(readyAt);
  return true;
}

/** The task has failed. */
function restart(plan: ServicePlan, place: JobPlace, task: Task): boolean {
  const ownStart = startTime(task, plan.timesOf(task));
  if (ownStart > plan.now) {
    // It did not even live until its own start: its delay is over first (no tight loop over a missing image).
    plan.lookAgain(ownStart);
    return true;
  }
  place.stops.push(task);
  if (!mayFollow(plan, place, task)) return false;
  const startAfter = plan.now + plan.rulesOf(task).delayMs;
  create(plan, place, startAfter, { startAfter });
  return true;
}

/** The task's node is lost or drained. */
function move(plan: ServicePlan, place: JobPlace, task: Task): boolean {
  place.stops.push(task);
  if (!mayFollow(plan, place, task)) return false;
  create(plan, place, plan.now);
  return true;
}

function mayFollow(plan: ServicePlan, place: JobPlace, task: Task): boolean {
  const { State } = task.Status;
  // We stopped it: that is no end of its own.
  if (!isTerminal(State) || State === "shutdown") return plan.rulesOf(task).condition !== "none";
  return plan.mayRestart(task, place.tasks);
}

/** A task that may run from `earliest` on. Until then, and for what is still stopping there, it waits prepared. */
function create(
  plan: ServicePlan,
  place: JobPlace,
  earliest: number,
  more: { readonly startAfter?: number } = {},
): void {
  const readyAt = Math.max(earliest, lastRelease(plan, place));
  plan.lookAgain(readyAt);
  plan.create({
    place: place.place,
    generation: nextGeneration({ tasks: [...place.tasks, ...place.former] }),
    desired: readyAt <= plan.now ? "complete" : "ready",
    ...more,
  });
}

/** When the last of the place's stopping tasks is out of the way. */
function lastRelease(plan: ServicePlan, place: JobPlace): number {
  return Math.max(0, ...releases(plan, place));
}

/** Of each stopping task, when it is out of the way; in the past if it is already. */
function* releases(plan: ServicePlan, { tasks, former, stops }: JobPlace): Iterable<number> {
  for (const task of tasks) {
    const toldNow = stops.includes(task);
    if (toldNow || !isActiveDesire(task.DesiredState)) yield releaseOf(plan, task, toldNow);
  }
  for (const task of former) yield releaseOf(plan, task, isActiveDesire(task.DesiredState));
}

function releaseOf(plan: ServicePlan, task: Task, toldNow: boolean): number {
  const toldAt = toldNow ? plan.now : plan.writtenAt(task);
  return releaseTime(task, plan.rulesOf(task), plan.isLost(task.NodeID), toldAt);
}
