/**
 * No more containers of a slot run at once than the service's update order allows. Not counted are those that the
 * managers can't know of or reach: on a node that was down since the task was made, of a task that they have ended by
 * themselves (orphaned, rejected), or of one that was told to stop so long ago that its agent is no longer waited for.
 */

import { isTerminal, rank } from "../../../src/model/state.ts";
import { type CheckerFactory, describeTask, tasksAtOnce } from "../checker.ts";
import type { Container } from "../engine.ts";

const defaultGraceMs = 10_000;
/** As restart.ts: how much longer than its grace an agent is waited for. */
const stopMarginMs = 50_000;

export const oneContainerPerSlot: CheckerFactory = (overview) => {
  /** When each task was told to stop. */
  const toldAt = new Map<string, number>();
  const counts = (container: Container): boolean => {
    if (container.state !== "running") return false;
    const task = overview.view.get("tasks", container.taskId);
    if (!task || isTerminal(task.Status.State)) return false;
    if (overview.wasDown(task)) return false;
    const told = toldAt.get(task.ID);
    const graceNs = overview.specOf(task)?.TaskTemplate?.ContainerSpec?.StopGracePeriod;
    const graceMs = graceNs === undefined ? defaultGraceMs : graceNs / 1e6;
    return told === undefined || overview.now() < told + graceMs + stopMarginMs;
  };
  return {
    name: "one container per slot",
    when: "always",
    commit({ changes }) {
      for (const change of changes) {
        if (change.table !== "tasks") continue;
        if (!change.after) toldAt.delete(change.id);
        else if (rank(change.after.DesiredState) > rank("running") && !toldAt.has(change.id)) {
          toldAt.set(change.id, overview.now());
        }
      }
      return undefined;
    },
    container(started, event) {
      if (event !== "start" || !counts(started)) return undefined;
      const rivals = [...overview.containers()].filter((other) => isSamePlace(other, started) && counts(other));
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
