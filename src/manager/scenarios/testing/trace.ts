/**
 * What happens in a scenario, as lines: what the managers decide about tasks (in words of Swarm's desired states), what
 * becomes of the tasks, and the states of updates. Tasks are called by their place and by which task of it they are:
 * `web.2#3` is the third task of slot 2, `agent@node-1#1` the first on node-1.
 */
import { parseRfc3339 } from "../../../lib/clock.ts";
import type { Task, TaskState } from "../../../model/types.ts";
import type { Change, Commit, View } from "../../../store/store.ts";

const wishes: Partial<Record<TaskState, string>> = {
  ready: "to be ready",
  running: "to run",
  complete: "to complete",
  shutdown: "to shut down",
  remove: "to be removed",
};

/** Steps on the way that are only of interest where something stays in them. */
const passing: ReadonlySet<TaskState> = new Set(["new", "assigned", "accepted", "preparing", "starting"]);
const namesWidth = 16;

export class TraceLines {
  readonly #view: View;
  readonly #now: () => number;
  readonly #names = new Map<string, string>();
  readonly #counts = new Map<string, number>();
  #since = 0;
  #lines: string[] = [];

  constructor(view: View, now: () => number) {
    this.#view = view;
    this.#now = now;
    this.restart();
  }

  /** Forgets the lines so far; times count from now on. */
  restart(): void {
    this.#since = this.#now();
    this.#lines = [];
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  nameOf(task: Task): string {
    return this.#names.get(task.ID) ?? task.ID;
  }

  /** A text in which tasks are called by their names. */
  named(text: string): string {
    return text.replaceAll(/\b[0-9a-z]{25}\b/g, (id) => this.#names.get(id) ?? id);
  }

  observe({ changes }: Commit): void {
    // What is decided comes before what has become of it, whatever order a commit has.
    for (const change of changes) if (change.table === "services") this.#service(change);
    for (const change of changes) if (change.table === "tasks") this.#task(change);
  }

  #service({ before, after }: Change & { readonly table: "services" }): void {
    const status = after?.UpdateStatus;
    if (!status || (before?.UpdateStatus?.State === status.State && before.UpdateStatus.Message === status.Message)) {
      return;
    }
    this.#add(after.Name, `${status.State}: ${status.Message}`);
  }

  #task({ before, after }: Change & { readonly table: "tasks" }): void {
    if (!after) {
      if (before) this.#add(this.nameOf(before), "forgotten");
      return;
    }
    if (!before) this.#born(after);
    const name = this.nameOf(after);
    const isSent = before && before.DesiredState !== after.DesiredState;
    if (isSent) this.#add(name, wishes[after.DesiredState] ?? after.DesiredState);
    const { State, Err } = after.Status;
    if (before?.Status.State === State && before.Status.Err === Err) return;
    if (passing.has(State) && !Err) return;
    if (State === "pending" && !Err) return;
    const where = State === "ready" || State === "running" ? ` on ${after.NodeID}` : "";
    this.#add(name, `${State}${where}${Err ? `: ${Err}` : ""}`);
  }

  #born(task: Task): void {
    const { Spec } = this.#view.spec(task.ServiceID, task.SpecVersion.Index)!;
    const isByNode = Spec.Mode?.Global !== undefined || Spec.Mode?.GlobalJob !== undefined;
    const place = isByNode ? `${task.ServiceID}@${task.NodeID}` : `${task.ServiceID}.${task.Slot}`;
    const count = (this.#counts.get(place) ?? 0) + 1;
    this.#counts.set(place, count);
    this.#names.set(task.ID, `${place}#${count}`);
    const image = Spec.TaskTemplate?.ContainerSpec?.Image;
    const delayMs = task.StartAfter === undefined ? 0 : parseRfc3339(task.StartAfter) - this.#now();
    const delay =
      task.StartAfter === undefined ? "" : `, a restart${delayMs > 0 ? `, not before ${seconds(delayMs)}` : ""}`;
    this.#add(`${place}#${count}`, `made of ${image}, ${wishes[task.DesiredState]}${delay}`);
  }

  #add(name: string, text: string): void {
    const at = `+${seconds(this.#now() - this.#since)}`;
    this.#lines.push(`${at.padEnd(8)}${name.padEnd(namesWidth)} ${this.named(text)}`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)}s`;
}
