/**
 * The certificate service that every manager offers, on the store alone: a request becomes a Node whose certificate is
 * `pending` (or `renew`), and whoever leads signs it (`signer.ts`). Nobody becomes a node but with a valid join token,
 * and the token alone decides the role; a node that has a certificate renews only its own.
 */
import { publicKeyOfRequest } from "../../ca/request.ts";
import { sameToken } from "../../ca/tokens.ts";
import { ShoalError } from "../../lib/errors.ts";
import { newId } from "../../lib/ids.ts";
import type { Random } from "../../lib/random.ts";
import type { Cluster, IssuanceState, Node, NodeRole } from "../../model/types.ts";
import type { Caller, CertificateAuthorityService, CertificateStatus, IssueRequest } from "../../rpc/services.ts";
import type { Store } from "../../store/store.ts";

export class CertificateService implements CertificateAuthorityService {
  readonly #store: Store;
  readonly #random: Random;
  readonly #admitsManagers: () => Promise<void>;

  /** @param options.admitsManagers throws FailedPrecondition where a manager can't be let in now */
  constructor(options: {
    readonly store: Store;
    readonly random: Random;
    readonly admitsManagers?: (() => Promise<void>) | undefined;
  }) {
    this.#admitsManagers = options.admitsManagers ?? (async () => {});
    this.#store = options.store;
    this.#random = options.random;
  }

  async rootCertificate(): Promise<string> {
    return this.#cluster().RootCA.Certificate;
  }

  /** Throws InvalidArgument for a wrong token or a bad request, NotFound when the caller's node is gone. */
  async issue(request: IssueRequest, caller: Caller | undefined): Promise<{ readonly nodeId: string }> {
    const role = caller ? undefined : this.#roleOfToken(request.token);
    // Before there is a node of it: a refused manager leaves nothing behind.
    if (role === "manager") await this.#admitsManagers();
    // Checked here, not only when it is signed, so that a bad request leaves no node behind.
    await publicKeyOfRequest(request.csr);
    const node = await (role ? this.#join(request, role) : this.#renew(request, caller!));
    return { nodeId: node.ID };
  }

  /** Throws NotFound for a node that isn't there (any more). Rejects with the signal's reason when it aborts. */
  async status(nodeId: string, signal: AbortSignal): Promise<CertificateStatus> {
    const now = statusOf(this.#store.view.get("nodes", nodeId), nodeId);
    return now ?? (await this.#nextFinalStatus(nodeId, signal));
  }

  /** Throws PermissionDenied unless the caller is a node of this cluster that has not been removed. Swarm's texts. */
  authorize(caller: Caller): void {
    const cluster = this.#cluster();
    if (caller.clusterId !== cluster.ID) {
      throw denied(`remote certificate not part of organization: ${cluster.ID}`);
    }
    const removed = Object.hasOwn(cluster.RemovedNodes, caller.nodeId);
    if (removed || !this.#store.view.get("nodes", caller.nodeId)) {
      throw denied(`node ${caller.nodeId} was removed from swarm`);
    }
  }

  #cluster(): Cluster {
    const cluster = this.#store.view.cluster();
    if (!cluster) throw new ShoalError("Unavailable", "the swarm is not ready yet");
    return cluster;
  }

  #roleOfToken(token: string): NodeRole {
    const { Worker, Manager } = this.#cluster().RootCA.JoinTokens;
    if (sameToken(token, Manager)) return "manager";
    if (sameToken(token, Worker)) return "worker";
    throw new ShoalError("InvalidArgument", "A valid join token is necessary to join this cluster");
  }

  #join(request: IssueRequest, role: NodeRole): Promise<Node> {
    const id = newId(this.#random);
    return this.#store.update((tx) =>
      tx.create("nodes", {
        ID: id,
        Spec: { Labels: {}, Role: role, Availability: request.availability },
        Status: { State: "unknown" },
        Role: role,
        Certificate: { State: "pending", Role: role, CSR: request.csr, Certificate: "" },
      }),
    );
  }

  #renew(request: IssueRequest, caller: Caller): Promise<Node> {
    return this.#store.update((tx) => {
      const node = tx.get("nodes", caller.nodeId);
      if (!node) {
        throw new ShoalError("NotFound", `node ${caller.nodeId} not found when attempting to renew certificate`);
      }
      const Certificate = { State: "renew" as const, Role: node.Role, CSR: request.csr, Certificate: "" };
      return tx.put("nodes", { ...node, Certificate });
    });
  }

  #nextFinalStatus(nodeId: string, signal: AbortSignal): Promise<CertificateStatus> {
    return new Promise((resolve, reject) => {
      const end = () => {
        unwatch();
        signal.removeEventListener("abort", onAbort);
      };
      const onAbort = () => {
        end();
        reject(signal.reason);
      };
      const unwatch = this.#store.watch(({ changes }) => {
        const change = changes.find((candidate) => candidate.table === "nodes" && candidate.id === nodeId);
        if (change?.table !== "nodes") return;
        try {
          const status = statusOf(change.after, nodeId);
          if (!status) return;
          end();
          resolve(status);
        } catch (error) {
          end();
          reject(error);
        }
      });
      signal.addEventListener("abort", onAbort);
      if (signal.aborted) onAbort();
    });
  }
}

/** States that the signer still has to act on. */
export function awaitsSigning(state: IssuanceState | undefined): boolean {
  return state === "pending" || state === "renew";
}

/** The answer about a node, undefined while there is none. */
function statusOf(node: Node | undefined, nodeId: string): CertificateStatus | undefined {
  if (!node?.Certificate) throw new ShoalError("NotFound", `no certificate of node ${nodeId}`);
  const { State, Role, CSR, Certificate, Err } = node.Certificate;
  if (awaitsSigning(State) || State === "unknown") return undefined;
  return { state: State, role: Role, csr: CSR, certificate: Certificate, error: Err };
}

function denied(reason: string): ShoalError {
  return new ShoalError("PermissionDenied", `Permission denied: ${reason}`);
}
