/** The manager's replica of the store in the data directory: LMDB while it is alone, an etcd member otherwise. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { storeCertificates } from "../ca/store-ca.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { ValueCipher } from "../store/encryption.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import type { EtcdReplicaOptions } from "../store/etcd/options.ts";
import { LmdbBackend } from "../store/lmdb.ts";
import { SingleReplica } from "../store/replica.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { type NodeState, swarmDirectory } from "./state-file.ts";

export interface OpenReplicaOptions {
  readonly dataDirectory: string;
  /** Of this manager's node. */
  readonly nodeId: string;
  /** The cluster's, 32 bytes. */
  readonly dataKey: Uint8Array;
  readonly random: Random;
}

/** Where replicas reach each other: beside the managers' own port, on the address that the node advertises. */
const peerPort = 2380;

export function dataKeyPath(dataDirectory: string): string {
  return join(swarmDirectory(dataDirectory), "data-key.json");
}

export function storeDirectory(dataDirectory: string): string {
  return join(dataDirectory, "store");
}

/** Short: a unix socket is in it. */
export function etcdDirectory(dataDirectory: string): string {
  return join(dataDirectory, "etcd");
}

export function peerAddressOf({ advertiseAddress }: Pick<NodeState, "advertiseAddress">): string {
  return formatAddress({ host: parseAddress(advertiseAddress).host, port: peerPort });
}

/** The replica of a manager that is alone. */
export function openSingle({ dataDirectory, nodeId, dataKey, random }: OpenReplicaOptions): SingleReplica {
  const cipher = new ValueCipher(dataKey, random);
  return new SingleReplica(new LmdbBackend({ directory: storeDirectory(dataDirectory), cipher }), nodeId);
}

/**
 * What a replica on etcd is given.
 * @param onRemoved told when the other managers have taken this one out
 * @param signal ends a start that is under way
 */
export function etcdOptions(
  options: OpenReplicaOptions & { readonly clock: Clock; readonly log: Logger },
  state: NodeState,
  onRemoved: () => void,
  signal?: AbortSignal,
): EtcdReplicaOptions {
  const { dataDirectory, dataKey, clock, random, log } = options;
  return {
    directory: etcdDirectory(dataDirectory),
    nodeId: state.nodeId,
    peerAddress: peerAddressOf(state),
    dataKey,
    certificates: storeCertificates(() => clock.now()),
    clock,
    random,
    log,
    onRemoved,
    ...(signal && { signal }),
  };
}

/** Removes whatever there is of the store. Nothing may have it open. */
export async function removeStore(options: {
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<void> {
  await removeSingle(options);
  await removeEtcd(options);
}

export async function removeSingle({ dataDirectory }: { readonly dataDirectory: string }): Promise<void> {
  await rm(storeDirectory(dataDirectory), { recursive: true, force: true });
}

export async function removeEtcd(options: {
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<void> {
  const { dataDirectory, clock, log } = options;
  await EtcdReplica.destroy({ directory: etcdDirectory(dataDirectory), clock, log });
}
