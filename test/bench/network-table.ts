/**
 * How fast a node's kernel follows the managers: a program of its own, started in namespaces of its own. A network of
 * 1,000 services of ten tasks each, a third of them on this node; the whole table at once into a network that is there,
 * then one task after the other that takes no more requests. Prints {"fullMs": number, "changeMs": [number]}.
 */
import { dockerEngine } from "../../src/engine/client.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { NetworkChange, NetworkEndpoint, NetworksMessage } from "../../src/model/network-state.ts";
import { systemDataPlane } from "../../src/network/system-plane.ts";

export interface TableTimes {
  readonly fullMs: number;
  readonly changeMs: readonly number[];
}

const services = 1_000;
const tasksPerService = 10;
const changes = 20;
const nodes = ["self", "second", "third"];
const networkId = "benchnetwork0000000000000";

if (import.meta.main) await run();

async function run(): Promise<void> {
  const [address = "", directory = ""] = process.argv.slice(2);
  const plane = systemDataPlane({
    nodeId: nodes[0]!,
    address,
    engine: dockerEngine(`${directory}/no-engine.sock`), // none is asked for a network without containers
    pluginSocket: `${directory}/plugin.sock`,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });
  await plane.start();
  let revision = 0;
  const apply = async (type: NetworksMessage["type"], list: readonly NetworkChange[]): Promise<number> => {
    const startedAt = performance.now();
    await plane.apply({ type, revision: ++revision, changes: list });
    return performance.now() - startedAt;
  };
  await apply("complete", network(address));
  const { endpoints, table } = fullTable();
  const fullMs = await apply("incremental", table);
  const changeMs: number[] = [];
  for (const endpoint of endpoints.slice(0, changes)) {
    changeMs.push(
      await apply("incremental", [{ kind: "endpoint", networkId, endpoint: { ...endpoint, active: false } }]),
    );
  }
  await plane.stop();
  process.stdout.write(`${JSON.stringify({ fullMs, changeMs } satisfies TableTimes)}\n`);
  process.exit(0);
}

function network(address: string): NetworkChange[] {
  const prefix = address.split(".").slice(0, 3).join(".");
  const described = { id: networkId, name: "bench", vxlanId: 5000, subnet: "10.44.0.0/16", gateway: "10.44.0.1" };
  return [
    { kind: "network", network: { ...described, internal: false, ingress: false, encrypted: false } },
    ...nodes.map((nodeId, index): NetworkChange => {
      return { kind: "node", networkId, node: { nodeId, address: `${prefix}.${index + 1}` } };
    }),
  ];
}

function fullTable() {
  let last = 255;
  const nextAddress = () => `10.44.${++last >> 8}.${last & 255}`;
  const endpoints: NetworkEndpoint[] = [];
  const made: NetworkChange[] = [];
  for (let service = 0; service < services; service++) {
    const serviceId = `service${service}`;
    const virtualAddress = nextAddress();
    made.push({
      kind: "service",
      networkId,
      service: { serviceId, name: serviceId, aliases: [], virtualAddress, ports: [] },
    });
    for (let task = 0; task < tasksPerService; task++) {
      const taskId = `${serviceId}.${task}`;
      const nodeId = nodes[task % nodes.length]!;
      endpoints.push({ taskId, serviceId, nodeId, address: nextAddress(), names: [taskId], active: true });
    }
  }
  const table = [...endpoints.map((endpoint): NetworkChange => ({ kind: "endpoint", networkId, endpoint })), ...made];
  return { endpoints, table };
}
