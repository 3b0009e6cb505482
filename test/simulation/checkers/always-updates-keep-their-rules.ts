/**
 * An update never has more slots under way than its parallelism allows, takes the failure action that its service has
 * when more tasks have failed than may, takes none before, and goes only from one state to another that may follow.
 */
import { isRunnableDesire, isTerminal, rank } from "../../../src/model/state.ts";
import type { Service, ServiceSpec, Task, UpdateState } from "../../../src/model/types.ts";
import type { Change } from "../../../src/store/store.ts";
import { type CheckerFactory, describeTask, type Finding, type Overview, placeOf } from "../checker.ts";

/** What may follow, while nobody changes the service; a user's change begins anew. */
const successors: Readonly<Record<UpdateState, readonly UpdateState[]>> = {
  updating: ["paused", "completed", "rollback_started"],
  rollback_started: ["rollback_paused", "rollback_completed"],
  paused: [],
  rollback_paused: [],
  completed: ["updating"],
  rollback_completed: ["updating"],
};

export const updatesKeepTheirRules: CheckerFactory = (overview) => {
  /** Tasks that have reported to run. */
  const ran = new Set<string>();
  return {
    name: "updates keep their rules",
    when: "always",
    commit({ changes }) {
      const begun = new Set<string>();
      for (const change of changes) {
        if (change.table !== "tasks") continue;
        if (change.after?.Status.State === "running") ran.add(change.id);
        if (!change.after) ran.delete(change.id);
        if (!change.before && change.after?.MadeByUpdate) begun.add(change.after.ServiceID);
      }
      for (const id of begun) {
        const finding = tooManyAtOnce(overview, id, ran);
        if (finding) return finding;
      }
      for (const change of changes) {
        const finding = change.table === "services" ? wrongTurn(overview, change, ran) : undefined;
        if (finding) return finding;
      }
      return undefined;
    },
  };
};

function tooManyAtOnce(overview: Overview, serviceId: string, ran: ReadonlySet<string>): Finding {
  const service = overview.view.service(serviceId);
  if (!service?.UpdateStatus) return undefined;
  const { Spec } = overview.view.specOf(service);
  const config = configOf(Spec, service.UpdateStatus.State);
  const most = config ? (config.Parallelism ?? 0) : 1;
  const underWay = madeTasks(overview, service).filter(
    ({ ID, Status, DesiredState }) =>
      !ran.has(ID) && isRunnableDesire(DesiredState) && rank(Status.State) < rank("running"),
  );
  const places = new Set(underWay.map(placeOf));
  if (most === 0 || places.size <= most) return undefined;
  return `${Spec.Name} updates ${places.size} at once, not ${most}: ${underWay.map(describeTask).join("; ")}`;
}

function wrongTurn(
  overview: Overview,
  change: Change & { readonly table: "services" },
  ran: ReadonlySet<string>,
): Finding {
  const { before, after } = change;
  const [from, to] = [before?.UpdateStatus?.State, after?.UpdateStatus?.State];
  if (!before || !after || from === undefined || to === undefined || from === to) return undefined;
  const isRollback = to === "rollback_started";
  if (before.SpecVersion.Index !== after.SpecVersion.Index && !isRollback) return undefined;
  if (isRollback && after.UpdateStatus?.Message?.startsWith("manually")) return undefined;
  if (!successors[from].includes(to)) return `${after.Name}: its update goes from ${from} to ${to}`;
  const spec = overview.view.spec(after.ID, before.SpecVersion.Index)?.Spec;
  if (!spec) return undefined;
  const action = configOf(spec, from)?.FailureAction || "pause";
  const wanted =
    action === "rollback" && (from === "rollback_started" || !before.PreviousSpecVersion) ? "pause" : action;
  const taken = isRollback ? "rollback" : to.endsWith("paused") ? "pause" : "none";
  if (taken !== "none" && taken !== wanted) return `${after.Name}: ${taken} is taken, and its action is ${action}`;
  if (wanted === "continue") return undefined;
  const made = madeTasks(overview, before);
  // Those that ran first may have ended in their monitoring period, or after it.
  const failed = made.filter(hasEnded);
  const surelyFailed = failed.filter(({ ID }) => !ran.has(ID));
  const slots = new Set(made.map(placeOf)).size;
  const most = configOf(spec, from)?.MaxFailureRatio ?? 0;
  if (taken === "none" && slots > 0 && surelyFailed.length / slots > most) {
    return `${after.Name}: ${to}, and ${surelyFailed.length} of ${slots} tasks have failed`;
  }
  return taken !== "none" && failed.length === 0 ? `${after.Name}: ${to}, and no task has failed` : undefined;
}

/** By itself, not because it was told to. */
function hasEnded({ Status: { State } }: Task): boolean {
  return isTerminal(State) && (State === "complete" || State === "failed" || State === "rejected");
}

function madeTasks({ view }: Overview, { ID, SpecVersion, UpdateStatus }: Service): Task[] {
  return [...view.tasksOfService(ID)].filter(
    (task) => task.SpecVersion.Index === SpecVersion.Index && task.MadeByUpdate === UpdateStatus?.StartedAt,
  );
}

function configOf(spec: ServiceSpec, state: UpdateState) {
  return state.startsWith("rollback") ? spec.RollbackConfig : spec.UpdateConfig;
}
