/** Every service that is no job runs what it asks for, on nodes that may have it, and nothing else of it is wanted. */
import { matchesNode, parseConstraints } from "../../../src/manager/scheduler/constraint.ts";
import { isRunnableDesire } from "../../../src/model/state.ts";
import type { Task } from "../../../src/model/types.ts";
import { isJob } from "../../../src/model/validate-service.ts";
import { type CheckerFactory, describeTask, type Finding } from "../checker.ts";

export const servicesRun: CheckerFactory = ({ view }) => ({
  name: "services run",
  when: "eventually",
  state(): Finding {
    const nodes = [...view.all("nodes")];
    for (const service of view.all("services")) {
      const { Spec } = view.specOf(service);
      if (isJob(Spec)) continue;
      const constraints = parseConstraints(Spec.TaskTemplate?.Placement?.Constraints ?? []);
      const eligible = nodes.filter((node) => matchesNode(constraints, node));
      const count = Spec.Mode?.Global ? eligible.length : (Spec.Mode?.Replicated?.Replicas ?? 1);
      const wanted = [...view.tasksOfService(service.ID)].filter(({ DesiredState }) => isRunnableDesire(DesiredState));
      const running = wanted.filter((task) => task.DesiredState === "running" && task.Status.State === "running");
      if (running.length !== count || wanted.length !== count) {
        const others = wanted.filter((task) => !running.includes(task));
        return `${Spec.Name} runs ${running.length} of ${count} (${wanted.length} wanted) ${others.map(why).join("; ")}`;
      }
      const places = new Set(wanted.map((task) => task.Slot || task.NodeID));
      if (places.size !== count) return `${Spec.Name} has its tasks in ${places.size} places, not in ${count}`;
      const stray = wanted.find(({ NodeID }) => Spec.Mode?.Global && !eligible.some(({ ID }) => ID === NodeID));
      if (stray) return `${Spec.Name} has a task where it may not be: ${describeTask(stray)}`;
      const state = service.UpdateStatus?.State;
      if (state === "updating" || state === "rollback_started") return `${Spec.Name}: its update goes on`;
    }
    return undefined;
  },
});

function why(task: Task): string {
  return `${describeTask(task)} ${task.Status.Err ?? task.Status.Message ?? ""}`;
}
