/** What the data plane is put together from, besides its own: as it calls them, so that tests can hand in others. */
import type { NetworkKey, NetworkNode } from "../model/network-state.ts";
import type { HostPort } from "./ingress-table.ts";
import type { NetworkTable, TableChanges } from "./table.ts";

/** Where virtual addresses lead, in one network's namespace. */
export interface NetworkBalance {
  /** @param changes undefined: everything (after a start or a failure) */
  apply(table: NetworkTable, changes: TableChanges | undefined): Promise<void>;
  audit(table: NetworkTable): Promise<string[]>;
}

/** The same on the ingress network, where ports of the node lead into it. */
export interface IngressBalance extends NetworkBalance {
  /** All of them. */
  setHostPorts(ports: readonly HostPort[]): Promise<void>;
  remove(): Promise<void>;
}

export interface NetworkNames {
  update(table: NetworkTable, changes: TableChanges | undefined): void;
  serve(networkId: string, namespacePath: string, address: string): Promise<void>;
  stop(networkId: string): void;
  close(): void;
}

/** The node's public key, or why it can't encrypt. */
export type EncryptionSupport = { readonly publicKey: string } | { readonly problem: string };

export interface EncryptionState {
  /** The node's own data path address. */
  readonly address: string;
  /** The other nodes of all encrypted networks; one without a public key can't be reached. */
  readonly peers: readonly NetworkNode[];
  readonly key: NetworkKey | undefined;
}

/** What encrypted networks' packets go through. */
export interface NetworkEncryption {
  /** Name (below /run/netns) of the namespace in which an encrypted network's VXLAN is to be made. */
  readonly namespace: string;
  describe(): Promise<EncryptionSupport>;
  apply(state: EncryptionState): Promise<void>;
  remove(): Promise<void>;
  audit(): Promise<string[]>;
}

export interface NetworkParts {
  /** @param namespace name under /run/netns, here and below */
  balance(namespace: string): NetworkBalance;
  ingress(namespace: string): IngressBalance;
  /** Takes away what a daemon before this one has made of the ingress network on the node's side. */
  removeIngress(): Promise<void>;
  /** Ends the flows that were led to addresses which are nobody's any more. */
  forgetFlows(namespace: string, addresses: readonly string[]): Promise<void>;
  /** Resolves when no flow leads to them, or the limit has passed. */
  drained(namespace: string, addresses: readonly string[], limitMs: number): Promise<void>;
  readonly names: NetworkNames;
  readonly encryption: NetworkEncryption;
}
