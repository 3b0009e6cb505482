import assert from "node:assert/strict";
import { test } from "node:test";
import { chainsInTheWay, linksTooSmall, swarmPorts } from "./doctor-network.ts";

const [managers, overlays] = swarmPorts as unknown as [(typeof swarmPorts)[0], (typeof swarmPorts)[0]];

function ruleset(policy: string, ...rules: unknown[]): string {
  const chain = { family: "inet", table: "filter", name: "input", type: "filter", hook: "input", prio: 0, policy };
  const listed = rules.map((expr) => ({ rule: { family: "inet", table: "filter", chain: "input", expr } }));
  return JSON.stringify({ nftables: [{ metainfo: {} }, { chain }, ...listed] });
}

const acceptsTcp = [
  { match: { op: "==", left: { payload: { protocol: "tcp", field: "dport" } }, right: { set: [22, 2377] } } },
  { accept: null },
];

test("a firewall that drops and does not speak of the port is in the way", () => {
  assert.deepEqual(chainsInTheWay(ruleset("drop"), managers), ["inet filter input"]);
  assert.deepEqual(chainsInTheWay(ruleset("drop", acceptsTcp), managers), []);
  assert.deepEqual(chainsInTheWay(ruleset("drop", acceptsTcp), overlays), ["inet filter input"]);
  assert.deepEqual(chainsInTheWay(ruleset("accept"), overlays), []);
  assert.deepEqual(chainsInTheWay(JSON.stringify({ nftables: [] }), overlays), []);
});

test("a link that can't carry an overlay network is named", () => {
  const routes = "default via 192.0.2.1 dev eth0 proto dhcp metric 100 \ndefault via 192.0.2.9 dev tun0 \n";
  assert.deepEqual(
    linksTooSmall(routes, (link) => (link === "eth0" ? 1500 : 1300)),
    ["tun0 has an MTU of 1300, and needs 1330"],
  );
  assert.deepEqual(
    linksTooSmall("", () => 0),
    [],
  );
});
