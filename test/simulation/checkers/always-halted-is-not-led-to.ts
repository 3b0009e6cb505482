/**
 * While nothing is broken, no task gets its stop signal as long as any node leads somebody to it. (When something is,
 * stopping does not wait for long.)
 */
import type { CheckerFactory } from "../checker.ts";

/** Sessions that were lost are open again, and slow machines have caught up. */
const calmMs = 60_000;

export const haltedIsNotLedTo: CheckerFactory = (overview) => ({
  name: "halted is not led to",
  when: "always",
  container({ id, taskId }, event) {
    if (event !== "halt" || overview.now() - overview.calmSince() < calmMs) return undefined;
    for (const { name, kernel, agent } of overview.nodes) {
      if (agent?.report().manager === undefined || !kernel.leadsTo(taskId)) continue;
      return `${id} is stopped, and ${name} still leads to ${taskId.slice(0, 6)}`;
    }
    return undefined;
  },
});
