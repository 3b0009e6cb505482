/** What services want of networks, secrets and configs, for whoever would remove one of those. */
import type { Service, ServiceSpec } from "../model/types.ts";
import type { View } from "../store/store.ts";

/** The service's spec, and while an update is under way the one that it may be rolled back to. */
export function wantedSpecs(view: View, service: Service): ServiceSpec[] {
  const specs = [view.specOf(service).Spec];
  const state = service.UpdateStatus?.State;
  const previous = service.PreviousSpecVersion && view.spec(service.ID, service.PreviousSpecVersion.Index);
  if (previous && (state === "updating" || state === "rollback_started")) specs.push(previous.Spec);
  return specs;
}
