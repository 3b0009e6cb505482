/** A task is forgotten only once nothing of it runs, as far as its node could say so. */
import { isTerminal } from "../../../src/model/state.ts";
import { type CheckerFactory, describeTask } from "../checker.ts";

export const removedTasksAreStopped: CheckerFactory = (overview) => ({
  name: "removed tasks are stopped",
  when: "always",
  commit({ changes }) {
    for (const change of changes) {
      if (change.table !== "tasks" || change.after || !change.before) continue;
      const task = change.before;
      // What the managers ended by themselves may still run: nobody could be asked.
      if (isTerminal(task.Status.State) && task.Status.State !== "shutdown" && task.Status.State !== "complete")
        continue;
      if (overview.wasDown(task)) continue;
      for (const container of overview.containers()) {
        if (container.taskId !== task.ID || container.state !== "running") continue;
        return `${container.id} runs, and its task is forgotten: ${describeTask(task)}`;
      }
    }
    return undefined;
  },
});
