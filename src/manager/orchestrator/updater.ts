/**
 * Rolling updates, as one decision over a service's slots that can be taken at any moment from what is stored: which
 * outdated slots to begin now, and whether the update is to start, pause, roll back or end. A new leader goes on where
 * the old one was.
 *
 * What it goes by: a slot is outdated when its tasks are not what the current spec asks for. The tasks that the update
 * made carry `MadeByUpdate`; while it runs, the reaper keeps them. A slot takes up one of `Parallelism` from its
 * beginning until its new task has run (or failed) for `Delay`. A new task fails if it ends before it runs, or within
 * `Monitor` after; failures are put in relation to the slots that the update has begun or still has to.
 *
 * An update that does not get on says in its status what it waits for (`update-waits.ts`).
 *
 * Better than Swarm: the old task stays until the new one is prepared (its image pulled, its container created); an
 * update that pauses leaves the old tasks where the new ones were not yet running; a task that a drain or a scale-down
 * ended is no failure; a rollback that fails stays `rollback_paused`; and a slot is not waited for if its new task was
 * replaced (Swarm's worker waits for ever).
 */
import { parseRfc3339 } from "../../lib/clock.ts";
import { isTerminal } from "../../model/state.ts";
import type { Service, Task, UpdateStatus } from "../../model/types.ts";
import { rollBack } from "./rollback.ts";
import type { ServicePlan } from "./service-plan.ts";
import { fillSlot, isNewer, type Slot, settleSlot } from "./slot.ts";
import { rulesOf, type UpdateRules } from "./update-rules.ts";
import { isOnItsWay, messageWhileWaiting, type WaitingSlot } from "./update-waits.ts";

export interface UpdatePlan {
  /** The service has got another spec: everything else waits for the next plan. */
  readonly rolledBack: boolean;
  /** Plans what is next in a slot. */
  apply(slot: Slot): void;
}

/**
 * Decides about the update, and writes its status.
 * @param slots those that stay
 * @param passed those that no update comes to (on paused nodes): what it has begun there still counts
 */
export function planUpdate(plan: ServicePlan, slots: readonly Slot[], passed: readonly Slot[] = []): UpdatePlan {
  const state = plan.service.UpdateStatus?.State;
  const outdated: Slot[] = [];
  const begun: BegunSlot[] = [];
  const adopted: WaitingSlot[] = [];
  let inHandOver = 0;
  for (const slot of slots) {
    const made = slot.tasks.length > 1 || slot.tasks[0]?.MadeByUpdate ? madeTask(plan, slot) : undefined;
    const stage = stageOf(plan, slot);
    if (made) begun.push({ slot, made, stage });
    if (stage === "hand-over") {
      inHandOver++;
      if (!made) adopted.push(...adoptedTask(plan, slot));
    } else if (stage === "outdated" && !made) outdated.push(slot);
  }
  for (const slot of passed) {
    const made = madeTask(plan, slot);
    if (made) begun.push({ slot, made, stage: stageOf(plan, slot) });
  }
  const isRunning = state === "updating" || state === "rollback_started";
  const isPaused = state === "paused" || state === "rollback_paused";
  const rules = rulesOf(plan.spec, state === "rollback_started" || state === "rollback_paused");
  if (isPaused || !(isRunning || outdated.length + inHandOver > 0)) {
    return application(plan, { paused: isPaused, order: rules.order });
  }
  return new Update(plan, rules, { outdated, begun: isRunning ? begun : [], inHandOver, adopted }).decide();
}

type Stage = "current" | "hand-over" | "outdated";

interface BegunSlot {
  readonly slot: Slot;
  /** The newest task that the update made. */
  readonly made: Task;
  readonly stage: Stage;
}

/** Where the slots are in the update. */
interface Progress {
  /** Not begun. */
  readonly outdated: readonly Slot[];
  /** Those in which the update made a task. */
  readonly begun: readonly BegunSlot[];
  /** How many have an old and a new task; of these, those with a new one that an earlier update made. */
  readonly inHandOver: number;
  readonly adopted: readonly WaitingSlot[];
}

class Update {
  readonly #plan: ServicePlan;
  readonly #rules: UpdateRules;
  readonly #progress: Progress;
  readonly #status: UpdateStatus;

  constructor(plan: ServicePlan, rules: UpdateRules, progress: Progress) {
    this.#plan = plan;
    this.#rules = rules;
    this.#progress = progress;
    const current = plan.service.UpdateStatus;
    this.#status =
      current && (current.State === "updating" || current.State === "rollback_started")
        ? current
        : { State: "updating", StartedAt: plan.context.nowText, Message: "update in progress" };
  }

  decide(): UpdatePlan {
    const { order, failureAction } = this.#rules;
    const culprit = failureAction === "continue" ? undefined : this.#tooManyFailures();
    if (culprit) return this.#stop(culprit);
    if (failureAction !== "continue") this.#noteStarts();

    // Without outdated slots there is nothing left to delay, only to wait for and to watch.
    const { outdated, begun, inHandOver, adopted } = this.#progress;
    const waiting = [...adopted];
    let busy = adopted.filter(({ task }) => isOnItsWay(task)).length;
    let unsettled = 0;
    let lastDone = 0;
    for (const { slot, made, stage } of begun) {
      const doneAt = this.#doneAt(slot, made);
      if (doneAt === undefined) {
        unsettled++;
        busy++;
        waiting.push({ slot, task: this.#successorOf(slot, made) ?? made });
        continue;
      }
      if (stage === "hand-over" && this.#hasFailed(made)) waiting.push({ slot, task: made, failing: true });
      lastDone = Math.max(lastDone, doneAt);
      if (doneAt + this.#rules.delayMs <= this.#plan.now) continue;
      busy++;
      if (outdated.length > 0) this.#plan.lookAgain(doneAt + this.#rules.delayMs);
    }
    const places = this.#rules.parallelism === 0 ? Infinity : Math.max(0, this.#rules.parallelism - busy);
    const begin = new Set(places >= outdated.length ? outdated : this.#nextOutdated(places));

    if (outdated.length + inHandOver + unsettled === 0) this.#complete(lastDone);
    else this.#goOn(waiting);
    return application(this.#plan, { begin, name: nameOf(this.#status), paused: false, order });
  }

  /** The next slots to begin, by their numbers. */
  #nextOutdated(count: number): readonly Slot[] {
    const ordered = this.#progress.outdated.toSorted((left, right) => left.place.slot - right.place.slot);
    return ordered.slice(0, count);
  }

  /** The task that took the failures beyond the ratio. */
  #tooManyFailures(): Task | undefined {
    const total = this.#progress.begun.length + this.#progress.outdated.length;
    const failed = this.#progress.begun.map(({ made }) => made).filter((task) => this.#hasFailed(task));
    const allowed = failed.findIndex((_, index) => (index + 1) / total > this.#rules.maxFailureRatio);
    if (allowed < 0) return undefined;
    return failed.toSorted((left, right) => this.#plan.writtenAt(left) - this.#plan.writtenAt(right))[allowed];
  }

  #hasFailed(task: Task): boolean {
    if (!hasEnded(task)) return false;
    if (task.RunningSince === undefined) return true;
    // Both by the clock of the task's node.
    return parseRfc3339(task.Status.Timestamp) - parseRfc3339(task.RunningSince) <= this.#rules.monitorMs;
  }

  /** Since when a task ran is not to be seen once it has ended, so it is written down while it runs. */
  #noteStarts(): void {
    for (const { made } of this.#progress.begun) {
      if (made.Status.State !== "running" || made.RunningSince !== undefined) continue;
      const RunningSince = made.Status.Timestamp;
      this.#plan.changes.push({ kind: "update", table: "tasks", object: { ...made, RunningSince } });
    }
  }

  /** When the update was through with a slot: its new task ran or failed. Undefined: not yet. */
  #doneAt(slot: Slot, made: Task): number | undefined {
    const hasRun = made.RunningSince !== undefined || made.Status.State === "running";
    if (hasRun || this.#hasFailed(made)) return this.#plan.writtenAt(made);
    if (slot.live.length === 0) return 0;
    const successor = this.#successorOf(slot, made);
    if (successor === made) return undefined;
    if (!successor) return 0;
    const settled = successor.Status.State === "running" || isTerminal(successor.Status.State);
    return settled ? this.#plan.writtenAt(successor) : undefined;
  }

  /** The made task; if it was moved off its node before it ran, its replacement. */
  #successorOf(slot: Slot, made: Task): Task | undefined {
    return slot.live.includes(made) ? made : slot.live.find((task) => !this.#plan.isDirty(task));
  }

  /** Neither at its end nor at a failure: its status says what it waits for, if it does for long. */
  #goOn(waiting: readonly WaitingSlot[]): void {
    const Message = messageWhileWaiting(this.#plan, this.#status.Message ?? "", waiting, this.#rules.order);
    const before = this.#plan.service.UpdateStatus;
    if (this.#status !== before || Message !== before.Message) this.#write({ ...this.#status, Message });
  }

  #stop(culprit: Task): UpdatePlan {
    const reason = `due to failure or early termination of task ${culprit.ID}`;
    const isRollback = this.#status.State === "rollback_started";
    // A rollback is never rolled back.
    if (
      this.#rules.failureAction === "rollback" &&
      !isRollback &&
      rollBack(this.#plan, `update rolled back ${reason}`)
    ) {
      return application(this.#plan, { paused: true, order: this.#rules.order }, true);
    }
    this.#write({
      ...this.#status,
      State: isRollback ? "rollback_paused" : "paused",
      Message: `${isRollback ? "rollback" : "update"} paused ${reason}`,
    });
    return application(this.#plan, { paused: true, order: this.#rules.order });
  }

  /** All slots are through: the update ends once the last of them has been watched for long enough. */
  #complete(lastDone: number): void {
    const watched = this.#progress.begun.length > 0 && this.#rules.failureAction !== "continue";
    const endsAt = watched ? lastDone + this.#rules.monitorMs : 0;
    this.#plan.lookAgain(endsAt);
    if (endsAt > this.#plan.now) {
      this.#goOn([]);
      return;
    }
    const isRollback = this.#status.State === "rollback_started";
    this.#write({
      ...this.#status,
      State: isRollback ? "rollback_completed" : "completed",
      CompletedAt: this.#plan.context.nowText,
      Message: isRollback ? "rollback completed" : "update completed",
    });
  }

  #write(UpdateStatus: UpdateStatus): void {
    this.#plan.changes.push({ kind: "update", table: "services", object: { ...this.#plan.service, UpdateStatus } });
  }
}

function application(
  plan: ServicePlan,
  update: {
    /** The slots to begin, by the update of that name. */
    readonly begin?: ReadonlySet<Slot>;
    readonly name?: string;
    readonly paused: boolean;
    readonly order: UpdateRules["order"];
  },
  rolledBack = false,
): UpdatePlan {
  return {
    rolledBack,
    apply(slot) {
      const begin = update.begin?.has(slot) ? update.name : undefined;
      if (slot.live.length > 0) settleSlot(plan, slot, { begin, paused: update.paused, order: update.order });
      else if (begin !== undefined) fillSlot(plan, slot, begin);
    },
  };
}

/** `hand-over`: an outdated and a current task; a slot with only a finished task is judged by that. */
function stageOf(plan: ServicePlan, slot: Slot): Stage {
  let clean = 0;
  let dirty = 0;
  for (const task of slot.live) plan.isDirty(task) ? dirty++ : clean++;
  if (dirty === 0 && clean > 0) return "current";
  if (clean > 0) return "hand-over";
  if (dirty > 0) return "outdated";
  const last = slot.tasks.reduce((newest, task) => (isNewer(task, newest) ? task : newest));
  return plan.isDirty(last) ? "outdated" : "current";
}

/** The new task of an earlier update that this one goes on with. */
function adoptedTask(plan: ServicePlan, slot: Slot): WaitingSlot[] {
  const task = slot.live.find((one) => !plan.isDirty(one));
  if (!task || task.Status.State === "running") return [];
  const failing = slot.tasks.some((one) => hasEnded(one) && !plan.isDirty(one));
  return [{ slot, task, ...(failing && { failing }) }];
}

/** By itself, not because it was told to. */
function hasEnded({ Status: { State } }: Task): boolean {
  return State === "complete" || State === "failed" || State === "rejected";
}

/** The task that this update made in the slot. */
function madeTask(plan: ServicePlan, slot: Slot): Task | undefined {
  let made: Task | undefined;
  for (const task of slot.tasks) {
    if (isMadeBy(plan.service, task) && (!made || isNewer(task, made))) made = task;
  }
  return made;
}

/** Whether the service's latest update made the task: not an earlier try at the same revision, that had paused. */
export function isMadeBy({ SpecVersion, UpdateStatus }: Service, task: Task): boolean {
  if (!UpdateStatus || task.SpecVersion.Index !== SpecVersion.Index) return false;
  return task.MadeByUpdate === nameOf(UpdateStatus);
}

/** No two updates of a service to the same revision begin at once. */
function nameOf({ StartedAt = "" }: UpdateStatus): string {
  return StartedAt;
}
