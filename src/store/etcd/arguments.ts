/** The whole configuration of an etcd member: it stands on its command line. */
import { requestBytes } from "./client.ts";
import { dataDirectory, socketName, tlsPaths } from "./directory.ts";

/** How the member finds its cluster at its very first start; etcd ignores it afterwards. */
export interface Bootstrap {
  readonly state: "new" | "existing";
  /** All members, itself among them: name to peer URL. */
  readonly members: readonly { readonly name: string; readonly url: string }[];
}

export interface MemberConfiguration {
  /** Absolute; the member's own: data, certificates, socket and pid file are in it. */
  readonly directory: string;
  readonly name: string;
  readonly peerUrl: string;
  readonly listenPeerUrl: string;
  readonly bootstrap: Bootstrap;
  /** Makes the member's data a cluster of this member alone. */
  readonly forceNewCluster: boolean;
}

export function etcdArguments(configuration: MemberConfiguration): string[] {
  const { directory, name, peerUrl, listenPeerUrl, bootstrap, forceNewCluster } = configuration;
  const tls = tlsPaths(directory);
  const flags: Record<string, string> = {
    name,
    "data-dir": dataDirectory(directory),
    "listen-client-urls": `unix://${socketName}`,
    "advertise-client-urls": `unix://${socketName}`,
    "listen-peer-urls": listenPeerUrl,
    "initial-advertise-peer-urls": peerUrl,
    "initial-cluster-token": "shoal",
    "initial-cluster-state": bootstrap.state,
    "initial-cluster": bootstrap.members.map((member) => `${member.name}=${member.url}`).join(","),
    "peer-cert-file": tls.certificate,
    "peer-key-file": "/proc/self/fd/3", // see `tls-files.ts`
    "peer-trusted-ca-file": tls.trustedCA,
    "peer-client-cert-auth": "true",
    // A manager may speak from another address than the one that it is reached at; its certificate is enough.
    "experimental-peer-skip-client-san-verification": "true",
    "heartbeat-interval": "100",
    "election-timeout": "1000",
    // A member that comes back from a partition must not unseat a leader that has a quorum.
    "pre-vote": "true",
    // Our own checks (membership.ts) know better: etcd's would refuse a third manager within 5 s of the second.
    "strict-reconfig-check": "false",
    "max-txn-ops": "100000",
    "max-request-bytes": String(requestBytes),
    "quota-backend-bytes": String(8 * 1024 ** 3),
    // Entries that stay in memory; etcd keeps 5,000 more for members that lag.
    "snapshot-count": "5000",
    "max-snapshots": "2",
    "max-wals": "2",
    "enable-grpc-gateway": "false",
    "experimental-backend-bbolt-freelist-type": "map",
    logger: "zap",
    "log-outputs": "stderr",
    "log-level": "warn",
  };
  if (forceNewCluster) flags["force-new-cluster"] = "true";
  return Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
}
