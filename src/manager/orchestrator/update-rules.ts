/** The settings of an update or a rollback, with Swarm's defaults; a service without any is updated one by one. */
import type { ServiceSpec } from "../../model/types.ts";
import { toMs } from "./restart.ts";

const defaultMonitorMs = 5_000;

export interface UpdateRules {
  /** 0: all at once. */
  readonly parallelism: number;
  readonly delayMs: number;
  readonly monitorMs: number;
  readonly failureAction: "pause" | "continue" | "rollback";
  readonly maxFailureRatio: number;
  readonly order: "stop-first" | "start-first";
}

export function rulesOf(spec: ServiceSpec, isRollback: boolean): UpdateRules {
  const config = isRollback ? spec.RollbackConfig : spec.UpdateConfig;
  const action = config?.FailureAction;
  return {
    parallelism: config ? (config.Parallelism ?? 0) : 1,
    delayMs: toMs(config?.Delay) ?? 0,
    monitorMs: toMs(config?.Monitor || undefined) ?? defaultMonitorMs,
    failureAction: action === "continue" || action === "rollback" ? action : "pause",
    maxFailureRatio: config?.MaxFailureRatio ?? 0,
    order: config?.Order === "start-first" ? "start-first" : "stop-first",
  };
}
