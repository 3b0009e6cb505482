/**
 * The node's data plane as the agent sees it. The agent hands in what the managers say; the data plane makes the kernel
 * equal to it, and tells the agent what a task's container needs.
 */
import type { DataPath, NetworksMessage } from "../model/network-state.ts";
import type { AssignedTask } from "../model/types.ts";

/** One network of a container, as the Engine's "create container" and "connect network" take it. */
export interface ContainerNetwork {
  /** The Engine's network. */
  readonly engineNetwork: string;
  /** Of its endpoint there. */
  readonly driverOptions: Readonly<Record<string, string>>;
}

export interface ContainerNetworks {
  /** The first is given with the create, the others are connected before the start. Never empty. */
  readonly networks: readonly ContainerNetwork[];
  /** Where the container's names are looked up. */
  readonly nameserver: string;
}

export interface NetworkPlane {
  /** What managers have to know of this node's data plane; rejects with why it has none (a program is missing ...). */
  describe(): Promise<DataPath>;
  /**
   * Takes the managers' state. Resolves when the kernel is equal to it; messages are applied one after the other, in
   * the order of the calls. A failure is of this message alone; the next complete one puts everything right.
   */
  apply(message: NetworksMessage): Promise<void>;
  /**
   * What the task's container needs, once the task's networks are there on this node: waits for the managers' state of
   * them. Only networks that are not the Engine's own (`host`, `bridge`). Unavailable for what another try may mend.
   */
  attach(task: AssignedTask, signal: AbortSignal): Promise<ContainerNetworks>;
  /** Resolves when no connection leads to the task's addresses any more, or the limit has passed. */
  drained(task: AssignedTask, limitMs: number): Promise<void>;
}
