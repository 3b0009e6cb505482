/**
 * `--force-new-cluster`: this former manager's copy of the store becomes the whole store. All other managers are
 * workers from then on, as soon as they come back.
 */
import type { IdentityFiles } from "../ca/identity-files.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { inItsRole } from "../manager/roles/roles.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import { Store } from "../store/store.ts";
import { etcdOptions, openSingle } from "./open-store.ts";
import { reissueOwn } from "./reissue.ts";
import type { NodeState } from "./state-file.ts";

export interface StartOverOptions {
  readonly dataDirectory: string;
  readonly dataKey: Uint8Array;
  readonly identityFiles: IdentityFiles;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Nothing of the manager may be running. The store is closed again when it resolves. */
export async function makeOnlyManager(options: StartOverOptions, state: NodeState): Promise<void> {
  const { identityFiles, clock } = options;
  const { nodeId } = state;
  const own = { ...options, nodeId };
  const replica =
    state.store === "etcd" ? await EtcdReplica.forceNewCluster(etcdOptions(own, state, () => {})) : openSingle(own);
  let store: Store | undefined;
  try {
    store = await Store.open(replica.backend, clock);
    await store.update((tx) => {
      for (const node of tx.all("nodes")) {
        if (node.ID === nodeId || (node.Role === "worker" && node.Spec.Role === "worker")) continue;
        tx.put("nodes", inItsRole({ ...node, Spec: { ...node.Spec, Role: "worker" } }));
      }
      const self = tx.get("nodes", nodeId);
      if (self) tx.put("nodes", { ...self, ManagerStatus: { Addr: state.advertiseAddress } });
    });
    // Its own may have expired while it was away, and there is nobody else that could sign another.
    const identity = await identityFiles.load();
    if (identity) await identityFiles.save(await reissueOwn(store, identity, clock));
  } finally {
    await store?.close();
    await replica.stop();
  }
}
