import assert from "node:assert/strict";
import { test } from "node:test";
import type { NetworkEndpoint, NetworkService } from "../model/network-state.ts";
import { Balancer, balanceOf } from "./balance.ts";
import type { Commands } from "./commands.ts";
import { networkState } from "./network-fixture.ts";
import { NetworkTable } from "./table.ts";

const networkId = "n1";
const network = networkState(networkId);

function setService(table: NetworkTable, serviceId: string, more: Partial<NetworkService> = {}): void {
  table.apply({ kind: "service", networkId, service: { serviceId, name: serviceId, aliases: [], ports: [], ...more } });
}

function setTask(table: NetworkTable, taskId: string, serviceId: string, more: Partial<NetworkEndpoint> = {}): void {
  const address = `10.0.1.${taskId.slice(1)}`;
  const endpoint = { taskId, serviceId, nodeId: "other", address, names: [], active: true, ...more };
  table.apply({ kind: "endpoint", networkId, endpoint });
}

function tableOf(): NetworkTable {
  const table = new NetworkTable(network);
  setService(table, "a", { virtualAddress: "10.0.1.5" });
  setService(table, "b", { virtualAddress: "10.0.1.6" });
  setService(table, "names");
  setTask(table, "t11", "a", { nodeId: "self" });
  setTask(table, "t12", "a");
  setTask(table, "t13", "a", { active: false });
  setTask(table, "t14", "names");
  table.takeChanges();
  return table;
}

/** Notes what is run in the network's namespace; the bridge has the addresses that were set. */
function fixture(failing: (input: string) => boolean = () => false) {
  const ran: string[] = [];
  const commands: Commands = {
    async run(program, [namespace, ...args], input = "") {
      assert.deepEqual([program, namespace], ["nsenter", "--net=/run/netns/shoal-n1"]);
      if (args[0] === "ip" && args.includes("show"))
        return JSON.stringify([
          {
            addr_info: [
              { local: "10.0.1.1", prefixlen: 24 },
              { local: "10.0.1.99", prefixlen: 32 },
            ],
          },
        ]);
      if (args[0] === "sh") return "";
      if (failing(input)) throw new Error("no such element");
      ran.push(input);
      return "";
    },
  };
  return { ran, balancer: new Balancer({ commands, namespace: "shoal-n1", selfNodeId: "self" }) };
}

test("a virtual address leads to the active tasks in turn; without any it refuses; names alone have none", () => {
  const text = balanceOf(tableOf(), "self").table.render();
  assert.match(text, /elements = \{ 10\.0\.1\.5 : goto s_a, 10\.0\.1\.6 : goto s_b \}/);
  assert.match(text, /chain s_a \{\ndnat to numgen inc mod 2 map \{ 0 : 10\.0\.1\.11, 1 : 10\.0\.1\.12 \}\n\}/);
  assert.match(text, /chain s_b \{\nmeta l4proto tcp reject with tcp reset\nreject\n\}/);
  assert.doesNotMatch(text, /s_names|10\.0\.1\.1[34]/);
});

test("this node's own tasks may reach themselves, and see the gateway then", () => {
  const text = balanceOf(tableOf(), "self").table.render();
  assert.match(text, /elements = \{ 10\.0\.1\.11 \. 10\.0\.1\.11 \}/);
  assert.match(text, /ct status dnat ip saddr \. ip daddr @itself snat to 10\.0\.1\.1\n/);
});

test("the first time, everything is replaced, and addresses that are nobody's go", async () => {
  const { ran, balancer } = fixture();
  await balancer.apply(tableOf(), undefined);
  assert.equal(ran.length, 3);
  assert.equal(ran[0], "address replace 10.0.1.5/32 dev br0\naddress replace 10.0.1.6/32 dev br0\n");
  assert.match(ran[1]!, /^add table ip shoal\ndelete table ip shoal\ntable ip shoal \{/);
  assert.equal(ran[2], "address del 10.0.1.99/32 dev br0\n");
});

test("one task more is one chain, and one command", async () => {
  const { ran, balancer } = fixture();
  const table = tableOf();
  await balancer.apply(table, undefined);
  ran.length = 0;
  setTask(table, "t13", "a");
  await balancer.apply(table, table.takeChanges());
  assert.deepEqual(ran, [
    "flush chain ip shoal s_a\nadd rule ip shoal s_a dnat to numgen inc mod 3 map { 0 : 10.0.1.11, 1 : 10.0.1.12, 2 : 10.0.1.13 }\n",
  ]);
  ran.length = 0;
  setTask(table, "t14", "names", { active: false });
  await balancer.apply(table, table.takeChanges());
  assert.deepEqual(ran, [], "nobody is led there by the kernel");
});

test("an address that goes from one service to another stays, and leads to the other one", async () => {
  for (const order of [
    ["a", "b"],
    ["b", "a"],
  ] as const) {
    const { ran, balancer } = fixture();
    const table = tableOf();
    await balancer.apply(table, undefined);
    ran.length = 0;
    for (const serviceId of order)
      setService(table, serviceId, serviceId === "b" ? { virtualAddress: "10.0.1.5" } : {});
    await balancer.apply(table, table.takeChanges());
    assert.equal(ran.length, 2);
    assert.match(ran[0]!, /add element ip shoal services \{ 10\.0\.1\.5 : goto s_b \}\n/);
    assert.match(ran[0]!, /delete chain ip shoal s_a\n$/);
    assert.equal(ran[1], "address del 10.0.1.6/32 dev br0\n");
  }
});

test("a change that the kernel refuses is followed by the whole", async () => {
  const { ran, balancer } = fixture((input) => input.startsWith("flush chain"));
  const table = tableOf();
  await balancer.apply(table, undefined);
  ran.length = 0;
  setTask(table, "t13", "a");
  await balancer.apply(table, table.takeChanges());
  assert.match(ran[1]!, /^add table ip shoal\ndelete table ip shoal\n[\s\S]*2 : 10\.0\.1\.13/);
});
