/**
 * What the agent knows of the thing that runs containers. The agent is level-triggered: it looks at what there is
 * (`observe`) and takes one step towards what is wanted; every step is idempotent, and what has changed is only a
 * reason to look again. The simulation hands in another executor than Docker's.
 */

import type { AssignedTask, NodeDescription, PortStatus } from "../../model/types.ts";
import type { LogMessage, LogOptions } from "../../rpc/services.ts";

/** `none`: there is no health check, or it hasn't been looked at. */
export type Health = "none" | "starting" | "healthy" | "unhealthy";

export interface RunDetail {
  readonly pid: number;
  readonly health: Health;
  /** Host-mode ports as the Engine bound them. */
  readonly ports: PortStatus | undefined;
}

export interface Exit {
  readonly code: number;
  /** What the Engine says besides the code. */
  readonly reason?: string;
}

/** What there is of a task on this node. `detail` and `exit` are absent until `inspect` has fetched them. */
export type Observation =
  | { readonly kind: "absent" /** How it ended, when it ran and was then removed by someone. */; readonly exit?: Exit }
  | { readonly kind: "created"; readonly containerId: string }
  | { readonly kind: "running"; readonly containerId: string; readonly detail?: RunDetail }
  | { readonly kind: "exited"; readonly containerId: string; readonly exit?: Exit };

export interface ExecutorListener {
  /** From now on it is known what there is: look at every task. */
  ready(): void;
  /** `observe(taskId)` gives something new. */
  changed(taskId: string): void;
  /** Why nothing can be done at present (the Engine is unreachable); undefined when it can again. */
  problem(text: string | undefined): void;
}

export interface Executor {
  /** The node as it describes itself to managers; without TLSInfo. */
  describe(): Promise<NodeDescription>;
  /** Starts to watch; `ready` is called as soon as it is known what there is. */
  start(listener: ExecutorListener): void;
  /** Stops watching; containers run on. */
  stop(): Promise<void>;
  /** Undefined until it is known what there is. Never blocks, never throws. */
  observe(taskId: string): Observation | undefined;
  /** Tasks of this node of which there is something; empty until that is known. */
  taskIds(): readonly string[];
  /**
   * Makes ready to start: image, container. `created` (or, when it was there before, whatever it is) is observed when
   * it resolves. Rejects with `Unavailable` for what another try may mend, `Canceled` on the signal, else for good.
   * @param progress told what is being waited for
   */
  prepare(task: AssignedTask, signal: AbortSignal, progress: (text: string) => void): Promise<void>;
  /** Starts the container; `running` or beyond is observed when it resolves. Rejects as `prepare`. */
  run(task: AssignedTask, signal: AbortSignal): Promise<void>;
  /** Fetches what `observe` lacks (`detail`, `exit`). */
  inspect(taskId: string): Promise<void>;
  /** Stops with grace (nanoseconds; undefined is the Engine's default); `running` is no longer observed then. */
  halt(taskId: string, graceNanoseconds: number | undefined): Promise<void>;
  /** Removes the container, running or not, and its anonymous volumes; `absent` is observed then. */
  remove(taskId: string): Promise<void>;
  /** Removes everything of this node at once (`leave`). */
  removeAll(): Promise<void>;
  /** The task's log, line by line in batches; ends with it, or (`follow`) when the container has ended. */
  logs(task: AssignedTask, options: LogOptions, signal: AbortSignal): AsyncIterable<readonly LogMessage[]>;
}
