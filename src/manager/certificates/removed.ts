/**
 * Tells of nodes that are removed from the swarm, so that what they still have open can be cut: their next call would
 * be refused by `authorize`, but a stream that is open makes no next call.
 */
import type { Store } from "../../store/store.ts";

/** Calls `onRemoved` with a node's id when it is removed. Returns the way to stop. */
export function watchRemovedNodes(store: Store, onRemoved: (nodeId: string) => void): () => void {
  return store.watch(({ changes }) => {
    for (const change of changes) {
      if (change.table === "nodes" && !change.after) onRemoved(change.id);
      if (change.table === "cluster" && change.after) {
        const before = change.before?.RemovedNodes ?? {};
        for (const nodeId of Object.keys(change.after.RemovedNodes)) {
          if (!Object.hasOwn(before, nodeId)) onRemoved(nodeId);
        }
      }
    }
  });
}
