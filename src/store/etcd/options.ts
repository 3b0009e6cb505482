/** What a replica on etcd is given. */
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";

/** A certificate and its key, both PEM. */
export interface KeyedCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** Issues the certificates with which replicas know each other (`ca/store-ca.ts`). */
export interface PeerCertificates {
  newAuthority(): Promise<KeyedCertificate>;
  /** A certificate for `nodeId`, reached at `host` (an address or a name), with a new key. */
  issue(authority: KeyedCertificate, nodeId: string, host: string): Promise<KeyedCertificate>;
}

export interface EtcdReplicaOptions {
  /**
   * Absolute path; everything of the replica is below, readable by its owner alone. At most 90 bytes long: a unix
   * socket is in it.
   */
  readonly directory: string;
  readonly nodeId: string;
  /** host:port at which other managers reach this replica; an IPv6 host in brackets. */
  readonly peerAddress: string;
  /** ip:port to listen at for other managers; default: `peerAddress`. */
  readonly listenAddress?: string;
  /** The cluster's data key, 32 bytes. */
  readonly dataKey: Uint8Array;
  readonly certificates: PeerCertificates;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Ends a start that is under way. */
  readonly signal?: AbortSignal;
  /** Told once if this member has been removed from the cluster by others: its data is of no more use. */
  readonly onRemoved?: () => void;
}
