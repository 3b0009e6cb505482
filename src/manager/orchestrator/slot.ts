/**
 * A slot: one place of a service (a slot number, or a node of a global service) with all tasks that it has or had, and
 * the decision what to do in it next. The same rules serve restarts, moves off a node, rolling updates and the end of
 * each; they look only at the tasks as they are, so it does not matter who began what.
 *
 * Invariants: a task gets desired state `running` only when no other task of the slot can still be running, except
 * that start-first lets a new one start beside the old; and a slot that has a running task loses it only to one that
 * is prepared (or that has shown that it cannot be while the old one is there).
 */
import { isRunnableDesire, isTerminal, rank } from "../../model/state.ts";
import type { Task } from "../../model/types.ts";
import { releaseTime, startTime } from "./restart.ts";
import type { ServicePlan } from "./service-plan.ts";
import { type Birth, isUnassigned, type Place, promote, shutDown } from "./task.ts";

export class Slot {
  readonly place: Place;
  /** All that are stored, in no order. */
  readonly tasks: Task[] = [];
  #live: readonly Task[] | undefined;

  constructor(place: Place) {
    this.place = place;
  }

  add(task: Task): void {
    this.tasks.push(task);
    this.#live = undefined;
  }

  /** Those that are wanted: their desired state is at most running. (Most slots have one task, and it is.) */
  get live(): readonly Task[] {
    if (!this.#live) {
      const all = this.tasks.every((task) => isRunnableDesire(task.DesiredState));
      this.#live = all ? this.tasks : this.tasks.filter((task) => isRunnableDesire(task.DesiredState));
    }
    return this.#live;
  }
}

/** How the slot takes part in an update. */
export interface SlotUpdate {
  /** Names the update that replaces the outdated task now. */
  readonly begin: string | undefined;
  readonly paused: boolean;
  readonly order: "stop-first" | "start-first";
}

/** The task that was made last. */
export function newestTask(tasks: readonly Task[]): Task | undefined {
  let newest: Task | undefined;
  for (const task of tasks) if (!newest || isNewer(task, newest)) newest = task;
  return newest;
}

/** By spec revision and generation, which only grow; by id only to be the same each time. */
export function isNewer(left: Task, right: Task): boolean {
  if (left.SpecVersion.Index !== right.SpecVersion.Index) return left.SpecVersion.Index > right.SpecVersion.Index;
  const difference = generationOf(left) - generationOf(right);
  return difference === 0 ? left.ID > right.ID : difference > 0;
}

function generationOf(task: Task): number {
  return task.Generation ?? 0;
}

/** For a new task of the slot. */
export function nextGeneration({ tasks }: Pick<Slot, "tasks">): number {
  return 1 + tasks.reduce((newest, task) => Math.max(newest, generationOf(task)), 0);
}

/**
 * The finished task that fills a slot without live tasks: its restart policy lets nothing follow it (until the spec
 * changes). Undefined where the slot is to be filled.
 */
export function finishedTask(plan: ServicePlan, slot: Slot): Task | undefined {
  const newest = newestTask(slot.tasks);
  if (!newest || newest.DesiredState === "remove") return undefined;
  // A rollback brings all slots back to life, also those whose old task had ended for good.
  const rollingBack = plan.service.UpdateStatus?.State === "rollback_started";
  if (rollingBack && newest.SpecVersion.Index !== plan.service.SpecVersion.Index) return undefined;
  return plan.mayRestart(newest, slot.tasks) ? undefined : newest;
}

/** A task of an empty slot. It waits (prepared) for what is still stopping there. */
export function fillSlot(plan: ServicePlan, slot: Slot, madeByUpdate?: string): void {
  const release = lastRelease(plan, slot, []);
  plan.lookAgain(release);
  const desired = release <= plan.now ? "running" : "ready";
  plan.create({ place: slot.place, generation: nextGeneration(slot), desired, madeByUpdate });
}

/** What to do next in a slot that has live tasks. */
export function settleSlot(plan: ServicePlan, slot: Slot, update: SlotUpdate): void {
  const { live } = slot;
  const first = live[0];
  if (!first) return;
  // Nearly all slots at nearly all times:
  if (live.length === 1 && first.DesiredState === "running" && !plan.isBroken(first) && !plan.isDirty(first)) return;
  new Settlement(plan, slot, update).settle();
}

class Settlement {
  readonly #plan: ServicePlan;
  readonly #slot: Slot;
  readonly #update: SlotUpdate;
  /** To be told to stop. Written last: a slot that loses the rest of its plan has its new task at least. */
  readonly #stops: Task[] = [];

  constructor(plan: ServicePlan, slot: Slot, update: SlotUpdate) {
    this.#plan = plan;
    this.#slot = slot;
    this.#update = update;
  }

  settle(): void {
    const current = this.#slot.live.filter((task) => !this.#plan.isDirty(task));
    const outdated = this.#slot.live.filter((task) => this.#plan.isDirty(task));
    if (current.length > 0) this.#handOver(this.#keepBest(current), outdated);
    else this.#goOnWithOutdated(this.#keepBest(outdated));
    for (const task of this.#stops) this.#plan.changes.push(shutDown(task, this.#plan.context));
  }

  /** There is a task of the current spec: it gets the slot, once it can. */
  #handOver(heir: Task, outdated: readonly Task[]): void {
    const { paused, order } = this.#update;
    const serving = outdated.filter((task) => this.#serves(task));
    let holder = serving.find(isRunning) ?? serving[0];
    this.#stops.push(...outdated.filter((task) => task !== holder));
    if (holder && paused && heir.Status.State !== "running") {
      // Not past the point of no return: the old task stays, as if the update had not come here.
      this.#stops.push(heir);
      return;
    }
    if (holder && (order === "start-first" ? isRunning(heir) : this.#mayStart(heir))) {
      this.#stops.push(holder);
      holder = undefined;
    }
    const blocked = holder !== undefined && order === "stop-first";
    if (this.#plan.isBroken(heir)) this.#restart(heir, blocked);
    else this.#promote(heir, blocked);
  }

  #goOnWithOutdated(task: Task): void {
    if (this.#update.begin !== undefined) this.#replaceOutdated(task, this.#update.begin);
    else if (this.#plan.isBroken(task)) this.#restart(task, false);
    else this.#promote(task, false);
  }

  #replaceOutdated(task: Task, madeByUpdate: string): void {
    const serves = this.#serves(task);
    if (!serves) this.#stops.push(task);
    const release = lastRelease(this.#plan, this.#slot, this.#stops);
    const waits = release > this.#plan.now || (serves && this.#update.order === "stop-first");
    this.#plan.lookAgain(release);
    this.#create(waits ? "ready" : "running", { madeByUpdate });
  }

  /** Replaces a task that ended or cannot stay, as its restart policy says. */
  #restart(task: Task, blocked: boolean): void {
    const plan = this.#plan;
    const ended = isTerminal(task.Status.State);
    const ownStart = startTime(task, plan.timesOf(task));
    if (ended && ownStart > plan.now) {
      // It did not even live until its own start: its delay is over first (no tight loop over a missing image).
      plan.lookAgain(ownStart);
      return;
    }
    this.#stops.push(task);
    if (!plan.mayRestart(task, this.#slot.tasks)) return;
    const delayMs = plan.isDrained(task.NodeID) ? 0 : plan.rulesOf(task).delayMs;
    const startAfter = Math.max(plan.now + delayMs, ownStart);
    const readyAt = Math.max(startAfter, lastRelease(plan, this.#slot, this.#stops));
    plan.lookAgain(readyAt);
    this.#create(readyAt <= plan.now && !blocked ? "running" : "ready", { startAfter });
  }

  #create(desired: "ready" | "running", more: Pick<Birth, "startAfter" | "madeByUpdate">): void {
    this.#plan.create({ place: this.#slot.place, generation: nextGeneration(this.#slot), desired, ...more });
  }

  /** Nothing but the old task keeps the new one from its start; or it has ended for good, and the slot with it. */
  #mayStart(heir: Task): boolean {
    const plan = this.#plan;
    if (isTerminal(heir.Status.State)) return !plan.mayRestart(heir, this.#slot.tasks);
    const ownStart = startTime(heir, plan.timesOf(heir));
    plan.lookAgain(ownStart);
    return isPrepared(heir) && ownStart <= plan.now;
  }

  /** Lets a prepared task run when its delay is over and nothing else can still be running. */
  #promote(task: Task, blocked: boolean): void {
    if (task.DesiredState !== "ready" || blocked) return;
    const plan = this.#plan;
    const readyAt = Math.max(startTime(task, plan.timesOf(task)), lastRelease(plan, this.#slot, this.#stops));
    if (readyAt <= plan.now) plan.changes.push(promote(task));
    else plan.lookAgain(readyAt);
  }

  /** Of several tasks for one place, the one that has come furthest stays. */
  #keepBest(tasks: readonly Task[]): Task {
    const [best, ...rest] = tasks.toSorted(
      (left, right) =>
        Number(this.#plan.isBroken(left)) - Number(this.#plan.isBroken(right)) ||
        Number(isRunning(right)) - Number(isRunning(left)) ||
        Number(this.#serves(right)) - Number(this.#serves(left)) ||
        (isNewer(left, right) ? -1 : 1),
    );
    this.#stops.push(...rest);
    return best!;
  }

  /** It does the service's work, or is about to. */
  #serves(task: Task): boolean {
    return task.DesiredState === "running" && rank(task.Status.State) >= rank("starting") && !this.#plan.isBroken(task);
  }
}

function isRunning(task: Task): boolean {
  return task.Status.State === "running";
}

/** The task has nothing left to do before its start, or waits for the old one to go. */
function isPrepared(task: Task): boolean {
  return rank(task.Status.State) >= rank("ready") || needsRoom(task);
}

/** What the scheduler and the allocator say of a lack that the old task's end may make good. */
const lacksRoom =
  /insufficient resources|port already in use|max replicas per node|CSI volume|no free address|is in use/;

/**
 * The task has no node (or no address), and would perhaps get one if the old task were not there. No node will ever do
 * for a task whose constraints or platform none has: then the old task had better stay.
 */
function needsRoom(task: Task): boolean {
  return isUnassigned(task) && lacksRoom.test(task.Status.Err ?? "");
}

/**
 * When the last of the slot's stopping tasks is out of the way; in the past if all are.
 * @param stops tasks that this plan tells to stop
 */
function lastRelease(plan: ServicePlan, slot: Slot, stops: readonly Task[]): number {
  let last = 0;
  for (const task of slot.tasks) {
    const toldNow = stops.includes(task);
    if (!toldNow && isRunnableDesire(task.DesiredState)) continue;
    // A node that was away hears of it only when it is back.
    const toldAt = toldNow ? plan.now : Math.max(plan.writtenAt(task), plan.nodeHeardAt(task.NodeID));
    last = Math.max(last, releaseTime(task, plan.rulesOf(task), plan.isLost(task.NodeID), toldAt));
  }
  return last;
}
