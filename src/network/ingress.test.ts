import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../lib/log.ts";
import type { NetworkPort } from "../model/network-state.ts";
import { FakeCommands } from "./fake-commands.ts";
import { IngressMesh, NodeSide } from "./ingress.ts";
import { compareFirewall } from "./ingress-host.ts";
import { IngressTables } from "./ingress-table.ts";
import { networkState } from "./network-fixture.ts";
import { NetworkTable } from "./table.ts";

const networkId = "i1";
const network = networkState(networkId, {
  name: "ingress",
  vxlanId: 4096,
  subnet: "10.0.0.0/24",
  gateway: "10.0.0.1",
  ingress: true,
});
const tcp: NetworkPort = { protocol: "tcp", published: 8080, target: 80 };
const udp: NetworkPort = { protocol: "udp", published: 8080, target: 53 };

function tableOf(subnet = network.subnet): NetworkTable {
  const table = new NetworkTable({ ...network, subnet });
  setNode(table, "self", "10.0.0.2");
  setNode(table, "other", "10.0.0.3");
  setPorts(table, "a", [tcp, udp]);
  for (const [index, nodeId] of ["self", "other"].entries()) {
    const endpoint = {
      taskId: `t${index}`,
      serviceId: "a",
      nodeId,
      address: `10.0.0.1${index}`,
      names: [],
      active: true,
    };
    table.apply({ kind: "endpoint", networkId, endpoint });
  }
  return table;
}

function setNode(table: NetworkTable, nodeId: string, ownAddress: string): void {
  table.apply({ kind: "node", networkId, node: { nodeId, address: "10.77.0.9", ownAddress } });
}

function setPorts(table: NetworkTable, serviceId: string, ports: readonly NetworkPort[]): void {
  table.apply({ kind: "service", networkId, service: { serviceId, name: serviceId, aliases: [], ports } });
}

/** The tables, with nothing left to be told. */
function told(table: NetworkTable): IngressTables {
  const tables = new IngressTables(table, [], "self");
  table.takeChanges();
  tables.mesh.takeChanges();
  tables.host.takeChanges();
  return tables;
}

test("a published port leads to the target port of the tasks, and is the mesh's on the node", () => {
  const tables = new IngressTables(tableOf(), [], "self");
  const text = tables.mesh.render();
  assert.match(text, /elements = \{ tcp \. 8080 : goto p_tcp_8080, udp \. 8080 : goto p_udp_8080 \}/);
  assert.match(
    text,
    /chain p_tcp_8080 \{\nmeta l4proto tcp dnat to numgen inc mod 2 map \{ 0 : 10\.0\.0\.10, 1 : 10\.0\.0\.11 \}:80\n\}/,
  );
  assert.match(text, /chain p_udp_8080 \{\nmeta l4proto udp dnat to .*:53\n\}/);
  assert.match(tables.host.render(), /elements = \{ tcp \. 8080, udp \. 8080 \}/);
});

test("answers go back to the node that led, each node by its own zone, and this one by none", () => {
  const text = new IngressTables(tableOf(), [], "self").mesh.render();
  assert.match(text, /map zones \{\n.*\nelements = \{ 02:42:0a:00:00:03 : 3 \}/);
  assert.match(text, /map nodes \{\n.*\nelements = \{ 3 : 02:42:0a:00:00:03 \}/);
});

test("zones follow from the address, and no two nodes have the same", () => {
  const table = tableOf("10.0.0.0/8");
  setNode(table, "far", "10.1.0.3");
  setNode(table, "zero", "10.1.0.0");
  const text = new IngressTables(table, [], "self").mesh.render();
  assert.match(text, /elements = \{ 02:42:0a:00:00:03 : 3, 02:42:0a:01:00:03 : 4, 02:42:0a:01:00:00 : 1 \}/);
});

test("a change of tasks is one chain for each port, and nothing on the node", () => {
  const table = tableOf();
  const tables = told(table);
  table.apply({ kind: "remove-endpoint", networkId, taskId: "t0" });
  tables.update(table, table.takeChanges());
  assert.equal(
    tables.mesh.renderChanges(),
    `flush chain ip shoal p_tcp_8080
add rule ip shoal p_tcp_8080 meta l4proto tcp dnat to 10.0.0.11:80
flush chain ip shoal p_udp_8080
add rule ip shoal p_udp_8080 meta l4proto udp dnat to 10.0.0.11:53
`,
  );
  assert.equal(tables.host.renderChanges(), "");
});

test("a port without active tasks refuses; one that goes to another service stays on the node", () => {
  for (const order of [
    ["a", "b"],
    ["b", "a"],
  ] as const) {
    const table = tableOf();
    const tables = told(table);
    for (const serviceId of order) setPorts(table, serviceId, serviceId === "b" ? [tcp] : [udp]);
    tables.update(table, table.takeChanges());
    assert.equal(
      tables.mesh.renderChanges(),
      `flush chain ip shoal p_tcp_8080
add rule ip shoal p_tcp_8080 meta l4proto tcp reject with tcp reset
add rule ip shoal p_tcp_8080 reject
`,
    );
    assert.equal(tables.host.renderChanges(), "");
  }
});

test("a node that is gone, or has another address, leaves nothing", () => {
  const table = tableOf();
  const tables = told(table);
  setNode(table, "other", "10.0.0.4");
  setNode(table, "third", "10.0.0.3");
  tables.update(table, table.takeChanges());
  tables.mesh.takeChanges();
  for (const nodeId of ["other", "third"]) table.apply({ kind: "remove-node", networkId, nodeId });
  tables.update(table, table.takeChanges());
  tables.mesh.takeChanges();
  assert.doesNotMatch(tables.mesh.render(), /02:42:0a/);
});

test("a port of one task leads there alone, and goes with it", () => {
  const tables = told(tableOf());
  tables.setHostPorts([{ address: "10.0.0.10", protocol: "tcp", hostPort: 9090, port: 80 }]);
  assert.match(tables.mesh.renderChanges(), /add rule ip shoal p_tcp_9090 meta l4proto tcp dnat to 10\.0\.0\.10:80\n/);
  assert.equal(tables.host.renderChanges(), "add element ip shoal ports { tcp . 9090 }\n");
  tables.mesh.takeChanges();
  tables.host.takeChanges();
  tables.setHostPorts([]);
  assert.equal(tables.host.renderChanges(), "delete element ip shoal ports { tcp . 9090 }\n");
});

const engine = ["-P FORWARD DROP", "-N DOCKER-USER", "-N DOCKER-ISOLATION-STAGE-2"];
const rules = [
  "-A SHOAL-INGRESS -o shing0 -j ACCEPT",
  "-A SHOAL-INGRESS -i shing0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  "-A SHOAL-INGRESS -i shing0 -j DOCKER-ISOLATION-STAGE-2",
  "-A SHOAL-INGRESS -i shing0 -j ACCEPT",
];

function firewall(...lines: readonly string[]) {
  return compareFirewall(lines.join("\n"));
}

test("the mesh is let through after users' rules, and tasks not to other networks' containers", () => {
  const { script } = firewall(...engine, "-A FORWARD -j DOCKER-USER", "-A FORWARD -o docker0 -j DOCKER");
  assert.equal(script, `*filter\n:SHOAL-INGRESS - [0:0]\n${rules.join("\n")}\n-I FORWARD 2 -j SHOAL-INGRESS\nCOMMIT\n`);
});

test("a firewall that is as it should be is left alone, wherever the Engine puts its own rules", () => {
  const ours = [...engine, "-N SHOAL-INGRESS", ...rules];
  for (const between of [[], ["-A FORWARD -j DOCKER-ISOLATION-STAGE-1"]]) {
    const lines = [...ours, "-A FORWARD -j DOCKER-USER", ...between, "-A FORWARD -j SHOAL-INGRESS"];
    assert.deepEqual(firewall(...lines), { differences: [], script: "" });
  }
});

test("a call that is missing, there twice, or before users' rules is put right", () => {
  const ours = [...engine, "-N SHOAL-INGRESS", ...rules];
  const [users, call, other] = ["-A FORWARD -j DOCKER-USER", "-A FORWARD -j SHOAL-INGRESS", "-A FORWARD -i lo -j DROP"];
  assert.equal(firewall(...ours, other, users).script, "*filter\n-I FORWARD 3 -j SHOAL-INGRESS\nCOMMIT\n");
  assert.equal(firewall(...ours, other).script, "*filter\n-A FORWARD -j SHOAL-INGRESS\nCOMMIT\n");
  assert.equal(
    firewall(...ours, call, other, users, call).script,
    "*filter\n-D FORWARD -j SHOAL-INGRESS\n-D FORWARD -j SHOAL-INGRESS\n-I FORWARD 3 -j SHOAL-INGRESS\nCOMMIT\n",
  );
  assert.deepEqual(firewall(...ours, call, users).differences, ["SHOAL-INGRESS comes before DOCKER-USER"]);
});

test("rules that somebody has emptied are put back", () => {
  const lines = [...engine, "-N SHOAL-INGRESS", "-A FORWARD -j DOCKER-USER", "-A FORWARD -j SHOAL-INGRESS"];
  assert.equal(firewall(...lines).script, `*filter\n:SHOAL-INGRESS - [0:0]\n${rules.join("\n")}\nCOMMIT\n`);
});

test("the cable may go by itself while it is taken away: its namespace was removed before", async () => {
  const commands = new FakeCommands();
  const gone = new Error('Cannot find device "shing0"');
  const link = { pattern: /^ip -json address show/, answer: '[{"ifname":"shing0"}]' };
  commands.answers.push(link, { pattern: /^ip link del shing0/, answer: gone });
  const mesh = new IngressMesh({ commands, namespace: "shoal-i1", selfNodeId: "self", log: silentLogger });
  await assert.rejects(mesh.remove(), gone);
  const { run } = commands;
  commands.run = (program, args, input) => {
    if (args.includes("del")) link.answer = "[]";
    return run.call(commands, program, args, input);
  };
  await mesh.remove();
});

test("an ingress network that was replaced by another takes nothing of the other's away when it goes", async () => {
  const commands = new FakeCommands();
  commands.answers.push({ pattern: /^(nsenter \S+ )?ip -json/, answer: "[]" });
  const options = { commands, selfNodeId: "self", log: silentLogger, nodeSide: new NodeSide() };
  const old = new IngressMesh({ ...options, namespace: "shoal-i1" });
  await old.apply(tableOf(), undefined);
  const other = new IngressMesh({ ...options, namespace: "shoal-i2" });
  await other.apply(tableOf("10.1.0.0/24"), undefined);
  assert.ok(commands.takeChanges().some((call) => call.includes("netns shoal-i2")));
  await old.apply(tableOf(), undefined);
  assert.deepEqual(await old.audit(tableOf()), []);
  await old.remove();
  assert.deepEqual(commands.takeChanges(), []);
  await other.remove();
  assert.notDeepEqual(commands.takeChanges(), []);
  await old.apply(tableOf(), undefined);
  assert.ok(
    commands.takeChanges().some((call) => call.includes("netns shoal-i1")),
    "free again, it is taken",
  );
});
