/**
 * The secrets and configs that the managers have sent for this node's tasks: in memory only. After a restart there are
 * none until a manager has sent them again; containers that run have theirs as files, and need none of this.
 */
import type { AssignedTask, Config, PayloadSpec, Secret } from "../model/types.ts";
import type { AssignmentsMessage } from "../rpc/services.ts";

export class Payloads {
  #secrets = new Map<string, Secret>();
  #configs = new Map<string, Config>();

  /** What a message of a manager says of them; a complete one says it all. */
  assign({ type, changes }: AssignmentsMessage): void {
    if (type === "complete") this.clear();
    for (const change of changes) if (change.kind === "remove-secret") this.#secrets.delete(change.id);
    for (const change of changes) if (change.kind === "remove-config") this.#configs.delete(change.id);
    for (const change of changes) {
      if (change.kind === "update-secret") this.#secrets.set(change.secret.ID, change.secret);
      if (change.kind === "update-config") this.#configs.set(change.config.ID, change.config);
    }
  }

  /** A secret's for this task alone (a driver of a stock manager makes such) goes before the one for all. */
  of({ ID }: Pick<AssignedTask, "ID">, table: "secrets" | "configs", id: string): PayloadSpec | undefined {
    if (table === "configs") return this.#configs.get(id)?.Spec;
    return (this.#secrets.get(`${id}.${ID}`) ?? this.#secrets.get(id))?.Spec;
  }

  clear(): void {
    this.#secrets.clear();
    this.#configs.clear();
  }

  /** Ids of all. */
  ids(table: "secrets" | "configs"): readonly string[] {
    return [...(table === "secrets" ? this.#secrets : this.#configs).keys()];
  }
}
