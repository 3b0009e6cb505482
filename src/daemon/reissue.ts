/**
 * A certificate for a manager from the root in its own store, where nobody else can sign for it: a manager that starts
 * over as the only one (`--force-new-cluster`), whose own certificate may have expired while it was away.
 */
import { newCertificateRequest } from "../ca/request.ts";
import { RootAuthority } from "../ca/root.ts";
import { issuingRoot } from "../ca/rotation.ts";
import type { Clock } from "../lib/clock.ts";
import { ShoalError } from "../lib/errors.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import type { Store } from "../store/store.ts";

/** The new identity, which the store knows as issued; the caller keeps it. DataLoss where the store has no cluster. */
export async function reissueOwn(store: Store, identity: NodeIdentity, clock: Clock): Promise<NodeIdentity> {
  const { nodeId, clusterId } = identity;
  const cluster = store.view.cluster();
  if (!cluster) throw new ShoalError("DataLoss", "the store holds no swarm");
  const { csr, key } = await newCertificateRequest();
  const authority = await RootAuthority.open(issuingRoot(cluster.RootCA));
  const expiryNanoseconds = cluster.Spec.CAConfig?.NodeCertExpiry;
  const role = "manager" as const;
  const chain = await authority.issue({ csr, nodeId, role, clusterId, expiryNanoseconds, now: clock.now() });
  await store.update((tx) => {
    const node = tx.get("nodes", nodeId);
    if (!node) throw new ShoalError("FailedPrecondition", `node ${nodeId} was removed from swarm`);
    tx.put("nodes", { ...node, Certificate: { State: "issued", Role: role, CSR: csr, Certificate: chain } });
  });
  return { ...identity, role, chain, key, rootCA: cluster.RootCA.Certificate };
}
