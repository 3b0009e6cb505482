/** What is told to iproute2, and what is made of what it says: as text. The real kernel is in test/cluster. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { cableOf, newCable } from "./cable.ts";
import { FakeCommands } from "./fake-commands.ts";
import { linkOf, NetworkKernel } from "./kernel.ts";
import { compareLinks, type LinkView, type NetworkLinks } from "./kernel-links.ts";
import { compareTables, removePeers, setPeers } from "./kernel-tables.ts";
import { cableNames, isNetworkNamespace, macOf, namespaceOf } from "./names.ts";

const links: NetworkLinks = {
  vxlanId: 4097,
  port: 4789,
  local: "192.168.1.7",
  underlay: undefined,
  mtu: 1450,
  subnet: "10.0.1.0/24",
  address: "10.0.1.1",
};

/** As a kernel that is as it should be is shown. */
function shown(wanted: NetworkLinks): LinkView[] {
  const off = { learning: false, flood: false, mcast_flood: false, bcast_flood: false };
  return [
    { ifname: "lo", flags: ["UP"] },
    {
      ifname: "vx0",
      mtu: wanted.mtu,
      flags: ["UP"],
      master: "br0",
      linkinfo: {
        info_data: { id: wanted.vxlanId, port: wanted.port, ...(wanted.local ? { local: wanted.local } : {}) },
        info_slave_data: { ...off, neigh_suppress: true },
      },
    },
    { ifname: "br0", address: macOf(wanted.address), mtu: wanted.mtu, flags: ["UP"] },
  ];
}

const bridgeAddresses = (...addresses: [string, number][]) => [
  { ifname: "br0", addr_info: addresses.map(([local, prefixlen]) => ({ local, prefixlen })) },
];

test("names: short enough for interfaces, and a playground's namespaces are not networks'", () => {
  assert.equal(namespaceOf("4kx2p0m9q8w7e6r5t4y3u2i1o"), "shoal-4kx2p0m9q8w7");
  assert.ok(isNetworkNamespace("shoal-4kx2p0m9q8w7"));
  for (const name of ["shoal-node-1", "shoal-switch", "shoal-wg", "shoal-test-node-1"]) {
    assert.equal(isNetworkNamespace(name), false, name);
  }
  const { inside, outside } = cableNames("task", "network");
  assert.match(`${inside} ${outside}`, /^vp[0-9a-f]{12} vc[0-9a-f]{12}$/);
  assert.notEqual(cableNames("task", "other").inside, inside);
  assert.equal(macOf("10.0.201.5"), "02:42:0a:00:c9:05");
});

test("a network that is new is made in two batches", async () => {
  const commands = new FakeCommands();
  const kernel = new NetworkKernel(commands, "shoal-abc", 77);
  assert.equal(await kernel.ensure(links), "made");
  assert.deepEqual(commands.takeChanges(), [
    [
      "ip -batch -",
      "netns add shoal-abc",
      "link add vx0 netns shoal-abc type vxlan id 4097 dstport 4789 local 192.168.1.7 nolearning",
    ].join("\n  "),
    [
      "ip -n shoal-abc -batch -",
      "link add br0 address 02:42:0a:00:01:01 type bridge mcast_snooping 0 nf_call_iptables 1",
      "link set lo up",
      "link set br0 address 02:42:0a:00:01:01 addrgenmode none mtu 1450 up",
      "link set vx0 addrgenmode none mtu 1450 master br0 up",
      "link set vx0 type bridge_slave learning off flood off mcast_flood off bcast_flood off neigh_suppress on",
      "link set br0 mtu 1450",
      "address replace 10.0.1.1/24 dev br0",
    ].join("\n  "),
  ]);
});

test("what is as it should be is left alone", async () => {
  const commands = new FakeCommands();
  commands.namespaces.add("shoal-abc");
  commands.answers.push(
    { pattern: /link show/, answer: JSON.stringify(shown(links)) },
    { pattern: /address show/, answer: JSON.stringify(bridgeAddresses(["10.0.1.1", 24], ["10.0.1.9", 32])) },
  );
  assert.equal(await new NetworkKernel(commands, "shoal-abc", 77).ensure(links), "kept");
  assert.deepEqual(commands.takeChanges(), []);
});

test("differences of links, each in words", () => {
  const right = bridgeAddresses(["10.0.1.1", 24]);
  assert.deepEqual(compareLinks(links, shown(links), right).differences, []);
  const elsewhere = compareLinks(links, shown({ ...links, local: "192.168.1.8", mtu: 1400 }), right);
  assert.deepEqual(elsewhere.differences, [
    "br0's MTU is 1400, not 1450",
    "vx0's local address is 192.168.1.8, not 192.168.1.7",
    "vx0's MTU is 1400, not 1450",
  ]);
  assert.deepEqual([elsewhere.vxlan, elsewhere.bridge], [true, false]);
  const moved = compareLinks({ ...links, address: "10.0.1.2" }, shown(links), right);
  assert.deepEqual(moved.strangers, ["10.0.1.1/24"]);
  assert.deepEqual(compareLinks(links, [], []).differences, ["br0 is missing", "vx0 is missing"]);
});

test("the VXLAN's port is another program's: that is said, and nothing of the network stays", async () => {
  const commands = new FakeCommands();
  const taken = new ShoalError("Internal", "ip: RTNETLINK answers: Address already in use\nCommand failed -:4");
  commands.answers.push({ pattern: /link set vx0/, answer: taken });
  await assert.rejects(new NetworkKernel(commands, "shoal-abcdefabcdef", 77).ensure(links), {
    code: "FailedPrecondition",
    message: "the UDP port 4789, which the swarm's networks need, is in use on this node",
  });
  assert.deepEqual([...commands.namespaces], []);
});

test("a cable says whose it is", async () => {
  const commands = new FakeCommands();
  commands.namespaces.add("shoal-abc");
  const kernel = new NetworkKernel(commands, "shoal-abc", 77);
  const cable = newCable("network", "endpoint1", "task1", "10.0.1.5");
  const { inside, outside } = cable;
  await kernel.plug(cable, 1450);
  assert.deepEqual(commands.takeChanges(), [
    [
      "ip -n shoal-abc -batch -",
      `link add ${inside} mtu 1450 type veth peer name ${outside} mtu 1450 netns 77`,
      `link set ${inside} alias shoal,endpoint1,task1,10.0.1.5 addrgenmode none master br0`,
      `link set ${inside} type bridge_slave hairpin on learning off flood off`,
      `link set ${inside} up`,
      "neigh replace 10.0.1.5 lladdr 02:42:0a:00:01:05 dev br0 nud permanent",
    ].join("\n  "),
    `bridge -n shoal-abc -batch -\n  fdb replace 02:42:0a:00:01:05 dev ${inside} master static`,
  ]);
  assert.deepEqual(cableOf({ ifname: inside, ifalias: "shoal,endpoint1,task1,10.0.1.5" }), cable);
  assert.equal(cableOf({ ifname: "br0" }), undefined);
});

test("taking away what is gone is done; another failure is one", async () => {
  const commands = new FakeCommands();
  const kernel = new NetworkKernel(commands, "shoal-abc", 77);
  const cable = newCable("network", "endpoint1", "task1", "10.0.1.5");
  await kernel.unplug(cable, false); // not even the namespace is there
  commands.namespaces.add("shoal-abc");
  const message = `ip: Cannot find device "vp1"\nCommand failed -:1`;
  commands.answers.push({ pattern: /link del/, answer: new ShoalError("Internal", message) });
  await kernel.unplug(cable, false);
  commands.answers.unshift({
    pattern: /link del/,
    answer: new ShoalError("Internal", `${message}\nOperation not permitted`),
  });
  await assert.rejects(kernel.unplug(cable, false), /not permitted/);
});

const mac = { five: "02:42:0a:00:01:05", six: "02:42:0a:00:01:06", seven: "02:42:0a:00:01:07" };

test("tables: other nodes' endpoints have a neighbour and one forwarding entry", () => {
  assert.deepEqual(setPeers([{ address: "10.0.1.5", via: "192.168.1.8" }]), {
    ip: [`neigh replace 10.0.1.5 lladdr ${mac.five} dev br0 nud permanent`],
    bridge: [`fdb replace ${mac.five} dev vx0 dst 192.168.1.8 self master dynamic extern_learn`],
  });
  assert.deepEqual(
    removePeers(["10.0.1.5", "10.0.1.6"], (address) => address === "10.0.1.6"),
    {
      ip: ["neigh del 10.0.1.5 dev br0"],
      bridge: [
        `fdb del ${mac.five} dev vx0 self`,
        `fdb del ${mac.five} dev vx0 master`,
        `fdb del ${mac.six} dev vx0 self`,
      ],
    },
  );
});

test("tables: only what differs is changed, and what is nobody's is taken away after that", () => {
  const neighbour = (dst: string, lladdr: string) => ({ dst, dev: "br0", lladdr, state: ["PERMANENT"] });
  const own = { mac: "02:42:0a:00:01:01", ifname: "br0", flags: [], master: "br0", state: "permanent" };
  const far = (at: string, dst: string) => [
    { mac: at, ifname: "vx0", flags: ["extern_learn"], master: "br0", state: "" },
    { mac: at, ifname: "vx0", dst, flags: ["self", "extern_learn"], state: "" },
  ];
  const compared = compareTables(
    [
      { address: "10.0.1.5", via: "192.168.1.8" },
      { address: "10.0.1.6", via: "192.168.1.9" },
    ],
    [{ address: "10.0.1.7", port: "vp1" }],
    [
      neighbour("10.0.1.5", mac.five),
      neighbour("10.0.1.6", mac.six),
      neighbour("10.0.1.200", "02:42:0a:00:01:c8"),
      { dst: "10.0.1.201", dev: "br0", state: ["FAILED"] },
    ],
    [own, ...far(mac.five, "192.168.1.8"), ...far(mac.six, "192.168.1.8"), ...far("02:42:0a:00:01:c8", "192.168.1.8")],
  );
  assert.deepEqual(compared, {
    ip: [`neigh replace 10.0.1.7 lladdr ${mac.seven} dev br0 nud permanent`],
    bridge: [
      `fdb replace ${mac.seven} dev vp1 master static`,
      `fdb replace ${mac.six} dev vx0 dst 192.168.1.9 self master dynamic extern_learn`,
    ],
    removal: {
      ip: ["neigh del 10.0.1.200 dev br0"],
      bridge: ["fdb del 02:42:0a:00:01:c8 dev vx0 self", "fdb del 02:42:0a:00:01:c8 dev vx0 master"],
    },
    differences: [
      "neighbour 10.0.1.7 is missing",
      "10.0.1.7 is behind no port, not vp1",
      "10.0.1.6 is on 192.168.1.8 behind vx0, not on 192.168.1.9",
      "neighbour 10.0.1.200 is nobody's",
      "02:42:0a:00:01:c8 on 192.168.1.8 is nobody's",
      "02:42:0a:00:01:c8 behind vx0 is nobody's",
    ],
  });
});

test("the link's MTU: of the one that has the address, else of the way out", async () => {
  const commands = new FakeCommands();
  const all = [
    { ifname: "eth0", mtu: 9000, addr_info: [{ local: "192.168.1.7" }] },
    { ifname: "eth1", mtu: 1400, addr_info: [{ local: "10.5.0.1" }] },
  ];
  commands.answers.push(
    { pattern: /address show/, answer: JSON.stringify(all) },
    { pattern: /route show default/, answer: JSON.stringify([{ dst: "default", dev: "eth1" }]) },
  );
  assert.deepEqual(await linkOf(commands, "192.168.1.7"), { mtu: 9000, isOwn: true });
  assert.deepEqual(await linkOf(commands, "203.0.113.9"), { mtu: 1400, isOwn: false });
});
