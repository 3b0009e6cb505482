/** Every place of a job has completed (each slot, or each node), and nothing of it is at work any more. */
import { isActiveDesire, isTerminal } from "../../../src/model/state.ts";
import { isJob } from "../../../src/model/validate-service.ts";
import { type CheckerFactory, describeTask, type Finding } from "../checker.ts";

export const jobsComplete: CheckerFactory = ({ view }) => ({
  name: "jobs complete",
  when: "eventually",
  state(): Finding {
    const nodes = [...view.all("nodes")].length;
    for (const service of view.all("services")) {
      const { Spec } = view.specOf(service);
      if (!isJob(Spec)) continue;
      const tasks = [...view.tasksOfService(service.ID)];
      const completed = tasks.filter(
        ({ JobIteration, Status }) =>
          Status.State === "complete" && JobIteration?.Index === service.JobStatus?.JobIteration.Index,
      );
      const job = Spec.Mode?.ReplicatedJob;
      const places = new Set(completed.map(({ Slot, NodeID }) => (job ? Slot : NodeID)));
      const count = job ? job.TotalCompletions : nodes;
      const left = tasks.find(({ DesiredState, Status }) => isActiveDesire(DesiredState) && !isTerminal(Status.State));
      if (left) return `${Spec.Name}: ${describeTask(left)} ${left.Status.Err ?? left.Status.Message ?? ""}`;
      if (places.size !== count) return `${Spec.Name} has completed in ${places.size} places, not in ${count}`;
    }
    return undefined;
  },
});
