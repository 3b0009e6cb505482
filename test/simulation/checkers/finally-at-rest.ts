/** Once everything has converged nothing is written any more: no loop chases its own changes. */
import type { CheckerFactory } from "../checker.ts";

export const atRest: CheckerFactory = ({ view }) => {
  let settledAt: number | undefined;
  return {
    name: "at rest",
    when: "finally",
    state() {
      settledAt ??= view.revision;
      const writes = view.revision - settledAt;
      return writes > 0 ? `${writes} commits after everything had converged` : undefined;
    },
  };
};
