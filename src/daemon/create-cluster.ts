/** `swarm init`: a new cluster's root, tokens, data key, first node and store, on the disk of its first manager. */
import type { IdentityFiles } from "../ca/identity-files.ts";
import { newCertificateRequest } from "../ca/request.ts";
import { newRoot, RootAuthority } from "../ca/root.ts";
import { newJoinToken } from "../ca/tokens.ts";
import { newUnlockKey } from "../ca/unlock-key.ts";
import type { Clock } from "../lib/clock.ts";
import { newId } from "../lib/ids.ts";
import type { Random } from "../lib/random.ts";
import { allocateNetwork } from "../manager/allocator/subnets.ts";
import { newCluster } from "../model/cluster.ts";
import { defaultIngressName, defaultIngressSpec, predefinedNetworks } from "../model/networks.ts";
import type { SwarmInitRequest } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { dataKeyBytes } from "../store/encryption.ts";
import { Store } from "../store/store.ts";
import type { NodeKeys } from "./data-key.ts";
import { openSingle } from "./open-store.ts";
import type { NodeState } from "./state-file.ts";

export interface CreateClusterOptions {
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly request: SwarmInitRequest;
  /** host:port */
  readonly listenAddress: string;
  /** host:port */
  readonly advertiseAddress: string;
  readonly identityFiles: IdentityFiles;
  /** Of this node; made here. */
  readonly keys: NodeKeys;
}

/** Writes everything but `state.json`, which makes it count. */
export async function createCluster(
  options: CreateClusterOptions,
): Promise<{ state: NodeState; identity: NodeIdentity }> {
  const { dataDirectory, clock, random, request, listenAddress, advertiseAddress } = options;
  const clusterId = newId(random);
  const nodeId = newId(random);
  const root = await newRoot(clock.now());
  const rootCA = {
    Certificate: root.certificate,
    Key: root.key,
    JoinTokens: { Worker: newJoinToken(root.certificate, random), Manager: newJoinToken(root.certificate, random) },
  };
  const unlockKey = request.Spec?.EncryptionConfig?.AutoLockManagers ? newUnlockKey(random) : undefined;
  const cluster = newCluster(clusterId, request, rootCA, unlockKey);

  const { csr, key } = await newCertificateRequest();
  const authority = await RootAuthority.open(root);
  const expiryNanoseconds = cluster.Spec.CAConfig?.NodeCertExpiry;
  const chain = await authority.issue({ csr, nodeId, role: "manager", clusterId, expiryNanoseconds, now: clock.now() });
  const identity: NodeIdentity = { nodeId, clusterId, role: "manager", chain, key, rootCA: root.certificate };
  const dataKey = random.bytes(dataKeyBytes);
  options.keys.make();
  await options.keys.beManager(dataKey, unlockKey);
  await options.identityFiles.save(identity);

  const { backend } = openSingle({ dataDirectory, nodeId, dataKey, random });
  const store = await Store.open(backend, clock);
  try {
    await store.update((tx) => {
      const made = tx.create("cluster", cluster);
      tx.create("nodes", {
        ID: nodeId,
        Spec: { Labels: {}, Role: "manager", Availability: request.Availability || "active" },
        Status: { State: "unknown" },
        Role: "manager",
        ManagerStatus: { Addr: advertiseAddress },
        Certificate: { State: "issued", Role: "manager", CSR: csr, Certificate: chain },
      });
      for (const network of predefinedNetworks(() => newId(random))) tx.create("networks", network);
      // The first, so that it gets the first subnet.
      tx.create("networks", {
        ID: newId(random),
        Name: defaultIngressName,
        Labels: {},
        Driver: "overlay",
        Predefined: false,
        Spec: defaultIngressSpec,
        Allocated: allocateNetwork(tx, made, defaultIngressSpec),
      });
    });
  } finally {
    await store.close();
  }
  const managers = [{ nodeId, address: advertiseAddress }];
  return {
    state: { version: 1, nodeId, clusterId, role: "manager", listenAddress, advertiseAddress, store: "lmdb", managers },
    identity,
  };
}
