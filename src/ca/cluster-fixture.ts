/** For tests: the certificates of a new swarm and its first manager, made as `swarm init` does. */
import type { Random } from "../lib/random.ts";
import type { Cluster, NodeCertificate } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { newCertificateRequest } from "./request.ts";
import { newRoot, RootAuthority } from "./root.ts";
import { newJoinToken } from "./tokens.ts";

export interface FoundOptions {
  readonly clusterId: string;
  /** Of the first manager. */
  readonly nodeId: string;
  /** `NodeCertExpiry` of the swarm's spec; absent is 90 days. */
  readonly expiryNanoseconds: number | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
  readonly random: Random;
}

export interface Foundation {
  /** For the Cluster object. */
  readonly rootCA: Cluster["RootCA"];
  /** For the first manager's disk. */
  readonly identity: NodeIdentity;
  /** For its Node object. */
  readonly nodeCertificate: NodeCertificate;
}

export async function foundCluster(options: FoundOptions): Promise<Foundation> {
  const { clusterId, nodeId, expiryNanoseconds, now, random } = options;
  const root = await newRoot(now);
  const authority = await RootAuthority.open(root);
  const { csr, key } = await newCertificateRequest();
  const chain = await authority.issue({ csr, nodeId, role: "manager", clusterId, expiryNanoseconds, now });
  return {
    rootCA: {
      Certificate: root.certificate,
      Key: root.key,
      JoinTokens: {
        Worker: newJoinToken(root.certificate, random),
        Manager: newJoinToken(root.certificate, random),
      },
    },
    identity: { nodeId, clusterId, role: "manager", chain, key, rootCA: root.certificate },
    nodeCertificate: { State: "issued", Role: "manager", CSR: csr, Certificate: chain },
  };
}
