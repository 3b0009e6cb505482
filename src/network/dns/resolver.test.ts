import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode, type RecordType } from "dns-packet";
import { systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { NetworkEndpoint, NetworkService } from "../../model/network-state.ts";
import { networkState } from "../network-fixture.ts";
import { NetworkTable } from "../table.ts";
import { nameservers } from "./resolv-conf.ts";
import { Resolver, type TaskDns } from "./resolver.ts";
import type { BoundSockets } from "./sockets.ts";

function endpoint(taskId: string, serviceId: string, address: string, active = true): NetworkEndpoint {
  return { taskId, serviceId, nodeId: "n1", address, names: [`${serviceId}.1.${taskId}`], active };
}

function service(serviceId: string, more: Partial<NetworkService> = {}): NetworkService {
  return { serviceId, name: serviceId, aliases: [], ports: [], ...more };
}

interface Asked {
  readonly query: Buffer;
  readonly servers: readonly string[];
}

function fixture(taskDns: Record<string, TaskDns> = {}) {
  const asked: Asked[] = [];
  const resolver = new Resolver({
    clock: systemClock,
    random: seededRandom(1),
    log: silentLogger,
    nodeServers: async () => ["192.0.2.53"],
    taskDns: (taskId) => taskDns[taskId],
    upstream: {
      ask: async (query, _protocol, servers) => {
        asked.push({ query, servers });
        return Buffer.from("outside");
      },
    },
  });
  const front = new NetworkTable(networkState("front"));
  const back = new NetworkTable(networkState("back", { subnet: "10.0.2.0/24", gateway: "10.0.2.1" }));
  front.apply({ kind: "service", networkId: "front", service: service("web", { virtualAddress: "10.0.1.5" }) });
  front.apply({ kind: "endpoint", networkId: "front", endpoint: endpoint("t1", "web", "10.0.1.11") });
  front.apply({ kind: "endpoint", networkId: "front", endpoint: endpoint("t2", "web", "10.0.1.12") });
  front.apply({ kind: "endpoint", networkId: "front", endpoint: endpoint("t3", "web", "10.0.1.13", false) });
  back.apply({ kind: "service", networkId: "back", service: service("store", { aliases: ["db", "Cache"] }) });
  back.apply({ kind: "endpoint", networkId: "back", endpoint: endpoint("s1", "store", "10.0.2.21") });
  back.apply({ kind: "endpoint", networkId: "back", endpoint: endpoint("t1", "web", "10.0.2.11") });
  for (const table of [front, back]) resolver.update(table, table.takeChanges());
  const ask = async (networkId: string, asker: string, name: string, type: RecordType = "A") => {
    const query = encode({ type: "query", id: 7, flags: 256, questions: [{ type, name }] });
    const answer = await resolver.answer(networkId, asker, query, "udp");
    if (!answer || answer.toString() === "outside") return answer?.toString();
    const packet = decode(answer);
    assert.equal(packet.id, 7);
    const data = (packet.answers ?? []).map((record) => ("data" in record ? String(record.data) : ""));
    return { code: (packet.flags ?? 0) & 15, data: data.sort() };
  };
  return { resolver, front, back, asked, ask };
}

test("a service's name is its virtual address, tasks.NAME its active tasks, an alias of dnsrr its tasks", async () => {
  const { ask } = fixture();
  assert.deepEqual(await ask("front", "10.0.1.12", "web"), { code: 0, data: ["10.0.1.5"] });
  assert.deepEqual(await ask("front", "10.0.1.12", "WEB."), { code: 0, data: ["10.0.1.5"] });
  assert.deepEqual(await ask("front", "10.0.1.12", "tasks.web"), { code: 0, data: ["10.0.1.11", "10.0.1.12"] });
  assert.deepEqual(await ask("front", "10.0.1.12", "web.front"), { code: 0, data: ["10.0.1.5"] });
  assert.deepEqual(await ask("back", "10.0.2.21", "cache"), { code: 0, data: ["10.0.2.21"] });
  assert.deepEqual(await ask("back", "10.0.2.21", "tasks.db"), { code: 0, data: ["10.0.2.21"] });
  assert.deepEqual(await ask("back", "10.0.2.21", "store.1.s1"), { code: 0, data: ["10.0.2.21"] });
  assert.deepEqual(await ask("front", "10.0.1.11", "web.1.t2"), { code: 0, data: ["10.0.1.12"] });
});

test("a known name has no other records, and is not asked outside", async () => {
  const { ask, asked } = fixture();
  for (const type of ["AAAA", "MX", "TXT"] as const)
    assert.deepEqual(await ask("front", "10.0.1.12", "web", type), { code: 0, data: [] });
  assert.deepEqual(asked, []);
});

test("a task knows the names of its networks, and of no other", async () => {
  const { ask, asked } = fixture();
  assert.deepEqual(await ask("front", "10.0.1.11", "db"), { code: 0, data: ["10.0.2.21"] }); // t1 is on both
  assert.equal(await ask("front", "10.0.1.12", "db"), "outside"); // t2 is not
  assert.equal(await ask("back", "10.0.2.21", "web"), "outside");
  assert.deepEqual(
    asked.map(({ servers }) => servers),
    [["192.0.2.53"], ["192.0.2.53"]],
  );
});

test("an address has a name", async () => {
  const { ask } = fixture();
  assert.deepEqual(await ask("front", "10.0.1.11", "11.1.0.10.in-addr.arpa", "PTR"), {
    code: 0,
    data: ["web.1.t1.front"],
  });
  assert.deepEqual(await ask("front", "10.0.1.11", "5.1.0.10.in-addr.arpa", "PTR"), { code: 0, data: ["web.front"] });
  assert.equal(await ask("front", "10.0.1.11", "9.9.9.9.in-addr.arpa", "PTR"), "outside");
});

test("a task's own servers and search domains count for that task", async () => {
  const { ask, asked } = fixture({ t1: { nameservers: ["203.0.113.1"], search: ["corp.example"] } });
  assert.deepEqual(await ask("front", "10.0.1.11", "web.corp.example"), { code: 0, data: ["10.0.1.5"] });
  assert.equal(await ask("front", "10.0.1.12", "web.corp.example"), "outside");
  assert.equal(await ask("front", "10.0.1.11", "example.org"), "outside");
  assert.deepEqual(asked.at(-1)?.servers, ["203.0.113.1"]);
});

test("an empty alias is no name: it does not answer for all that nobody has", async () => {
  const { ask, front, resolver } = fixture();
  front.apply({ kind: "service", networkId: "front", service: service("odd", { aliases: ["", "even"] }) });
  front.apply({ kind: "endpoint", networkId: "front", endpoint: endpoint("t9", "odd", "10.0.1.19") });
  resolver.update(front, front.takeChanges());
  assert.deepEqual(await ask("front", "10.0.1.11", "even"), { code: 0, data: ["10.0.1.19"] });
  assert.equal(await ask("front", "10.0.1.11", "nobody"), "outside");
  assert.equal(await ask("front", "10.0.1.11", "nobody.example"), "outside");
});

test("a change is seen at once, also its taking back", async () => {
  const { ask, front, resolver } = fixture();
  const t2 = endpoint("t2", "web", "10.0.1.12", false);
  front.apply({ kind: "endpoint", networkId: "front", endpoint: t2 });
  assert.deepEqual(await ask("front", "10.0.1.11", "tasks.web"), { code: 0, data: ["10.0.1.11", "10.0.1.12"] });
  resolver.update(front, front.takeChanges()); // not before the data plane says so
  assert.deepEqual(await ask("front", "10.0.1.11", "tasks.web"), { code: 0, data: ["10.0.1.11"] });
  front.apply({ kind: "remove-service", networkId: "front", serviceId: "web" });
  front.apply({ kind: "remove-endpoint", networkId: "front", taskId: "t2" });
  resolver.update(front, front.takeChanges());
  assert.equal(await ask("front", "10.0.1.11", "web"), "outside");
  assert.equal(await ask("front", "10.0.1.11", "web.1.t2"), "outside");
});

test("an internal network's tasks ask nobody outside", async () => {
  const { ask, asked, resolver } = fixture();
  const closed = new NetworkTable(networkState("closed", { internal: true }));
  closed.apply({ kind: "endpoint", networkId: "closed", endpoint: endpoint("c1", "c", "10.0.1.9") });
  resolver.update(closed, closed.takeChanges());
  assert.deepEqual(await ask("closed", "10.0.1.9", "example.org"), { code: 3, data: [] });
  assert.deepEqual(asked, []);
});

test("on the ingress network no service has a name", async () => {
  const { ask, resolver } = fixture();
  const ingress = new NetworkTable(networkState("ingress", { ingress: true }));
  ingress.apply({ kind: "service", networkId: "ingress", service: service("pub", { virtualAddress: "10.0.0.9" }) });
  ingress.apply({ kind: "endpoint", networkId: "ingress", endpoint: endpoint("p1", "pub", "10.0.0.10") });
  resolver.update(ingress, ingress.takeChanges());
  assert.equal(await ask("ingress", "10.0.0.10", "pub"), "outside");
});

test("an answer that is too large for a packet says so, and comes whole over TCP", async () => {
  const { front, resolver } = fixture();
  for (let index = 0; index < 100; index++) {
    const one = endpoint(`many${index}`, "web", `10.0.3.${index}`);
    front.apply({ kind: "endpoint", networkId: "front", endpoint: one });
  }
  resolver.update(front, undefined);
  const query = encode({ type: "query", id: 1, questions: [{ type: "A", name: "tasks.web" }] });
  const short = decode((await resolver.answer("front", "10.0.1.11", query, "udp"))!);
  assert.deepEqual([short.flag_tc, short.answers?.length], [true, 0]);
  const whole = decode((await resolver.answer("front", "10.0.1.11", query, "tcp"))!);
  assert.equal(whole.answers?.length, 102);
});

test("what is no question gets no answer", async () => {
  const { resolver } = fixture();
  assert.equal(await resolver.answer("front", "10.0.1.11", Buffer.from("nonsense"), "udp"), undefined);
  const response = encode({ type: "response", id: 1, questions: [{ type: "A", name: "web" }] });
  assert.equal(await resolver.answer("front", "10.0.1.11", response, "udp"), undefined);
});

test("what resolv.conf says", () => {
  const text =
    "# nameserver 1.1.1.1\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nsearch a.example\nnameserver nonsense\n";
  assert.deepEqual(nameservers(text), ["192.0.2.1", "fe80::1%eth0"]);
});

test("a resolver that is closed keeps no socket, also one that was being bound or comes later", async () => {
  const gate = Promise.withResolvers<void>();
  const open = new Set<string>();
  const socket = (what: string) => {
    open.add(what);
    return { on: () => undefined, close: () => open.delete(what) };
  };
  const resolver = new Resolver({
    clock: systemClock,
    random: seededRandom(1),
    log: silentLogger,
    nodeServers: async () => [],
    taskDns: () => undefined,
    bind: async (namespace, address) => {
      if (namespace === "slow") await gate.promise;
      return { udp: socket(`udp ${address}`), tcp: socket(`tcp ${address}`) } as unknown as BoundSockets;
    },
  });
  await resolver.serve("front", "quick", "10.0.1.1");
  assert.equal(open.size, 2);
  const serving = resolver.serve("back", "slow", "10.0.2.1");
  resolver.close();
  const table = new NetworkTable(networkState("back"));
  resolver.update(table, table.takeChanges());
  gate.resolve();
  await serving;
  await resolver.serve("back", "quick", "10.0.2.1");
  assert.deepEqual([...open], []);
});
