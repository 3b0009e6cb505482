/** No task that is to run waits without a text that says for what: in its status, or (`api/waiting.ts`) when one looks. */

import { Waiting } from "../../../src/api/waiting.ts";
import { isActiveDesire, rank } from "../../../src/model/state.ts";
import type { Task } from "../../../src/model/types.ts";
import { type CheckerFactory, describeTask } from "../checker.ts";

const explainedWithinMs = 15_000;

export const waitingHasAReason: CheckerFactory = ({ view, now }) => {
  /** Since when a task waits without a word, and in which state. (Nodes' clocks differ, so its own time says nothing.) */
  let silent = new Map<string, { readonly state: string; readonly since: number }>();
  return {
    name: "waiting has a reason",
    when: "eventually",
    state() {
      const waiting = new Waiting(view, now());
      const before = silent;
      silent = new Map();
      for (const task of view.all("tasks")) {
        if (!waits(task) || task.Status.Err || waiting.reasonOf(task)) continue;
        const known = before.get(task.ID);
        const since = known?.state === task.Status.State ? known.since : now();
        silent.set(task.ID, { state: task.Status.State, since });
        if (since <= now() - explainedWithinMs) return describeTask(task);
      }
      return undefined;
    },
  };
};

function waits({ Status, DesiredState }: Task): boolean {
  return isActiveDesire(DesiredState) && rank(Status.State) < rank("running");
}
