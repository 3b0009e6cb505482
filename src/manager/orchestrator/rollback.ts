/** The automatic rollback: the service gets its previous spec back, and has no previous one from then on. */
import { specKey } from "../../model/types.ts";
import type { ServicePlan } from "./service-plan.ts";

/** Plans it, as a new revision: a task's revision never means another spec. False where there is no previous spec. */
export function rollBack({ view, service, context, changes }: ServicePlan, message: string): boolean {
  const previous = service.PreviousSpecVersion && view.spec(service.ID, service.PreviousSpecVersion.Index);
  if (!previous) return false;
  let newest = 0;
  for (const { Revision } of view.specsOfService(service.ID)) newest = Math.max(newest, Revision);
  const Revision = newest + 1;
  const { ServiceID, Spec, PullOptions } = previous;
  const revision = { ID: specKey(ServiceID, Revision), ServiceID, Revision, Spec, ...(PullOptions && { PullOptions }) };
  const { PreviousSpecVersion: _, ...rest } = service;
  const UpdateStatus = { State: "rollback_started" as const, StartedAt: context.nowText, Message: message };
  changes.push(
    { kind: "create", table: "specs", object: revision },
    { kind: "update", table: "services", object: { ...rest, SpecVersion: { Index: Revision }, UpdateStatus } },
  );
  return true;
}
