/**
 * The containers that the managers have to reckon with. Not those that they can't know of or reach: on a node that was
 * down since the task was made, of a task that they have ended by themselves (orphaned, rejected), or of one that was
 * told to stop so long ago that its agent is no longer waited for.
 */
import { isTerminal, rank } from "../../src/model/state.ts";
import type { Commit } from "../../src/store/store.ts";
import type { Overview } from "./checker.ts";
import type { Container } from "./engine.ts";

const defaultGraceMs = 10_000;
/** As restart.ts: how much longer than its grace an agent is waited for. */
const stopMarginMs = 50_000;

export class RunningContainers {
  readonly #overview: Overview;
  /** When each task was told to stop. */
  readonly #toldAt = new Map<string, number>();

  constructor(overview: Overview) {
    this.#overview = overview;
  }

  commit({ changes }: Commit): void {
    for (const change of changes) {
      if (change.table !== "tasks") continue;
      if (!change.after) this.#toldAt.delete(change.id);
      else if (rank(change.after.DesiredState) >= rank("shutdown") && !this.#toldAt.has(change.id)) {
        this.#toldAt.set(change.id, this.#overview.now());
      }
    }
  }

  counts(container: Container): boolean {
    if (container.state !== "running") return false;
    const task = this.#overview.view.get("tasks", container.taskId);
    if (!task || isTerminal(task.Status.State)) return false;
    if (this.#overview.wasDown(task)) return false;
    const told = this.#toldAt.get(task.ID);
    const graceNs = this.#overview.specOf(task)?.TaskTemplate?.ContainerSpec?.StopGracePeriod;
    const graceMs = graceNs === undefined ? defaultGraceMs : graceNs / 1e6;
    return told === undefined || this.#overview.now() < told + graceMs + stopMarginMs;
  }
}
