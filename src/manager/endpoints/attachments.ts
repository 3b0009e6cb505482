/**
 * Users' containers on attachable networks: a task without a service holds the address of each, from before the
 * container is made until the node says that it is gone (or has been removed from the swarm).
 *
 * Differs from Swarm: the node is answered once the address is there, or with the reason why there is none.
 */
import { isIPv4 } from "node:net";
import { type Clock, within } from "../../lib/clock.ts";
import { ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Random } from "../../lib/random.ts";
import { isTerminal, rank } from "../../model/state.ts";
import type { Network, Task } from "../../model/types.ts";
import type { AttachRequest } from "../../rpc/services.ts";
import type { Store, View } from "../../store/store.ts";
import { networkLock } from "../allocator/subnets.ts";

export interface AttachmentOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
}

/** For the allocator; the node itself gives up after as long (Swarm's number). */
const addressWithinMs = 20_000;

/**
 * Makes the task, and waits until it has an address. Throws what Swarm does: NotFound, PermissionDenied for a network
 * that is not attachable; and FailedPrecondition with the reason why it gets no address.
 */
export async function attach(options: AttachmentOptions, nodeId: string, request: AttachRequest): Promise<string> {
  const { store, clock, random } = options;
  const { network: wanted, containerId, aliases, address } = request;
  if (address !== "" && !isIPv4(address)) throw new ShoalError("InvalidArgument", `invalid IPv4 address: ${address}`);
  const taskId = newId(random);
  await store.update((tx) => {
    const network = findNetwork(tx, wanted);
    if (!network) throw new ShoalError("NotFound", `network ${wanted} not found`);
    tx.takeLock(networkLock(network.ID)); // nobody removes it meanwhile
    if (!network.Spec?.Attachable) {
      throw new ShoalError("PermissionDenied", `network ${wanted} not manually attachable`);
    }
    if (!tx.get("nodes", nodeId)?.DataPath) {
      throw new ShoalError("FailedPrecondition", "this node can't take part in networks of the swarm");
    }
    tx.create("tasks", {
      ID: taskId,
      ServiceID: "",
      Slot: 0,
      NodeID: nodeId,
      SpecVersion: { Index: 0 },
      Status: { Timestamp: tx.now, State: "new", Message: "created" },
      DesiredState: "running",
      Attachment: {
        NetworkID: network.ID,
        ContainerID: containerId,
        Aliases: aliases,
        ...(address !== "" && { Address: address }),
      },
    });
  });
  try {
    await allocated(store, clock, taskId);
  } catch (error) {
    await detach(store, nodeId, taskId);
    throw error;
  }
  return taskId;
}

/** Frees the address. Repeatable; PermissionDenied for what is not that node's. */
export async function detach(store: Store, nodeId: string, taskId: string): Promise<void> {
  await store.update((tx) => {
    const task = tx.get("tasks", taskId);
    if (!task) return;
    if (!task.Attachment || task.NodeID !== nodeId) {
      throw new ShoalError("PermissionDenied", `attachment ${taskId} doesn't belong to this node`);
    }
    tx.delete("tasks", taskId);
  });
}

function findNetwork(view: View, wanted: string): Network | undefined {
  const byId = view.network(wanted);
  return byId && !byId.Removed ? byId : view.networkByName(wanted);
}

/** Resolves when the task has its address; throws why it has none. */
async function allocated(store: Store, clock: Clock, taskId: string): Promise<void> {
  const looked = look(store.view.get("tasks", taskId));
  if (looked) return;
  let unwatch = () => {};
  const told = new Promise<void>((resolve, reject) => {
    unwatch = store.watch(({ changes }) => {
      for (const change of changes) {
        if (change.table !== "tasks" || change.id !== taskId) continue;
        try {
          if (look(change.after)) resolve();
        } catch (error) {
          reject(error);
        }
      }
    });
  });
  try {
    await within(clock, addressWithinMs, told, () => {
      throw new ShoalError("DeadlineExceeded", "no manager has given the container an address in time");
    });
  } finally {
    unwatch();
  }
}

function look(task: Task | undefined): boolean {
  if (!task) throw new ShoalError("Aborted", "the attachment was removed");
  const { State, Err } = task.Status;
  if (isTerminal(State)) throw new ShoalError("Aborted", Err ?? "the attachment was ended");
  if (rank(State) >= rank("assigned")) return true;
  if (Err) throw new ShoalError("FailedPrecondition", Err);
  return false;
}
