/** Why a manager is not let go without force: Swarm's text, by what the swarm would lose. */
import type { LocalNode } from "./context.ts";

const attempt = "You are attempting to leave the swarm on a node that is participating as a manager. ";
const lastManager =
  "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
const mayLose = "Doing so may lose the consensus of your swarm. ";
const onlyWay =
  "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";

/** The refusal, or undefined where the node is no manager and may simply go. */
export function leaveRefusal(node: LocalNode): string | undefined {
  if (!node.info().ControlAvailable) return undefined;
  const manager = node.manager();
  if (!manager) return attempt + mayLose + onlyWay;
  let reachable = 0;
  let unreachable = 0;
  for (const { ID, ManagerStatus } of manager.store.view.all("nodes")) {
    if (ManagerStatus && manager.isReachable(ID)) reachable++;
    else if (ManagerStatus) unreachable++;
  }
  if (reachable <= 1 && unreachable === 0) return attempt + lastManager;
  const all = reachable + unreachable;
  const losesQuorum = reachable - 2 < Math.floor(all / 2);
  const clause = losesQuorum
    ? `Removing this node leaves ${reachable - 1} managers out of ${all}. Without a Raft quorum your swarm will be inaccessible. `
    : "";
  return attempt + clause + onlyWay;
}
