/** A container is started only once its task is wanted running, and never again once it has run. */
import { rank } from "../../../src/model/state.ts";
import { type CheckerFactory, describeTask } from "../checker.ts";

export const containersAreWanted: CheckerFactory = ({ view }) => {
  const ran = new Set<string>();
  return {
    name: "containers are wanted",
    when: "always",
    container({ id, taskId }, event) {
      if (event !== "start") return undefined;
      if (ran.has(taskId))
        return `${id} is started though its task has run before: ${describeTask(view.get("tasks", taskId))}`;
      ran.add(taskId);
      const task = view.get("tasks", taskId);
      if (!task || rank(task.DesiredState) >= rank("running")) return undefined;
      return `${id} is started too early: ${describeTask(task)}`;
    },
  };
};
