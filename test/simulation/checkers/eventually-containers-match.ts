/** What runs on the nodes is what the store says: each wanted task has its container, and no other container runs. */
import { type CheckerFactory, describeTask } from "../checker.ts";

export const containersMatch: CheckerFactory = ({ view, containers }) => ({
  name: "containers match",
  when: "eventually",
  state() {
    const running = new Set<string>();
    for (const { id, taskId, state, nodeId } of containers()) {
      const task = view.get("tasks", taskId);
      if (!task) return `${id} is left over (${state}): its task is gone`;
      if (task.NodeID !== nodeId) return `${id} is on ${nodeId}, its task on ${task.NodeID}`;
      if (state !== "running") continue;
      running.add(taskId);
      if (task.Status.State !== "running" || task.DesiredState !== "running")
        return `${id} runs: ${describeTask(task)}`;
    }
    for (const task of view.all("tasks")) {
      if (task.Status.State === "running" && !running.has(task.ID)) return `nothing runs of ${describeTask(task)}`;
    }
    return undefined;
  },
});
