/**
 * The loop that signs what nodes have asked for; it runs on the leader. What is `pending` or `renew` in the store gets
 * signed, whoever asked and whichever manager had begun, so a request survives a crash between.
 * A certificate is stored only beside the request that it was made for: a node that asked again meanwhile gets the
 * certificate of its newer key.
 */
import { RootAuthority } from "../../ca/root.ts";
import { issuingRoot } from "../../ca/rotation.ts";
import type { Clock } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { RunResult } from "../../lib/loop.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster, Node, NodeCertificate } from "../../model/types.ts";
import type { Fence, Store } from "../../store/store.ts";
import { NodeLoop } from "../node-loop.ts";
import { awaitsSigning } from "./service.ts";

export interface SignerOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The lead that its writes depend on; absent only in tests. */
  readonly fence?: Fence;
}

/** A signature takes about 3 ms: bounds how long the first node of a rush waits for the last one's. */
const signaturesPerRun = 32;
/** The loop, not yet started. */
export function certificateSigner(options: SignerOptions): NodeLoop {
  const signer = new Signer(options);
  const wants = (node: Node) => awaitsSigning(node.Certificate?.State);
  return new NodeLoop({ ...options, name: "certificates", wants, run: (ids) => signer.sign([...ids]) });
}

class Signer {
  readonly #options: SignerOptions;
  /** The authority that signs now, opened once. */
  #authority:
    | { readonly root: string; readonly crossSigned: string | undefined; readonly opened: Promise<RootAuthority> }
    | undefined;

  constructor(options: SignerOptions) {
    this.#options = options;
  }

  async sign(ids: readonly string[]): Promise<RunResult> {
    const { store, fence } = this.#options;
    const cluster = store.view.cluster();
    if (!cluster) return { changes: 0 };
    const signed = new Map<string, NodeCertificate>();
    for (const id of ids.slice(0, signaturesPerRun)) {
      const node = store.view.get("nodes", id);
      if (node && awaitsSigning(node.Certificate?.State)) signed.set(id, await this.#certificateFor(node, cluster));
    }
    if (signed.size === 0) return { changes: 0, again: ids.slice(signaturesPerRun) };
    const changes = await store.update((tx) => {
      // Where the root is another one by now, what the one before signed may be of no more use.
      if (issuingRoot((tx.cluster() ?? cluster).RootCA).certificate !== issuingRoot(cluster.RootCA).certificate)
        return undefined;
      let written = 0;
      for (const [id, certificate] of signed) {
        const node = tx.get("nodes", id);
        if (!node || !awaitsSigning(node.Certificate?.State) || node.Certificate?.CSR !== certificate.CSR) continue;
        tx.put("nodes", { ...node, Certificate: certificate });
        written++;
      }
      return written;
    }, fence && { fence });
    return changes === undefined ? { changes: 0, again: ids } : { changes, again: ids.slice(signaturesPerRun) };
  }

  /** Issued, or failed with the reason. */
  async #certificateFor(node: Node, cluster: Cluster): Promise<NodeCertificate> {
    const { log, clock } = this.#options;
    const csr = node.Certificate?.CSR ?? "";
    try {
      const authority = await this.#authorityOf(cluster);
      const chain = await authority.issue({
        csr,
        nodeId: node.ID,
        role: node.Role,
        clusterId: cluster.ID,
        expiryNanoseconds: cluster.Spec.CAConfig?.NodeCertExpiry,
        now: clock.now(),
      });
      log.info("certificate issued", { "node.id": node.ID, "node.role": node.Role });
      return { State: "issued", Role: node.Role, CSR: csr, Certificate: chain };
    } catch (error) {
      // Only what is the request's fault is final; with anything else the loop tries again.
      if (!isShoalError(error, "InvalidArgument")) throw error;
      log.warn("certificate refused", { "node.id": node.ID, error: messageOf(error) });
      return { State: "failed", Role: node.Role, CSR: csr, Certificate: "", Err: messageOf(error) };
    }
  }

  async #authorityOf(cluster: Cluster): Promise<RootAuthority> {
    const root = issuingRoot(cluster.RootCA);
    const { certificate, crossSigned } = root;
    if (this.#authority?.root !== certificate || this.#authority.crossSigned !== crossSigned) {
      this.#authority = { root: certificate, crossSigned, opened: RootAuthority.open(root) };
    }
    try {
      return await this.#authority.opened;
    } catch (cause) {
      this.#authority = undefined;
      throw new ShoalError("Internal", "the cluster's root certificate or its key can't be read", { cause });
    }
  }
}
