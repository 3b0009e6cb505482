/**
 * What a client was told is written is there, at once and for good: a created service until it is deleted, an updated
 * spec until a later one. And a read shows every write that was answered before it.
 */
import type { Commit } from "../../../src/store/store.ts";
import type { Checker, Finding, Overview } from "../checker.ts";

/** The label that makes each write of the workload unlike any other. */
export const markLabel = "mark";

export class AcknowledgedWrites implements Checker {
  readonly name = "acknowledged writes are there";
  readonly when = "always";
  readonly #overview: Overview;
  readonly #marks = new Set<string>();
  readonly #deleting = new Set<string>();
  /** Of each service: the version of the newest write that was answered. */
  readonly #answered = new Map<string, number>();

  constructor(overview: Overview) {
    this.#overview = overview;
  }

  /** A delete of it is about to be asked for: from now on it may be gone. */
  willDelete(serviceId: string): void {
    this.#deleting.add(serviceId);
  }

  /** A client got its answer to the create or update with this mark. */
  answered(serviceId: string, mark: string): Finding {
    if (!this.#marks.has(mark)) return `the write ${mark} of service ${serviceId} was answered, and is not there`;
    const service = this.#overview.view.service(serviceId);
    if (service) this.#answered.set(serviceId, service.Version.Index);
    else if (!this.#deleting.has(serviceId)) return `service ${serviceId} was answered for, and is gone`;
    return undefined;
  }

  deleted(serviceId: string): Finding {
    return this.#overview.view.service(serviceId) ? `service ${serviceId} was deleted, and is there` : undefined;
  }

  /** What a read may not be older than; to be asked before it begins. */
  newest(serviceId: string): number {
    return this.#answered.get(serviceId) ?? 0;
  }

  /** @param version that a read gave; undefined: not found */
  read(serviceId: string, version: number | undefined, newest: number): Finding {
    if (version === undefined) {
      return newest === 0 || this.#deleting.has(serviceId) ? undefined : `service ${serviceId} is not found`;
    }
    return version < newest ? `service ${serviceId} is read at ${version}, and was at ${newest} before` : undefined;
  }

  commit({ changes }: Commit): Finding {
    for (const { table, id, before, after } of changes) {
      if (table === "specs" && after) this.#marks.add(after.Spec.Labels?.[markLabel] ?? "");
      if (table === "services" && before && !after && !this.#deleting.has(id)) return `service ${before.Name} vanishes`;
    }
    return undefined;
  }
}
