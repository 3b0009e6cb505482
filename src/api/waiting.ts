/**
 * Why a task does not run, where its status does not say: worked out when somebody looks, from what the store has, and
 * put where the CLI shows it (`Status.Err`). Nothing of it is stored, so nothing has to be taken back.
 *
 * A status says only what its task's agent (or the allocator, or the scheduler) has to say. These are the rest: the
 * agent cannot speak, because its node is not there; or it has done all that was wanted, and somebody else is awaited;
 * or it is a stock Engine's, which never says what takes it so long. Swarm leaves them without a word.
 */
import { restartRules } from "../manager/orchestrator/restart.ts";
import { isOwn } from "../model/own-node.ts";
import { isTerminal, rank } from "../model/state.ts";
import type { Node, Task } from "../model/types.ts";
import type { View } from "../store/store.ts";
import { nodeName } from "./lookup.ts";

/** What a stock Engine is longer at is worth a word: as long as it takes one of our agents to say one. */
const silentForMs = 5_000;

/** For the tasks of one answer. */
export class Waiting {
  readonly #view: View;
  readonly #now: number;
  /** By service, then by slot (or node): tasks that have not ended. Only for services that somebody asks about. */
  readonly #slots = new Map<string, Map<string, Task[]>>();

  /** @param now by this manager's clock */
  constructor(view: View, now: number) {
    this.#view = view;
    this.#now = now;
  }

  /** What the task waits for; undefined where it waits for nobody, or says so itself. */
  reasonOf(task: Task): string | undefined {
    const { State, Err, Message } = task.Status;
    if (Err) return undefined;
    if (State === "orphaned") return Message; // nobody was left who could have said more
    if (isTerminal(State)) return undefined;
    const node = this.#view.get("nodes", task.NodeID);
    const away = node && nodeIsAway(task, node);
    if (away !== undefined) return away;
    if (task.DesiredState === "ready" && State === "ready") return this.#awaited(task);
    return node?.Description && !isOwn(node.Description) ? this.#silent(task, node) : undefined;
  }

  /** What the task's node, a stock Engine, has been doing for long. */
  #silent(task: Task, node: Node): string | undefined {
    const heardAt = this.#view.heardAt(task); // unknown: before this manager was there
    if (heardAt !== undefined && heardAt > this.#now - silentForMs) return undefined;
    const { ContainerSpec: container } =
      this.#view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec.TaskTemplate ?? {};
    switch (task.Status.State) {
      case "assigned":
      case "accepted":
        return `waiting for node ${nameOf(node)} to begin`;
      case "preparing":
        return `node ${nameOf(node)} is pulling image ${container?.Image} or creating the container`;
      case "starting":
        return `waiting for node ${nameOf(node)} to start the container, or for its first successful health check`;
      default:
        return undefined;
    }
  }

  /** It is prepared, and is not to start yet. */
  #awaited(task: Task): string {
    const others = this.#slotOf(task).filter(({ ID }) => ID !== task.ID);
    const [stopping] = others;
    if (stopping) {
      const node = this.#view.get("nodes", stopping.NodeID);
      const where = node ? ` on ${nameOf(node)}` : "";
      return `waiting for task ${stopping.ID}${where} to stop`;
    }
    const { delayMs } = restartRules(this.#view.spec(task.ServiceID, task.SpecVersion.Index)?.Spec.TaskTemplate);
    return task.StartAfter === undefined
      ? "waiting for its turn to start"
      : `waiting for the restart delay of ${delayMs / 1000}s to pass`;
  }

  #slotOf(task: Task): readonly Task[] {
    let slots = this.#slots.get(task.ServiceID);
    if (!slots) {
      slots = new Map();
      for (const one of this.#view.tasksOfService(task.ServiceID)) {
        if (isTerminal(one.Status.State)) continue;
        const key = this.#placeOf(one);
        slots.set(key, [...(slots.get(key) ?? []), one]);
      }
      this.#slots.set(task.ServiceID, slots);
    }
    return slots.get(this.#placeOf(task)) ?? [];
  }

  /** Slots begin at 1, but those of replicated jobs at 0. */
  #placeOf({ ServiceID, SpecVersion, Slot, NodeID }: Task): string {
    const isSlot = Slot > 0 || this.#view.spec(ServiceID, SpecVersion.Index)?.Spec.Mode?.ReplicatedJob !== undefined;
    return isSlot ? `slot ${Slot}` : `node ${NodeID}`;
  }
}

/** Why the task's agent cannot carry out what is wanted of it, nor tell what has become of it; undefined where it can. */
function nodeIsAway(task: Task, node: Node): string | undefined {
  if (rank(task.Status.State) < rank("assigned")) return undefined;
  const { State, Message } = node.Status;
  // One that is only unknown (its manager has changed) runs what it ran; but what is to begin waits for it.
  const isAway = State === "down" || (State !== "ready" && task.Status.State !== "running");
  return isAway ? `node ${nameOf(node)} is ${State}${Message ? `: ${Message}` : ""}` : undefined;
}

function nameOf(node: Node): string {
  return nodeName(node) || node.ID;
}
