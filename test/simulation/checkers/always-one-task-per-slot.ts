/** No more tasks of a slot are wanted running than the service's update order allows. */
import { type CheckerFactory, describeTask, placeOf, tasksAtOnce } from "../checker.ts";

export const oneTaskPerSlot: CheckerFactory = ({ view, specOf }) => ({
  name: "one task per slot",
  when: "always",
  commit({ changes }) {
    for (const change of changes) {
      if (change.table !== "tasks" || change.after?.DesiredState !== "running") continue;
      if (change.before?.DesiredState === "running") continue;
      const { after } = change;
      if (!view.service(after.ServiceID)) continue;
      const rivals = [...view.tasksOfSlot(after.ServiceID, after.Slot)].filter(
        (task) => task.DesiredState === "running" && placeOf(task) === placeOf(after),
      );
      if (rivals.length <= tasksAtOnce(specOf(after))) continue;
      return `${rivals.length} tasks are wanted running at once: ${rivals.map(describeTask).join("; ")}`;
    }
    return undefined;
  },
});
