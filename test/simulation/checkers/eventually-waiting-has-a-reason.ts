/** No task waits without a text that says for what. */

import { parseRfc3339 } from "../../../src/lib/clock.ts";
import { isRunnableDesire } from "../../../src/model/state.ts";
import { type CheckerFactory, describeTask } from "../checker.ts";

const explainedWithinMs = 15_000;

export const waitingHasAReason: CheckerFactory = ({ view, now }) => ({
  name: "waiting has a reason",
  when: "eventually",
  state() {
    for (const task of view.all("tasks")) {
      const { State, Err, Timestamp } = task.Status;
      if ((State !== "new" && State !== "pending") || !isRunnableDesire(task.DesiredState)) continue;
      if (Err || parseRfc3339(Timestamp) > now() - explainedWithinMs) continue;
      return describeTask(task);
    }
    return undefined;
  },
});
