/**
 * No more containers of a slot run at once than the service's update order allows, as far as the managers can know
 * (`running-containers.ts`).
 */
import { type CheckerFactory, describeTask, tasksAtOnce } from "../checker.ts";
import type { Container } from "../engine.ts";
import { RunningContainers } from "../running-containers.ts";

export const oneContainerPerSlot: CheckerFactory = (overview) => {
  const running = new RunningContainers(overview);
  return {
    name: "one container per slot",
    when: "always",
    commit(commit) {
      running.commit(commit);
      return undefined;
    },
    container(started, event) {
      if (event !== "start" || !running.counts(started)) return undefined;
      const rivals = [...overview.containers()].filter((other) => isSamePlace(other, started) && running.counts(other));
      const allowed = tasksAtOnce(overview.specOf(overview.view.get("tasks", started.taskId)!));
      if (rivals.length <= allowed) return undefined;
      const texts = rivals.map(({ id, taskId }) => `${id} of ${describeTask(overview.view.get("tasks", taskId))}`);
      return `${rivals.length} containers run in one place: ${texts.join("; ")}`;
    },
  };
};

function isSamePlace(left: Container, right: Container): boolean {
  if (left.serviceId !== right.serviceId || left.slot !== right.slot) return false;
  return left.slot !== 0 || left.nodeId === right.nodeId;
}
