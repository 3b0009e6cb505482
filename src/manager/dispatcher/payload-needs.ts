/**
 * Which secrets and configs an agent has to have: those that a task of its node references which has not ended yet, and
 * no others. Kept as counts, so that a change costs what it changes.
 */
import type { PayloadReference } from "../../model/payload-references.ts";
import type { AssignmentChange } from "../../rpc/services.ts";
import type { View } from "../../store/store.ts";

export class PayloadNeeds {
  readonly #view: View;
  /** References of each task that has some, each once. */
  readonly #ofTask = new Map<string, readonly PayloadReference[]>();
  /** Tasks by what they need. */
  readonly #tasks = new Map<string, number>();
  /** What the agent has. */
  readonly #sent = new Set<string>();
  /** What somebody has begun or ceased to need since the last `take`. */
  readonly #touched = new Map<string, PayloadReference>();

  constructor(view: View) {
    this.#view = view;
  }

  /** The task needs exactly these from now on. */
  set(taskId: string, references: readonly PayloadReference[]): void {
    const before = this.#ofTask.get(taskId) ?? [];
    if (before.length === 0 && references.length === 0) return;
    const now = new Map(references.map((reference) => [keyOf(reference), reference]));
    for (const reference of now.values()) this.#count(reference, 1);
    for (const reference of before) this.#count(reference, -1);
    if (now.size === 0) this.#ofTask.delete(taskId);
    else this.#ofTask.set(taskId, [...now.values()]);
  }

  #count(reference: PayloadReference, by: number): void {
    const key = keyOf(reference);
    const count = (this.#tasks.get(key) ?? 0) + by;
    if (count === 0) this.#tasks.delete(key);
    else this.#tasks.set(key, count);
    this.#touched.set(key, reference);
  }

  /** Bytes of what `take` would bring (as base64), about. */
  get waitingBytes(): number {
    let bytes = 0;
    for (const [key, { table, id }] of this.#touched) {
      if (this.#tasks.has(key) && !this.#sent.has(key)) bytes += this.#view.get(table, id)?.Spec.Data.length ?? 0;
    }
    return bytes;
  }

  /**
   * What the agent has to be told. One that is no longer there (its service is gone, and its last tasks are on their way
   * out) is left out: the agent says so, should a task still ask for it.
   */
  take(): { readonly come: readonly AssignmentChange[]; readonly go: readonly AssignmentChange[] } {
    const come: AssignmentChange[] = [];
    const go: AssignmentChange[] = [];
    for (const [key, { table, id }] of this.#touched) {
      if (!this.#tasks.has(key)) {
        if (this.#sent.delete(key)) go.push({ kind: table === "secrets" ? "remove-secret" : "remove-config", id });
        continue;
      }
      const payload = this.#sent.has(key) ? undefined : this.#view.get(table, id);
      if (!payload) continue;
      this.#sent.add(key);
      come.push(
        table === "secrets" ? { kind: "update-secret", secret: payload } : { kind: "update-config", config: payload },
      );
    }
    this.#touched.clear();
    return { come, go };
  }
}

function keyOf({ table, id }: PayloadReference): string {
  return `${table}/${id}`;
}
