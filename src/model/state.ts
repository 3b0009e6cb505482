/** Task states in their order. An observed state only ever grows. `allocated` exists only in old documents. */

export const taskStates = {
  new: 0,
  pending: 64,
  assigned: 192,
  accepted: 256,
  preparing: 320,
  ready: 384,
  starting: 448,
  running: 512,
  complete: 576,
  shutdown: 640,
  failed: 704,
  rejected: 768,
  remove: 800,
  orphaned: 832,
} as const;

export type TaskState = keyof typeof taskStates;

/** Swarmkit's number of a state; compare with it (`rank(a) > rank("running")`). */
export function rank(state: TaskState): number {
  return taskStates[state];
}

/** The task will never run again (its observed state is beyond running). */
export function isTerminal(state: TaskState): boolean {
  return rank(state) > taskStates.running;
}

/** The manager wants the task to be (or become) running, or to complete: `DesiredState` up to `complete`. */
export function isActiveDesire(desired: TaskState): boolean {
  return rank(desired) <= taskStates.complete;
}

/** The manager wants the task to be (or become) running: what fills a slot of a replicated service. */
export function isRunnableDesire(desired: TaskState): boolean {
  return rank(desired) <= taskStates.running;
}
