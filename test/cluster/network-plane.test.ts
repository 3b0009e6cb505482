/**
 * The data plane on real hosts: namespaces with an Engine each, told by hand what managers would tell. Containers reach
 * each other over nodes, also while the data plane or an Engine dies and comes back, and nothing stays behind.
 * Needs root, dockerd, iproute2, nftables, conntrack and Debian's busybox-static; fails where they are missing.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { exchange } from "../../src/playground/http.ts";
import { playgroundLayout } from "../../src/playground/layout.ts";
import { Playground } from "../../src/playground/playground.ts";
import { ensureSampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { Docker } from "./harness.ts";
import { HandMadeState, PlaneOnNode, startContainer } from "./network-planes.ts";

const playground = new Playground(playgroundLayout("netplane", "10.113.0"));
const state = new HandMadeState();
const planes: PlaneOnNode[] = [];
const front = "frontnetwork0000000000000";
const back = "backnetwork00000000000000";
const ingress = "ingressnetwork00000000000";
const limitMs = 45_000;

before(async () => {
  await playground.down();
  await playground.up({ nodes: 2, managers: 1 });
  for (const index of [1, 2]) {
    const plane = new PlaneOnNode(playground, index);
    planes.push(plane);
    await ensureSampleImage(plane.node.engineSocket);
    await plane.start();
  }
  state.addNetwork({ id: front, name: "front", vxlanId: 4201 });
  state.addNetwork({ id: back, name: "back", vxlanId: 4202, internal: true, subnet: "10.99.5.0/24" });
  for (const network of [front, back]) for (const plane of planes) state.addNode(network, plane);
});

after(async () => {
  for (const plane of planes) {
    plane.engine.close();
    await plane.end("stop").catch((error) => console.error(error));
  }
  await playground.down();
});

async function tellAll(): Promise<void> {
  await Promise.all(planes.map((plane) => plane.call({ call: "apply", message: state.complete() })));
}

/** Runs something in a container; its output. */
function inside(plane: PlaneOnNode, container: string, ...command: string[]): Promise<string> {
  return new Docker("docker", plane.node).engine.ok(["exec", container, ...command], { limitMs: 20_000 });
}

async function reaches(plane: PlaneOnNode, container: string, address: string): Promise<void> {
  const said = await inside(plane, container, "ping", "-c", "2", "-W", "2", "-i", "0.2", address);
  assert.match(said, /, 0% packet loss/, `${container} -> ${address}: ${said}`);
}

async function auditIsClean(plane: PlaneOnNode): Promise<void> {
  let seen: string[] = [];
  await eventually(
    { what: `${plane.node.name} is as it was told`, limitMs, details: () => seen.join("\n") },
    async () => {
      seen = await plane.call<string[]>({ call: "audit" });
      return seen.length === 0;
    },
  );
}

async function runTask(plane: PlaneOnNode, taskId: string, addresses: Readonly<Record<string, string>>) {
  for (const [network, address] of Object.entries(addresses)) state.addEndpoint(network, taskId, plane, address);
  await tellAll();
  return await startContainer(plane, state.task(taskId, plane));
}

test("describe: the node has a data plane at its address", async () => {
  const { address } = await planes[0]!.call<{ address: string }>({ call: "describe" });
  assert.equal(address, planes[0]!.node.address);
});

const containers = new Map<string, string>();

test("containers on a network reach each other on one node and across nodes", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  containers.set("a", await runTask(one, "taska", { [front]: "10.201.0.5" }));
  containers.set("b", await runTask(one, "taskb", { [front]: "10.201.0.6", [back]: "10.99.5.6" }));
  containers.set("c", await runTask(two, "taskc", { [front]: "10.201.0.7", [back]: "10.99.5.7" }));
  await reaches(one, containers.get("a")!, "10.201.0.6");
  await reaches(one, containers.get("a")!, "10.201.0.7");
  await reaches(two, containers.get("c")!, "10.201.0.5");
  await reaches(one, containers.get("b")!, "10.99.5.7");
  for (const plane of planes) await auditIsClean(plane);
});

test("a container has its address with the network's prefix, its hardware address and MTU, and a way out", async () => {
  const [one] = planes as [PlaneOnNode];
  const said = await inside(one, containers.get("a")!, "ip", "addr");
  assert.match(said, /10\.201\.0\.5\/16/);
  assert.match(said, /mtu 1450/);
  assert.match(said, /02:42:0a:c9:00:05/);
  assert.match(await inside(one, containers.get("a")!, "ip", "route"), /default via 172/);
});

test("networks are apart: a container on one of them does not reach the other", async () => {
  const [one] = planes as [PlaneOnNode];
  await assert.rejects(inside(one, containers.get("a")!, "ping", "-c", "1", "-W", "1", "10.99.5.7"));
});

test("the data plane is killed: connections go on; it takes over what is there, and containers can be started", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  const ping = inside(two, containers.get("c")!, "ping", "-c", "40", "-W", "2", "-i", "0.1", "10.201.0.5");
  await one.end("die");
  await one.start();
  assert.deepEqual(
    (await one.call<string[]>({ call: "audit" })).filter((line) => /nobody|missing|taken/.test(line)),
    [],
  );
  await tellAll();
  await auditIsClean(one);
  containers.set("d", await runTask(one, "taskd", { [front]: "10.201.0.8" }));
  assert.match(await ping, /, 0% packet loss/);
  await reaches(two, containers.get("c")!, "10.201.0.8");
});

test("a container that ends takes its cable along", async () => {
  const [one] = planes as [PlaneOnNode];
  await one.engine.removeContainer(containers.get("d")!);
  state.removeEndpoint(front, "taskd");
  await tellAll();
  for (const plane of planes) await auditIsClean(plane);
});

test("the address of a task that is gone can be another node's at once", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  containers.set("e", await runTask(two, "taske", { [front]: "10.201.0.8" }));
  await reaches(one, containers.get("a")!, "10.201.0.8");
  await two.engine.removeContainer(containers.get("e")!);
  state.removeEndpoint(front, "taske");
  await tellAll();
});

test("the Engine is killed: its containers' cables go, and new ones are plugged in", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  const machine = playground.machine(one.node.name);
  await machine.kill("engine");
  await machine.startEngine();
  await eventually({ what: "the Engine has buried its containers", limitMs }, async () => {
    const all = await one.engine.listContainers([]);
    return all.length === 2 && all.every(({ State }) => State === "exited");
  });
  for (const { Id = "" } of await one.engine.listContainers([])) await one.engine.removeContainer(Id);
  for (const [network, tasks] of [
    [front, ["taska", "taskb"]],
    [back, ["taskb"]],
  ] as const) {
    for (const task of tasks) state.removeEndpoint(network, task);
  }
  containers.set("f", await runTask(one, "taskf", { [front]: "10.201.0.9", [back]: "10.99.5.9" }));
  await reaches(one, containers.get("f")!, "10.201.0.7");
  await reaches(two, containers.get("c")!, "10.99.5.9");
  for (const plane of planes) await auditIsClean(plane);
});

test("the Engine is killed while the data plane is down: all is right when both are back", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  const machine = playground.machine(one.node.name);
  await one.end("die");
  await machine.kill("engine");
  await machine.startEngine();
  await one.start();
  for (const { Id = "" } of await one.engine.listContainers([])) await one.engine.removeContainer(Id);
  for (const network of [front, back]) state.removeEndpoint(network, "taskf");
  containers.set("g", await runTask(one, "taskg", { [front]: "10.201.0.10" }));
  await reaches(two, containers.get("c")!, "10.201.0.10");
  for (const plane of planes) await auditIsClean(plane);
});

test("a network stays under a container that runs, and goes with it", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  await one.call({ call: "apply", message: state.complete([]) });
  assert.match(await one.shell("ip netns list"), /shoal-frontnetwork/);
  await reaches(two, containers.get("c")!, "10.201.0.10");
  await one.engine.removeContainer(containers.get("g")!);
  await auditIsClean(one);
  assert.equal(await one.shell("ip netns list"), "");
  state.removeEndpoint(front, "taskg");
});

test("the UDP port is another program's: the reason is said, and it works once the port is free", async () => {
  const [one] = planes as [PlaneOnNode];
  const script =
    "const s = require('dgram').createSocket('udp4'); s.bind(4789); process.stdin.resume().on('end', () => s.close())";
  const holder = spawn("nsenter", [...one.inside(), process.execPath, "-e", script], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const ended = new Promise((resolve) => holder.once("close", resolve));
  await eventually({ what: "the port is taken", limitMs }, async () => /:4789 /.test(await one.shell("ss -lun")));
  state.addEndpoint(front, "taskh", one, "10.201.0.11");
  await tellAll();
  const lines = await one.call<string[]>({ call: "audit" });
  assert.match(lines.join("\n"), /the UDP port 4789, which the swarm's networks need, is in use on this node/);
  const container = startContainer(one, state.task("taskh", one));
  holder.stdin.end();
  await ended;
  containers.set("h", await container);
  await reaches(one, containers.get("h")!, "10.201.0.7");
});

test("names lead to a service, and to each of its tasks", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  state.addService(front, { serviceId: "web", virtualAddress: "10.201.0.200" });
  state.addEndpoint(front, "taskc", two, "10.201.0.7", "web");
  await tellAll();
  const said = await inside(one, containers.get("h")!, "wget", "-q", "-O", "-", "http://web/cgi-bin/whoami");
  assert.equal(ipv4(said), "taskc answers 10.201.0.11");
  assert.match(await inside(one, containers.get("h")!, "nslookup", "tasks.web"), /10\.201\.0\.7/);
});

/** What a client outside of all nodes gets from a port of a node. */
async function fromOutside(plane: PlaneOnNode, port: number): Promise<string> {
  const answer = await exchange({ to: { host: plane.node.address, port }, path: "/cgi-bin/whoami", limitMs: 5_000 });
  return ipv4(answer.text.trim());
}

/** The sample listens for IPv6 too, and shows an IPv4 client as one of that. */
function ipv4(text: string): string {
  return text.replace(/\[::ffff:([\d.]+)\]/, "$1");
}

test("ingress: a port of every node leads to the task, which sees its client; also one of its node alone", async () => {
  const [one, two] = planes as [PlaneOnNode, PlaneOnNode];
  state.addNetwork({ id: ingress, name: "ingress", vxlanId: 4200, ingress: true, subnet: "10.202.0.0/24" });
  state.addNode(ingress, one, "10.202.0.2");
  state.addNode(ingress, two, "10.202.0.3");
  const ports = [{ protocol: "tcp", published: 8088, target: 80 }] as const;
  state.addService(ingress, { serviceId: "web", ports });
  state.addEndpoint(ingress, "taski", one, "10.202.0.9", "web");
  state.addEndpoint(front, "taski", one, "10.201.0.12", "web");
  await tellAll();
  containers.set("i", await startContainer(one, state.task("taski", one), { "80/tcp": 9099 }));
  const client = `taski answers ${playground.layout.machineAddress}`;
  await eventually({ what: "the task answers", limitMs }, async () => (await fromOutside(one, 9099)) !== "");
  for (const plane of planes) assert.equal(await fromOutside(plane, 8088), client, plane.nodeId);
  assert.equal(await fromOutside(one, 9099), client);
  await assert.rejects(fromOutside(two, 9099));
  for (const plane of planes) await auditIsClean(plane);
});

test("ingress: a data plane that starts again leaves all of it as it is", async () => {
  const [one] = planes as [PlaneOnNode];
  const client = `taski answers ${playground.layout.machineAddress}`;
  await one.end("die");
  assert.equal(await fromOutside(one, 8088), client);
  assert.equal(await fromOutside(one, 9099), client);
  await one.start();
  await tellAll();
  assert.equal(await fromOutside(one, 8088), client);
  assert.equal(await fromOutside(one, 9099), client);
  await auditIsClean(one);
  await one.engine.removeContainer(containers.get("i")!);
  for (const network of [front, ingress]) state.removeEndpoint(network, "taski");
  await tellAll();
  await assert.rejects(fromOutside(one, 9099));
  for (const plane of planes) await auditIsClean(plane);
});

test("nothing stays when the node leaves", async () => {
  for (const plane of planes) {
    for (const { Id = "" } of await plane.engine.listContainers([])) await plane.engine.removeContainer(Id);
    await plane.call({ call: "remove" });
    assert.equal(await plane.shell("ip netns list"), "");
    assert.doesNotMatch(await plane.shell("ip -br link show type veth"), /vc|vp|shing/);
    assert.equal(await plane.shell("ip -br link show type vxlan"), "");
    assert.deepEqual(await plane.engine.listNetworks(["shoal.network"]), []);
    assert.doesNotMatch(await plane.shell("nft list tables"), /shoal/);
  }
});
