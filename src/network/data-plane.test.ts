/** The data plane without a kernel: what is done in which order, and what becomes of failures. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { FakeEngine } from "../engine/fake-engine.ts";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { NetworkChange, NetworkState, NetworksMessage } from "../model/network-state.ts";
import type { AssignedTask } from "../model/types.ts";
import { DataPlane } from "./data-plane.ts";
import { FakeCommands } from "./fake-commands.ts";
import { namespaceOf } from "./names.ts";
import { networkState } from "./network-fixture.ts";
import type { NetworkBalance } from "./parts.ts";

const front = "frontnetwork0000000000000";
const back = "backnetwork00000000000000";
const never = new AbortController().signal;

function network(id: string, more: Partial<NetworkState> = {}): NetworkChange {
  return { kind: "network", network: networkState(id, { name: id.replace(/network0*$/, ""), ...more }) };
}

function node(networkId: string, nodeId: string, address: string, ownAddress?: string): NetworkChange {
  return { kind: "node", networkId, node: { nodeId, address, ...(ownAddress ? { ownAddress } : {}) } };
}

function endpoint(networkId: string, taskId: string, nodeId: string, address: string): NetworkChange {
  const one = { taskId, serviceId: "s", nodeId, address, names: [], active: true };
  return { kind: "endpoint", networkId, endpoint: one };
}

function task(id: string, ...networks: [string, string][]): AssignedTask {
  const Networks = networks.map(([ID, address]) => ({
    Network: { ID, Name: ID.replace(/network0*$/, ""), Driver: "overlay" },
    Addresses: [address],
    Aliases: [],
  }));
  return { ID: id, Networks } as unknown as AssignedTask;
}

const cleanUp: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of cleanUp.splice(0)) await end();
});

async function start() {
  const directory = await mkdtemp(join(tmpdir(), "shoal-plane-"));
  const commands = new FakeCommands();
  const engine = new FakeEngine();
  const clock = new FakeClock();
  /** What the parts were told, in one list with the commands, so that the order shows. */
  const told = (what: string) => void commands.calls.push(what);
  const audits: string[] = [];
  const balance = (namespace: string): NetworkBalance => ({
    apply: async (table, changes) =>
      told(`balance ${namespace}: ${changes ? [...changes.services].join() : `all ${table.endpoints.size}`}`),
    audit: async () => [...audits],
  });
  const plane = new DataPlane({
    nodeId: "a",
    address: "192.168.1.1",
    engine,
    pluginSocket: join(directory, "plugins/shoal.sock"),
    commands,
    processId: 77,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    parts: () => ({
      balance,
      ingress: (namespace) => ({
        ...balance(namespace),
        setHostPorts: async (ports) => told(`host ports ${JSON.stringify(ports)}`),
        remove: async () => told("ingress goes"),
      }),
      removeIngress: async () => undefined,
      forgetFlows: async (_, addresses) => told(`forget flows ${addresses.join()}`),
      drained: async (namespace, addresses) => told(`drained ${namespace} ${addresses.join()}`),
      names: {
        update: () => told("names"),
        serve: async (_, __, address) => told(`names at ${address}`),
        stop: () => told("names stop"),
        close: () => told("names close"),
      },
      encryption: {
        namespace: "shoal-wg",
        describe: async () => ({ problem: "wg is missing" }),
        apply: async ({ peers }) => told(`encrypt ${peers.map(({ nodeId }) => nodeId).join()}`),
        remove: async () => undefined,
        audit: async () => [],
      },
    }),
  });
  await plane.start();
  cleanUp.push(async () => {
    await plane.stop();
    await rm(directory, { recursive: true });
  });
  let revision = 0;
  const apply = (type: NetworksMessage["type"], ...changes: NetworkChange[]) =>
    plane.apply({ type, revision: ++revision, changes });
  commands.calls.splice(0);
  return { plane, commands, engine, clock, apply, audits, namespace: namespaceOf(front) };
}

const ip = (lines: string[]) => ["ip -n shoal-frontnetwork -batch -", ...lines].join("\n  ");
const bridge = (lines: string[]) => ["bridge -n shoal-frontnetwork -batch -", ...lines].join("\n  ");

/** A network with two nodes and an endpoint on the other one. */
async function withFront() {
  const plane = await start();
  await plane.apply(
    "complete",
    network(front),
    node(front, "a", "192.168.1.1"),
    node(front, "b", "192.168.1.2"),
    endpoint(front, "t1", "b", "10.0.1.5"),
  );
  plane.commands.takeChanges();
  return plane;
}

test("who is new is reachable before names and balance lead there; who goes is so until they don't", async () => {
  const { commands, apply } = await withFront();
  await apply(
    "incremental",
    { kind: "remove-endpoint", networkId: front, taskId: "t1" },
    endpoint(front, "t2", "b", "10.0.1.6"),
  );
  const [five, six] = ["02:42:0a:00:01:05", "02:42:0a:00:01:06"];
  assert.deepEqual(commands.takeChanges(), [
    ip([`neigh replace 10.0.1.6 lladdr ${six} dev br0 nud permanent`]),
    bridge([`fdb replace ${six} dev vx0 dst 192.168.1.2 self master dynamic extern_learn`]),
    "names",
    "balance shoal-frontnetwork: s",
    "names at 10.0.1.1",
    "forget flows 10.0.1.5",
    ip(["neigh del 10.0.1.5 dev br0"]),
    bridge([`fdb del ${five} dev vx0 self`, `fdb del ${five} dev vx0 master`]),
  ]);
});

test("what only changes names and balance runs no program of the kernel's links", async () => {
  const { commands, apply } = await withFront();
  const change = endpoint(front, "t1", "b", "10.0.1.5");
  assert.equal(change.kind, "endpoint");
  await apply("incremental", { ...change, endpoint: { ...change.endpoint, active: false } } as NetworkChange);
  assert.deepEqual(commands.takeChanges(), ["names", "balance shoal-frontnetwork: s", "names at 10.0.1.1"]);
});

test("a complete message that changes nothing changes nothing; what it lacks goes", async () => {
  const { commands, apply } = await withFront();
  const same = [network(front), node(front, "a", "192.168.1.1"), node(front, "b", "192.168.1.2")];
  await apply("complete", ...same, endpoint(front, "t1", "b", "10.0.1.5"));
  assert.deepEqual(commands.takeChanges(), ["names", "balance shoal-frontnetwork: ", "names at 10.0.1.1"]);
  await apply("complete", ...same);
  assert.deepEqual(commands.takeChanges().at(-2), ip(["neigh del 10.0.1.5 dev br0"]));
  await apply("complete");
  assert.deepEqual(commands.takeChanges().slice(0, 2), [
    "names stop",
    "ip -n shoal-frontnetwork -force -batch -\n  link del vx0",
  ]);
  assert.deepEqual([...commands.namespaces], []);
});

test("messages are applied in the order of the calls, also when nobody waits", async () => {
  const { commands, apply, plane } = await start();
  const all = [
    apply("complete", network(front), node(front, "a", "192.168.1.1")),
    apply("incremental", node(front, "b", "192.168.1.2"), endpoint(front, "t1", "b", "10.0.1.5")),
    apply("incremental", { kind: "remove-network", networkId: front }),
    apply("incremental", network(back, { vxlanId: 4098 })),
  ];
  await Promise.all(all);
  assert.deepEqual([...commands.namespaces], [namespaceOf(back)]);
  assert.ok(plane);
});

test("a failure is told, holds up no other network, and is mended by comparing everything", async () => {
  const { commands, apply, clock } = await withFront();
  commands.answers.push({ pattern: /10\.0\.1\.6/, answer: new ShoalError("Internal", "ip: no buffer space") });
  const failing = apply("incremental", endpoint(front, "t2", "b", "10.0.1.6"), network(back, { vxlanId: 4098 }));
  await assert.rejects(failing, { code: "Unavailable", message: "network front: ip: no buffer space" });
  assert.ok(commands.namespaces.has(namespaceOf(back)));
  assert.ok(!commands.takeChanges().includes("balance shoal-frontnetwork: s"), "it leads to who is not reachable");
  commands.answers.splice(0);
  await clock.advance(5_000);
  assert.ok(commands.takeChanges().includes("balance shoal-frontnetwork: all 2"));
  await apply("incremental");
});

test("a network that can't be made on this node holds up nobody but its own tasks", async () => {
  const { commands, apply, plane, clock } = await start();
  const taken = new ShoalError("Internal", "RTNETLINK answers: Address already in use");
  commands.answers.push({ pattern: /link set vx0/, answer: taken });
  await apply("complete", network(front), node(front, "a", "192.168.1.1"), endpoint(front, "t1", "a", "10.0.1.5"));
  const attaching = plane.attach(task("t1", [front, "10.0.1.5/24"]), never);
  const rejected = assert.rejects(attaching, {
    code: "Unavailable",
    message: /front is not ready on this node: the UDP port 4789, which the swarm's networks need, is in use/,
  });
  await clock.advance(30_000);
  await rejected;
  commands.answers.splice(0);
  const again = plane.attach(task("t1", [front, "10.0.1.5/24"]), never);
  await clock.advance(15_000);
  assert.equal((await again).nameserver, "10.0.1.1");
});

test("attach waits for the managers' state; the Engine's network is made with it, the ingress network comes last", async () => {
  const { apply, plane, engine } = await start();
  const ingress = "ingressnetwork00000000000";
  const attaching = plane.attach(task("t1", [ingress, "10.0.0.5/24"], [front, "10.0.1.5/24"]), never);
  await apply(
    "complete",
    network(front),
    node(front, "a", "192.168.1.1"),
    endpoint(front, "t1", "a", "10.0.1.5"),
    network(ingress, { vxlanId: 4096, ingress: true, subnet: "10.0.0.0/24", gateway: "10.0.0.1" }),
    endpoint(ingress, "t1", "a", "10.0.0.5"),
  );
  await settled();
  assert.equal(engine.networks.size, 0, "this node has no address on the ingress network yet");
  await apply("incremental", node(ingress, "a", "192.168.1.1", "10.0.0.2"));
  const { networks, nameserver } = await attaching;
  assert.equal(nameserver, "10.0.1.1");
  assert.deepEqual(
    networks.map(({ engineNetwork, driverOptions }) => [engineNetwork, driverOptions["shoal.address"]]),
    [
      ["front", "10.0.1.5/24"],
      ["ingress", "10.0.0.5/24"],
    ],
  );
  const ended = new AbortController();
  const other = plane.attach(task("t9", [front, "10.0.1.9/24"]), ended.signal);
  ended.abort(new ShoalError("Canceled", "the task is not wanted any more"));
  await assert.rejects(other, { code: "Canceled" });
});

test("a node without the programs has no data plane, and says what to install", async () => {
  const { commands, plane } = await start();
  commands.answers.push({ pattern: /^(nft|conntrack)/, answer: new ShoalError("Unavailable", "spawn ENOENT") });
  const message =
    "this node lacks conntrack (package conntrack), nft (package nftables): networks of the swarm need it";
  await assert.rejects(plane.describe(), { code: "FailedPrecondition", message });
  await assert.rejects(plane.attach(task("t1", [front, "10.0.1.5/24"]), never), { code: "Unavailable", message });
  commands.answers.splice(0);
  assert.deepEqual(await plane.describe(), { address: "192.168.1.1", encryptionProblem: "wg is missing" });
});

test("the audit names what differs, and what is nobody's", async () => {
  const { commands, plane, audits, engine } = await withFront();
  audits.push("a rule is missing");
  commands.namespaces.add("shoal-strangers000");
  await settled(); // what the complete message has made needless has been taken away
  await engine.createNetwork({ Name: "old", Labels: { "shoal.network": "old" } });
  const lines = await plane.audit();
  // The fake kernel shows no links at all.
  assert.ok(lines.includes("network front: vx0 is missing"), lines.join("\n"));
  assert.ok(lines.includes("namespace shoal-strangers000 belongs to no network of this node"));
  assert.ok(lines.includes("the Engine has a network old which the node takes no part in"));
});

test("an encrypted network is encrypted before anybody on it is reachable", async () => {
  const { commands, apply } = await start();
  commands.namespaces.add("shoal-wg");
  await apply(
    "complete",
    network(front, { encrypted: true }),
    node(front, "a", "192.168.1.1"),
    node(front, "b", "192.168.1.2"),
  );
  const [first, ...others] = commands.takeChanges();
  assert.equal(first, "encrypt b");
  assert.ok(others.some((line) => line.startsWith("ip -n shoal-wg -batch -\n  link add vx0 netns shoal-frontnetwork")));
  assert.ok(others.some((line) => line.includes("mtu 1370")));
  await apply("incremental", { kind: "key", key: { key: "k", revision: 2 } });
  assert.deepEqual(commands.takeChanges(), ["encrypt b"]);
});

test("what is there at the start stays until the managers have spoken", async () => {
  const { commands, plane, apply } = await start();
  commands.namespaces.add(namespaceOf(front));
  await plane.start();
  assert.deepEqual([...commands.namespaces], [namespaceOf(front)]);
  await apply("incremental", network(back, { vxlanId: 4098 }));
  assert.ok(commands.namespaces.has(namespaceOf(front)));
  await apply("complete", network(back, { vxlanId: 4098 }));
  assert.deepEqual([...commands.namespaces], [namespaceOf(back)]);
});

test("a plane that stops ends what it has begun, and begins nothing more", async () => {
  const { plane, commands, apply } = await withFront();
  const gate = Promise.withResolvers<void>();
  const { run } = commands;
  commands.run = async (...args) => {
    await gate.promise;
    return await run.apply(commands, args);
  };
  let isStopped = false;
  const applied = apply("incremental", endpoint(front, "t2", "b", "10.0.1.6"));
  const stopped = plane.stop().then(() => {
    isStopped = true;
  });
  await assert.rejects(apply("incremental", endpoint(front, "t3", "b", "10.0.1.7")), { code: "Canceled" });
  await settled();
  assert.equal(isStopped, false);
  gate.resolve();
  await Promise.all([applied, stopped]);
  const done = commands.calls.join("\n");
  assert.match(done, /names close(.|\n)*10\.0\.1\.6/);
  assert.doesNotMatch(done, /10\.0\.1\.7/);
});
