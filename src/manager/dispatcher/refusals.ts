/** What the dispatcher refuses agents with: codes and texts are swarmkit's where it has them, as agents act by them. */
import { ShoalError } from "../../lib/errors.ts";

export function outOfTouch(): ShoalError {
  return new ShoalError("Unavailable", "this manager is out of touch with the other managers");
}

export function notRunning(): ShoalError {
  return new ShoalError("Unavailable", "dispatcher is stopped");
}

export function sessionInvalid(): ShoalError {
  return new ShoalError("InvalidArgument", "session invalid");
}

export function mustDisconnect(): ShoalError {
  return new ShoalError("Aborted", "node must disconnect");
}

export function notRegistered(): ShoalError {
  return new ShoalError("NotFound", "node not registered");
}

export function removed(nodeId: string): ShoalError {
  return new ShoalError("PermissionDenied", `node ${nodeId} was removed from the swarm`);
}
