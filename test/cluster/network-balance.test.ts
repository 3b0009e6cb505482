/**
 * Where the kernel leads: virtual addresses and the routing mesh, on three machines that are a namespace each, with
 * clients and tasks that are one each too. What a task answers says who it is and whom it sees as its client.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { systemClock } from "../../src/lib/clock.ts";
import type { NetworkPort } from "../../src/model/network-state.ts";
import { inNamespace, systemCommands } from "../../src/network/commands.ts";
import { drained } from "../../src/network/conntrack.ts";
import type { IngressMesh } from "../../src/network/ingress.ts";
import { eventually } from "../../src/playground/wait.ts";
import { type Host, NetworkHosts, type Task, type Told } from "./network-hosts.ts";

const world = new NetworkHosts("nb", "10.114.0");
const virtualAddress = "10.0.1.5";
const published: NetworkPort[] = [
  { protocol: "tcp", published: 8080, target: 80 },
  { protocol: "udp", published: 8080, target: 80 },
  // The kernel takes the rules; whether it has a client for them is another question.
  { protocol: "sctp", published: 8080, target: 80 },
];
const protocols = ["tcp", "udp"] as const;
/** Of the kernel: soon enough for a person. */
const settleMs = 10_000;

let hosts: readonly [Host, Host, Host];
/** Of one service, one on each machine; named after it. */
let tasks: readonly [Task, Task, Task];

before(async () => {
  await world.up(3);
  await world.network("web", "10.0.1.0/24", 5001, false);
  await world.network("ingress", "10.0.0.0/24", 5002, true);
  hosts = [world.hosts[0]!, world.hosts[1]!, world.hosts[2]!];
  const [first, second, third] = hosts;
  tasks = [await taskOn(first, 1), await taskOn(second, 2), await taskOn(third, 3)];
  await service({ ports: published });
  await activate(1, 2, 3);
});

after(() => world.down());

function taskOn(host: Host, number: number): Promise<Task> {
  return world.task(host, `task${number}`, 80, addresses(number));
}

function addresses(number: number) {
  return { web: `10.0.1.1${number}`, ingress: `10.0.0.1${number}` };
}

/** The service is so on both networks. */
async function service(more: { ports?: readonly NetworkPort[]; isRoundRobinOfNames?: boolean }): Promise<void> {
  const { ports = published, isRoundRobinOfNames = false } = more;
  const common = { serviceId: "service1", name: "web", aliases: [] };
  const virtual = isRoundRobinOfNames ? {} : { virtualAddress };
  await world.tell("web", { kind: "service", service: { ...common, ...virtual, ports: [] } });
  await world.tell("ingress", { kind: "service", service: { ...common, ports } });
}

/** Exactly these of the three tasks are active. */
async function activate(...numbers: readonly number[]): Promise<void> {
  for (const network of ["web", "ingress"] as const) {
    await world.tell(network, ...[1, 2, 3].map((number) => endpoint(network, number, numbers.includes(number))));
  }
}

function endpoint(network: "web" | "ingress", number: number, active: boolean): Told {
  const { host, name } = tasks[number - 1]!;
  const address = addresses(number)[network];
  return {
    kind: "endpoint",
    endpoint: { taskId: name, serviceId: "service1", nodeId: host.nodeId, address, names: [], active },
  };
}

/** "task1 a", "task2 b" ... in the order of their names. */
async function ask(
  namespace: string,
  protocol: "tcp" | "udp",
  address: string,
  port: number,
  count = 6,
  from?: number,
) {
  const question = { protocol, address, port, count, ...(from === undefined ? {} : { from }) };
  return (await world.ask(namespace, question)).sort();
}

function twice(seenBy1: string, seenBy2 = seenBy1, seenBy3 = seenBy1): string[] {
  const each = [`task1 ${seenBy1}`, `task2 ${seenBy2}`, `task3 ${seenBy3}`];
  return each.flatMap((answer) => [answer, answer]);
}

/** All programs run in a namespace. */
function inside(namespace: string) {
  return inNamespace(systemCommands, namespace);
}

for (const protocol of protocols) {
  test(`a virtual address leads to each task in turn, itself included, and they see the client (${protocol})`, async () => {
    const [first, second] = tasks;
    assert.deepEqual(
      await ask(first.namespace, protocol, virtualAddress, 80),
      twice("10.0.1.1", "10.0.1.11", "10.0.1.11"),
    );
    assert.deepEqual(
      await ask(second.namespace, protocol, virtualAddress, 80),
      twice("10.0.1.12", "10.0.1.1", "10.0.1.12"),
    );
  });

  test(`a published port leads from every node to every node's tasks, and they see the client (${protocol})`, async () => {
    for (const { address } of hosts) {
      assert.deepEqual(await ask(world.client, protocol, address, 8080), twice(world.clientAddress), address);
    }
  });

  test(`a node reaches published ports by 127.0.0.1, its own and another node's address (${protocol})`, async () => {
    const [first, second] = hosts;
    assert.deepEqual(await ask(first.nodeId, protocol, "127.0.0.1", 8080), twice("169.254.77.1"));
    assert.deepEqual(await ask(first.nodeId, protocol, first.address, 8080), twice(first.address));
    assert.deepEqual(await ask(first.nodeId, protocol, second.address, 8080), twice(first.address));
  });

  test(`a task reaches its own published port by its own and another node (${protocol})`, async () => {
    const [first, second] = hosts;
    assert.deepEqual(await ask(tasks[0].namespace, protocol, first.address, 8080), twice("169.254.77.1"));
    assert.deepEqual(await ask(tasks[0].namespace, protocol, second.address, 8080), twice(first.address));
  });

  test(`the same client with the same port reaches the same task by two nodes (${protocol})`, async () => {
    await activate(3);
    const [first, second] = hosts;
    const answers = [
      await ask(world.client, protocol, first.address, 8080, 1, 40_001),
      await ask(world.client, protocol, second.address, 8080, 1, 40_001),
      await ask(world.client, protocol, first.address, 8080, 1, 40_001),
    ];
    assert.deepEqual(answers.flat(), Array(3).fill(`task3 ${world.clientAddress}`));
    await activate(1, 2, 3);
  });

  test(`without an active task a service refuses at once, and answers again when it has one (${protocol})`, async () => {
    await activate();
    const [task] = tasks;
    const ports = { virtual: 41_001, published: 41_002, local: 41_003 };
    assert.deepEqual(await ask(task.namespace, protocol, virtualAddress, 80, 1, ports.virtual), ["ECONNREFUSED"]);
    assert.deepEqual(await ask(world.client, protocol, hosts[0].address, 8080, 1, ports.published), ["ECONNREFUSED"]);
    assert.deepEqual(await ask(hosts[0].nodeId, protocol, "127.0.0.1", 8080, 1, ports.local), ["ECONNREFUSED"]);
    await activate(2);
    // The same ports again: that they were refused is not remembered.
    assert.deepEqual(await ask(task.namespace, protocol, virtualAddress, 80, 1, ports.virtual), ["task2 10.0.1.11"]);
    assert.deepEqual(await ask(world.client, protocol, hosts[0].address, 8080, 1, ports.published), [
      `task2 ${world.clientAddress}`,
    ]);
    assert.deepEqual(await ask(hosts[0].nodeId, protocol, "127.0.0.1", 8080, 1, ports.local), ["task2 169.254.77.1"]);
    await activate(1, 2, 3);
  });
}

test("a service of names alone has no virtual address", async () => {
  await service({ isRoundRobinOfNames: true });
  const shown = await inside(hosts[0].networks.get("web")!.namespace).run("ip", ["address", "show", "dev", "br0"]);
  assert.doesNotMatch(shown, /10\.0\.1\.5\//);
  assert.deepEqual(await world.audit(), []);
  await service({});
  assert.deepEqual(await ask(tasks[0].namespace, "tcp", virtualAddress, 80, 1), ["task1 10.0.1.1"]);
});

test("a published port is the mesh's also where another program listens there", async () => {
  const [first] = hosts;
  const other = await world.listener(first.nodeId, "stranger", 8080);
  assert.deepEqual(await ask(world.client, "tcp", first.address, 8080), twice(world.clientAddress));
  assert.deepEqual(await ask(first.nodeId, "tcp", "127.0.0.1", 8080), twice("169.254.77.1"));
  // And is the program's again without the mesh.
  await service({ ports: [] });
  assert.deepEqual(await ask(world.client, "tcp", first.address, 8080, 1), [`stranger ${world.clientAddress}`]);
  await service({});
  await other.end();
});

test("a port of one task on its node leads there alone", async () => {
  const [first, second] = hosts;
  const mesh = first.networks.get("ingress")!.balance as IngressMesh;
  await mesh.setHostPorts([{ address: "10.0.0.11", protocol: "tcp", hostPort: 9090, port: 80 }]);
  assert.deepEqual(
    await ask(world.client, "tcp", first.address, 9090, 2),
    Array(2).fill(`task1 ${world.clientAddress}`),
  );
  assert.deepEqual(await ask(world.client, "tcp", second.address, 9090, 1), ["ECONNREFUSED"]);
  assert.deepEqual(await world.audit(), []);
  await mesh.setHostPorts([]);
  assert.deepEqual(await ask(world.client, "tcp", first.address, 9090, 1), ["ECONNREFUSED"]);
});

test("tasks reach what is outside by their node's address", async () => {
  const other = await world.listener(world.client, "outside", 7070);
  assert.deepEqual(await ask(tasks[1].namespace, "tcp", world.clientAddress, 7070, 1), [`outside ${hosts[1].address}`]);
  await other.end();
});

test("users' rules in DOCKER-USER come first, and see the published port and the client", async () => {
  const { commands, address } = hosts[0];
  const rule = ["DOCKER-USER", "-p", "tcp", "--dport", "8080", "-s", world.clientAddress, "-j", "REJECT"];
  await commands.run("iptables", ["-w", "10", "-I", ...rule]);
  assert.deepEqual(await ask(world.client, "tcp", address, 8080, 1), ["ECONNREFUSED"]);
  assert.deepEqual(await ask(world.client, "udp", address, 8080), twice(world.clientAddress));
  await commands.run("iptables", ["-w", "10", "-D", ...rule]);
  assert.deepEqual(await ask(world.client, "tcp", address, 8080), twice(world.clientAddress));
});

test("what somebody else has broken is seen, and put right", async () => {
  const [first] = hosts;
  const { namespace, table, balance } = first.networks.get("ingress")!;
  const web = first.networks.get("web")!;
  await first.commands.run("iptables", ["-w", "10", "-F", "FORWARD"]);
  await first.commands
    .run("iptables", ["-w", "10", "-X", "SHOAL-INGRESS"])
    .catch(() => first.commands.run("iptables", ["-w", "10", "-F", "SHOAL-INGRESS"]));
  await first.commands.run("nft", ["delete element ip shoal ports { tcp . 8080 }"]);
  await inside(namespace).run("nft", ["add element ip shoal ports { tcp . 99 : goto p_tcp_8080 }"]);
  await inside(namespace).run("ip", ["route", "del", "default"]);
  await inside(web.namespace).run("nft", ["delete table ip shoal"]);
  await inside(web.namespace).run("ip", ["address", "add", "10.0.1.99/32", "dev", "br0"]);
  const found = (await world.audit()).join("\n");
  for (const expected of [
    /nb-1 ingress: node: set ports is different.* instead of tcp \. 8080/,
    /nb-1 ingress: node: .*SHOAL-INGRESS/,
    /nb-1 ingress: ingress namespace: map ports is different: it has tcp \. 99 : goto p_tcp_8080 instead of nothing/,
    /nb-1 ingress: ingress namespace: there is no default route/,
    /nb-1 web: chain lead is missing/,
    /nb-1 web: address 10\.0\.1\.99 should not be on br0/,
  ]) {
    assert.match(found, expected);
  }
  assert.doesNotMatch(found, /nb-[23]/);
  await balance.apply(table, undefined);
  // One that is told of a change only finds out by itself.
  await activate(1, 2);
  await activate(1, 2, 3);
  await web.balance.apply(web.table, undefined);
  assert.deepEqual(await world.audit(), []);
  assert.deepEqual(await ask(world.client, "tcp", first.address, 8080), twice(world.clientAddress));
});

/** A connection of this process' own that asks again and again; it is in the client's or a task's namespace. */
class Conversation {
  readonly #process;
  #text = "";

  constructor(namespace: string, address: string, port: number) {
    this.#process = spawn("nsenter", [`--net=/run/netns/${namespace}`, "busybox", "nc", address, String(port)]);
    this.#process.stdout.on("data", (chunk: Buffer) => {
      this.#text += chunk.toString();
    });
  }

  /** Who answers on it; undefined when it has ended. */
  async ask(): Promise<string | undefined> {
    this.#text = "";
    this.#process.stdin.write("GET / HTTP/1.1\r\nHost: any\r\n\r\n");
    return eventually({ what: "an answer, or an end", limitMs: settleMs }, () => {
      if (this.#process.exitCode !== null) return "it has ended";
      return /\r\n\r\n.*?(task\d)/s.exec(this.#text)?.[1];
    });
  }

  close(): void {
    this.#process.kill("SIGKILL");
  }
}

test("a task that is no longer active keeps its connections until it is gone, and they end at once then", async () => {
  const talks = [
    new Conversation(tasks[0].namespace, virtualAddress, 80),
    new Conversation(world.client, hosts[0].address, 8080),
  ];
  await activate(3);
  const fresh = [
    new Conversation(tasks[0].namespace, virtualAddress, 80),
    new Conversation(world.client, hosts[0].address, 8080),
  ];
  for (const talk of fresh) assert.equal(await talk.ask(), "task3");
  await activate(1, 2);
  for (const talk of fresh) assert.equal(await talk.ask(), "task3", "it goes on");
  assert.doesNotMatch((await ask(world.client, "tcp", hosts[0].address, 8080)).join(), /task3/);
  for (const network of ["web", "ingress"]) await world.tell(network, { kind: "remove-endpoint", taskId: "task3" });
  for (const talk of fresh) assert.equal(await talk.ask(), "it has ended");
  for (const network of ["web", "ingress"] as const) await world.tell(network, endpoint(network, 3, true));
  await activate(1, 2, 3);
  for (const talk of [...talks, ...fresh]) talk.close();
});

test("waiting for a task's connections ends with the last one, or at the limit", async () => {
  await activate(3);
  const talk = new Conversation(world.client, hosts[0].address, 8080);
  assert.equal(await talk.ask(), "task3");
  const options = {
    commands: hosts[2].commands,
    clock: systemClock,
    namespace: hosts[2].networks.get("ingress")!.namespace,
  };
  let isOver = false;
  const waiting = drained(options, ["10.0.0.13"], 60_000).then(() => {
    isOver = true;
  });
  await drained(options, ["10.0.0.13"], 300); // its limit passes
  assert.equal(isOver, false);
  talk.close();
  await waiting;
  await activate(1, 2, 3);
});

test("no request fails while the tasks behind a port are replaced under load", async () => {
  const load = spawn("nsenter", [
    `--net=/run/netns/${world.client}`,
    "wrk",
    "-t1",
    "-c8",
    "-d5s",
    "-H",
    "Connection: close",
    `http://${hosts[0].address}:8080/`,
  ]);
  let said = "";
  load.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(load, "close");
  let rounds = 0;
  while (load.exitCode === null) {
    for (const numbers of [[1, 2], [2, 3], [1, 3], [3], [1], [2], [1, 2, 3]]) await activate(...numbers);
    rounds++;
  }
  await ended;
  assert.ok(rounds > 1);
  assert.match(said, /Requests\/sec:/);
  assert.doesNotMatch(said, /Socket errors|Non-2xx/, said);
});

test("nothing is left of a service that is gone, and of the mesh without its network", async () => {
  for (const network of ["web", "ingress"]) {
    const gone = [1, 2, 3].map((number): Told => ({ kind: "remove-endpoint", taskId: `task${number}` }));
    await world.tell(network, { kind: "remove-service", serviceId: "service1" }, ...gone);
  }
  assert.deepEqual(await world.audit(), []);
  for (const { networks, commands } of hosts) {
    for (const { namespace } of networks.values()) {
      assert.doesNotMatch(
        await inside(namespace).run("nft", ["list table ip shoal"]),
        /service1|8080|10\.0\.[01]\.1\d/,
      );
      assert.doesNotMatch(await inside(namespace).run("ip", ["address", "show"]), /10\.0\.1\.5/);
      const flows = await inside(namespace).run("conntrack", ["-L"]);
      assert.doesNotMatch(flows, /src=10\.0\.[01]\.1\d /);
    }
    await (networks.get("ingress")!.balance as IngressMesh).remove();
    assert.doesNotMatch(await commands.run("nft", ["list ruleset"]), /shoal|SHOAL/i);
    assert.doesNotMatch(await commands.run("ip", ["link", "show"]), /shing0/);
  }
});
