/**
 * What managers tell a node of the networks that it takes part in: who is on them, and what their names and ports lead
 * to. The node makes its kernel and its DNS equal to this and to nothing else.
 *
 * A `complete` message is the whole truth: whatever is not in it must go. The changes of a message are in the order in
 * which they must take effect: whoever is led to is reachable first, and is reachable until nobody is led to it.
 */

/** A network itself. */
export interface NetworkState {
  readonly id: string;
  readonly name: string;
  readonly vxlanId: number;
  /** The cluster's UDP port for VXLAN packets; absent: VXLAN's own, 4789. */
  readonly dataPathPort?: number;
  /** CIDR, IPv4. */
  readonly subnet: string;
  /** Address without prefix: every node's own end of an ordinary network; on the ingress network nobody's. */
  readonly gateway: string;
  /** Of the tasks' interfaces; undefined leaves it to the node (its link's less what a VXLAN adds). */
  readonly mtu?: number;
  /** No way out of it. */
  readonly internal: boolean;
  readonly ingress: boolean;
  /** Its packets go between nodes through WireGuard. */
  readonly encrypted: boolean;
}

/** A node that takes part in a network, the receiver itself among them. */
export interface NetworkNode {
  readonly nodeId: string;
  /** Where its VXLAN packets go: the node's data path address. */
  readonly address: string;
  /** Its own address on the network (without prefix): on the ingress network only. */
  readonly ownAddress?: string;
  /** Its WireGuard public key (base64); absent where it can't encrypt. */
  readonly publicKey?: string;
}

/** One address of one task on one network. Present as long as the task may use it. */
export interface NetworkEndpoint {
  readonly taskId: string;
  /** "" for a container that a user attached. */
  readonly serviceId: string;
  readonly nodeId: string;
  /** Without prefix. */
  readonly address: string;
  /** Names of this task alone: its container's name, a user's container's aliases. */
  readonly names: readonly string[];
  /** It runs (and is healthy), and is not about to be stopped: names and virtual addresses lead to it. */
  readonly active: boolean;
}

export interface NetworkPort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly published: number;
  readonly target: number;
}

/** A service on a network. */
export interface NetworkService {
  readonly serviceId: string;
  readonly name: string;
  /** Further names that mean the same as its name. */
  readonly aliases: readonly string[];
  /** Without prefix; absent: names lead to the tasks' own addresses (dnsrr). */
  readonly virtualAddress?: string;
  /** Published through the mesh: on the ingress network only. */
  readonly ports: readonly NetworkPort[];
}

/** What nodes need besides to encrypt: one key that all of them share, made and replaced by the managers. */
export interface NetworkKey {
  /** Base64 of 32 bytes, as WireGuard's preshared key. */
  readonly key: string;
  /** Grows with each key. */
  readonly revision: number;
}

export type NetworkChange =
  | { readonly kind: "network"; readonly network: NetworkState }
  | { readonly kind: "remove-network"; readonly networkId: string }
  | { readonly kind: "node"; readonly networkId: string; readonly node: NetworkNode }
  | { readonly kind: "remove-node"; readonly networkId: string; readonly nodeId: string }
  | { readonly kind: "endpoint"; readonly networkId: string; readonly endpoint: NetworkEndpoint }
  | { readonly kind: "remove-endpoint"; readonly networkId: string; readonly taskId: string }
  | { readonly kind: "service"; readonly networkId: string; readonly service: NetworkService }
  | { readonly kind: "remove-service"; readonly networkId: string; readonly serviceId: string }
  | { readonly kind: "key"; readonly key: NetworkKey };

/** A change of one network's contents or settings. */
export type ContentChange = Exclude<NetworkChange, { kind: "remove-network" | "key" }>;

export interface NetworksMessage {
  readonly type: "complete" | "incremental";
  /** The store's revision that this leads to; grows. The node says it back when its kernel is there. */
  readonly revision: number;
  readonly changes: readonly NetworkChange[];
}

/** What a node says of its data plane; a node that never has (a stock one) takes part in no network of ours. */
export interface DataPath {
  /** Where its VXLAN packets are to be sent: its data path address, else the one it advertises. */
  readonly address: string;
  /** Its WireGuard public key (base64); absent where it can't encrypt, `encryptionProblem` then says why. */
  readonly publicKey?: string;
  readonly encryptionProblem?: string;
}
