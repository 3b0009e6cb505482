/** Who may be asked: the manager of this node, or the Engine's words for why there is none (503). */
import { certificatesExpired } from "../ca/chain.ts";
import type { View } from "../store/store.ts";
import type { ActiveManager, LocalNode } from "./context.ts";
import { DaemonError } from "./errors.ts";

const notInSwarm =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const notReady =
  "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
const isWorker =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
/** What every swarm endpoint of a locked manager answers. */
export const isLocked =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';

/** The active manager of this node; throws the 503 that says why it is none. Every swarm endpoint starts with it. */
export function requireManager(node: LocalNode): ActiveManager {
  const manager = node.manager();
  if (manager) return manager;
  const { LocalNodeState, ControlAvailable, Error: why } = node.info();
  if (LocalNodeState === "locked") throw new DaemonError("Unavailable", isLocked);
  if (LocalNodeState === "inactive") throw new DaemonError("Unavailable", notInSwarm);
  if (LocalNodeState === "error" && why === certificatesExpired)
    throw new DaemonError("Unavailable", certificatesExpired);
  // A node that has joined but failed for good has no part in a swarm that could be asked either.
  if (LocalNodeState === "error" && !ControlAvailable) throw new DaemonError("Unavailable", notInSwarm);
  throw new DaemonError("Unavailable", ControlAvailable ? notReady : isWorker);
}

/** The manager's state, with every write in it that was answered before this call. Read it in one turn. */
export async function currentView(node: LocalNode): Promise<View> {
  const { store } = requireManager(node);
  await store.caughtUp();
  return store.view;
}
