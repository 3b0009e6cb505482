/** A manager's process for `etcd.test.ts` to kill: founds a replica in the directory that it is given, and stays. */
import { storeCertificates } from "../../src/ca/store-ca.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { EtcdReplica } from "../../src/store/etcd/etcd-replica.ts";

const [directory, peerAddress] = process.argv.slice(2);
const replica = await EtcdReplica.found({
  directory: directory!,
  nodeId: "victim",
  peerAddress: peerAddress!,
  dataKey: systemRandom.bytes(32),
  certificates: storeCertificates(() => systemClock.now()),
  clock: systemClock,
  random: systemRandom,
  log: silentLogger,
});
console.log(replica.pid);
