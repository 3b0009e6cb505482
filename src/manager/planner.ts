/**
 * The shape of every decision, and what drives it. A planner is pure: from a view, a key and the time to the changes
 * that would make things right, synchronously. The driver wakes it with keys, plans inside a store transaction (so a
 * conflict plans again), writes the changes, and comes back when the plan says so. Level-triggered: a plan looks at
 * the state and never at the event, so a lost event or a new leader changes nothing. A key whose plan throws loses
 * its own writes, is logged and comes again after a growing delay; the other keys do not notice.
 */
import { Backoff } from "../lib/backoff.ts";
import type { Clock } from "../lib/clock.ts";
import { assert, messageOf, unreachable } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { limits } from "../lib/limits.ts";
import type { Logger } from "../lib/log.ts";
import { Loop, type RunResult } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { Change, Fence, Store, Transaction, View } from "../store/store.ts";
import type { TableName, Tables } from "../store/tables.ts";
import type { Draft } from "../store/view.ts";

/** One write that a plan wants. */
export type PlannedChange = {
  [T in TableName]:
    | { readonly kind: "create"; readonly table: T; readonly object: Draft<Tables[T]> }
    | { readonly kind: "update"; readonly table: T; readonly object: Tables[T] }
    | { readonly kind: "delete"; readonly table: T; readonly id: string };
}[TableName];

export interface Plan {
  /**
   * Written in this order. Those that do not fit into the transaction are dropped and the key is planned again from
   * what was written, so every beginning of the list must be a state to go on from (make a task's successor first,
   * then stop the task).
   */
  readonly changes: readonly PlannedChange[];
  /** Names of the locks under which the changes are decided (`Transaction.takeLock`): they are taken with them. */
  readonly locks?: readonly string[];
  /** The planner stopped at `context.room`: plan this key again once these changes are written. */
  readonly more?: boolean;
  /** When to plan this key again even if nothing changes (milliseconds since the epoch). */
  readonly againAt?: number;
}

export interface PlanContext {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** The same as RFC 3339, for the objects. */
  readonly nowText: string;
  /**
   * Since when this manager leads (milliseconds since the epoch). Managers' clocks may be hours apart, so nothing that
   * waits goes by a time that another manager has written: what counts is when this one heard of the write
   * (`View.heardAt`), and for what it has not heard of, the start of its lead.
   */
  readonly leadsSince: number;
  readonly newId: () => string;
  /** Changes that still fit into the transaction: a planner of much may stop here (see `Plan.more`). */
  readonly room: number;
}

export interface Planner {
  readonly name: string;
  /** The keys that have to be planned because of a commit's change. */
  wakes(change: Change, view: View): Iterable<string>;
  /** All keys, for the start and for the periodic resync. */
  keys(view: View): Iterable<string>;
  plan(view: View, key: string, context: PlanContext): Plan;
  /** It keeps an index of its own that equals the committed view: its transactions are committed by themselves. */
  readonly alone?: boolean;
}

export interface PlannerRuntime {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The lead that the planner's writes depend on; absent only in tests of planners. */
  readonly fence?: Fence;
}

/** One term of a planner's lead. */
interface Term extends PlannerRuntime {
  readonly leadsSince: number;
}

const resyncMs = 60_000;

/** How long a key whose plan failed waits: it most often fails again until someone changes the object. */
const failedKeyBackoff = { baseMs: 200, maxMs: 30_000 };

/** So many changes may go over the limit, for a planner that minds the room but ends what belongs together. */
const unitOverhang = 16;

/** The loop of a planner, not yet started. Stop it, then call `unwatch`. */
export function drive(planner: Planner, runtime: PlannerRuntime): { loop: Loop; unwatch: () => void } {
  const { store, clock, random } = runtime;
  const log = runtime.log.child({ loop: planner.name });
  const failing = new Map<string, Backoff>();
  const term = { ...runtime, log, leadsSince: clock.now() };
  const loop = new Loop({
    name: planner.name,
    clock,
    random,
    log,
    resyncMs,
    allKeys: () => planner.keys(store.view),
    run: (keys) => runPlanner(planner, term, keys, failing),
  });
  const unwatch = store.watch((commit) => {
    for (const change of commit.changes) {
      // A watcher that throws would fail the commit of whoever made it; the resync makes up for the wake.
      try {
        for (const key of planner.wakes(change, store.view)) loop.wake(key);
      } catch (error) {
        log.error("cannot tell what a change wakes", { table: change.table, id: change.id, error: messageOf(error) });
      }
    }
  });
  return { loop, unwatch };
}

/** One transaction's worth of planning. What did not fit is left for the next run, after what was woken meanwhile. */
async function runPlanner(
  planner: Planner,
  runtime: Term,
  keys: ReadonlySet<string>,
  failing: Map<string, Backoff>,
): Promise<RunResult> {
  const outcome = await runtime.store.update((tx) => planBatch(planner, runtime, tx, [...keys]), {
    alone: planner.alone ?? false,
    ...(runtime.fence && { fence: runtime.fence }),
  });
  const { written, later, left, failed } = outcome;
  for (const key of keys) if (!failed.has(key)) failing.delete(key);
  let error: string | undefined;
  for (const [key, cause] of failed) {
    error = `${key}: ${messageOf(cause)}`;
    runtime.log.error("planning failed", { key, error: messageOf(cause) });
    let backoff = failing.get(key);
    if (!backoff) failing.set(key, (backoff = new Backoff(failedKeyBackoff, runtime.random)));
    later.set(key, runtime.clock.now() + backoff.nextMs());
  }
  return { changes: written, again: left, later, error };
}

interface BatchOutcome {
  readonly written: number;
  /** When to plan a key again. */
  readonly later: Map<string, number>;
  /** Keys that did not fit; the one that was cut off comes last, so that a large one does not hold up the others. */
  readonly left: readonly string[];
  readonly failed: ReadonlyMap<string, unknown>;
}

/** Plans keys into one transaction until it is full. Repeatable: it changes nothing but the transaction. */
function planBatch(planner: Planner, runtime: Term, tx: Transaction, keys: readonly string[]): BatchOutcome {
  const now = runtime.clock.now();
  const { leadsSince } = runtime;
  const makeId = () => newId(runtime.random);
  const later = new Map<string, number>();
  const failed = new Map<string, unknown>();
  let written = 0;
  for (const [index, key] of keys.entries()) {
    const room = limits.changesPerTransaction - written;
    if (room <= 0) return { written, later, left: keys.slice(index), failed };
    const mark = tx.mark();
    try {
      const plan = planner.plan(tx, key, { now, nowText: tx.now, leadsSince, newId: makeId, room });
      const fitting = plan.changes.length <= room + unitOverhang ? plan.changes.length : room;
      for (const name of plan.locks ?? []) tx.takeLock(name);
      for (const change of plan.changes.slice(0, fitting)) applyChange(tx, change);
      written += fitting;
      if (plan.againAt !== undefined) later.set(key, plan.againAt);
      assert(!plan.more || fitting > 0, "a plan that says that there is more has changes");
      if (plan.changes.length > fitting || plan.more)
        return { written, later, left: [...keys.slice(index + 1), key], failed };
    } catch (error) {
      tx.undoTo(mark);
      later.delete(key);
      failed.set(key, error);
    }
  }
  return { written, later, left: [], failed };
}

export function applyChange(tx: Transaction, change: PlannedChange): void {
  switch (change.kind) {
    case "create":
      tx.create(change.table, change.object as never);
      return;
    case "update":
      tx.put(change.table, change.object as never);
      return;
    case "delete":
      tx.delete(change.table, change.id);
      return;
    default:
      unreachable(change);
  }
}
