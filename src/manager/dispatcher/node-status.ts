/** What the dispatcher writes of a node. Each is one small transaction that looks before it writes. */
import { ShoalError } from "../../lib/errors.ts";
import { sameJson } from "../../lib/same.ts";
import type { NodeDescription, NodeStatus } from "../../model/types.ts";
import type { Caller } from "../../rpc/services.ts";
import type { Transaction } from "../../store/store.ts";

/** The node has a session with this manager: it is ready. Nothing is written where all of it is known. */
export function registerNode(tx: Transaction, caller: Caller, description: NodeDescription, managerId: string): void {
  const node = tx.get("nodes", caller.nodeId);
  if (!node) throw new ShoalError("NotFound", "node not found");
  const Status: NodeStatus = { State: "ready", Addr: caller.address };
  const known = sameJson(node.Status, Status) && sameJson(node.Description, description);
  if (known && node.SessionManager === managerId) return;
  tx.put("nodes", { ...node, Description: description, Status, SessionManager: managerId });
}

/**
 * The node of this very manager, which has just started: its agent starts with it, so without a session it can't be
 * told what to run, and that is no lost contact that might be back. Nothing is written where it isn't taken for ready.
 */
export function markStarting(tx: Transaction, managerId: string): void {
  const node = tx.get("nodes", managerId);
  if (node?.Status.State !== "ready" || node.SessionManager !== managerId) return;
  tx.put("nodes", { ...node, Status: { ...node.Status, State: "unknown", Message: startingMessage } });
}

const startingMessage = "the node's agent has not registered since the daemon's start";

/** False where nothing is written: the node is down already, gone, or has its session with another manager. */
export function markDown(tx: Transaction, nodeId: string, managerId: string, why: string): boolean {
  const node = tx.get("nodes", nodeId);
  if (!node || node.Status.State === "down" || node.SessionManager !== managerId) return false;
  tx.put("nodes", { ...node, Status: { ...node.Status, State: "down", Message: why } });
  return true;
}
