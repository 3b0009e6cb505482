/**
 * Networks on three nodes, with the docker CLI: a stack of three services answers everywhere and sees its clients' own
 * addresses; names lead where they should and nowhere else; an encrypted network is encrypted; users' containers attach.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { run } from "../../src/playground/process.ts";
import { eventually } from "../../src/playground/wait.ts";
import { Cluster } from "./cluster.ts";
import { image } from "./harness.ts";
import { ask, askByUdp, askFrom, type Said, serverCommand, serverMounts, serverVolumes } from "./network-tools.ts";

const cluster = new Cluster("network", "10.95.0");
const nodes = [1, 2, 3];
/** The machine's own address in the playground's network. */
const outside = "10.95.0.254";

before(async () => {
  await cluster.start(3, 1);
  await cluster.playground.formSwarm();
});

after(() => cluster.stop());

/** A front end that asks an API that asks a store: two networks, and only the API is on both. */
function chain(published: number, publishedUdp: number): object {
  const server = { image, command: serverCommand, volumes: serverVolumes, stop_grace_period: "5s" };
  return {
    version: "3.8",
    services: {
      front: {
        ...server,
        environment: { NEXT: "http://api/chain" },
        networks: ["outer"],
        ports: [`${published}:80`, `${publishedUdp}:9000/udp`],
        deploy: { replicas: 3 },
      },
      api: {
        ...server,
        environment: { NEXT: "http://store/" },
        networks: ["outer", "inner"],
        deploy: { replicas: 2 },
      },
      store: { ...server, networks: { inner: { aliases: ["db"] } } },
    },
    networks: { outer: {}, inner: {} },
  };
}

async function deploy(stack: string, compose: object): Promise<string> {
  return await cluster
    .docker(1)
    .ok(["stack", "deploy", "--compose-file", "-", stack], { input: JSON.stringify(compose) });
}

async function replicas(stack: string): Promise<string[]> {
  return (await cluster.docker(1).lines(["stack", "services", "--format", "{{.Name}} {{.Replicas}}", stack])).sort();
}

async function stackRuns(stack: string): Promise<void> {
  const wanted = [`${stack}_api 2/2`, `${stack}_front 3/3`, `${stack}_store 1/1`].join();
  await cluster.until(`${stack} runs`, async () => (await replicas(stack)).join() === wanted);
}

/** What a name leads to in a container of the service, in order; none where it is unknown. */
async function lookup(service: string, name: string): Promise<string[]> {
  const [place] = await cluster.containers(service);
  assert.ok(place, `${service} runs nowhere`);
  const engine = cluster.docker(Number(place.node.replace("node-", ""))).engine;
  const output = await engine.run(["exec", place.container, "nslookup", "-type=a", name]);
  const [, answer = ""] = output.stdout.split(/\n\s*\n/);
  return [...`${answer}`.matchAll(/^Address(?: \d+)?: (\d+\.\d+\.\d+\.\d+)/gm)]
    .map(([, address = ""]) => address)
    .sort();
}

interface NetworkView {
  readonly Id: string;
  readonly IPAM: { readonly Config: readonly { readonly Subnet: string; readonly Gateway: string }[] };
}

test("a stack answers on the published port of every node, from everywhere, and sees its clients' addresses", async () => {
  await deploy("shop", chain(8080, 9000));
  await stackRuns("shop");
  for (const index of nodes) {
    const { address } = cluster.layout(index);
    const servers = new Set<string>();
    await cluster.until(`all three answer on node-${index}`, async () => {
      const { server, from } = await ask(`http://${address}:8080/`);
      assert.equal(from, outside, "the server sees the client's own address");
      return servers.add(server).size === 3;
    });
    const said = await ask(`http://${address}:8080/chain`);
    assert.ok(said.next?.next?.server, JSON.stringify(said));
    const byUdp = await askByUdp(address, 9000);
    assert.equal(byUdp.from, outside, "and over UDP too");
    const local = await askFrom(cluster.layout(index), "http://127.0.0.1:8080/");
    assert.ok(local.server);
    const other = cluster.layout((index % 3) + 1).address;
    assert.equal((await askFrom(cluster.layout(index), `http://${other}:8080/`)).from, address);
    // From a container that is on none of these networks, and from one that is behind the port itself.
    const lone = ["run", "--rm", image, "wget", "-q", "-O", "-", `http://${address}:8080/`];
    assert.ok((JSON.parse(await cluster.docker(index).ok(lone)) as Said).server);
  }
  const [front] = await cluster.containers("shop_front");
  const engine = cluster.docker(Number(front!.node.replace("node-", ""))).engine;
  for (const index of nodes) {
    const url = `http://${cluster.layout(index).address}:8080/`;
    const answer = await engine.ok(["exec", front!.container, "wget", "-q", "-O", "-", url]);
    assert.ok((JSON.parse(answer) as Said).server, `from a task behind the port, by node-${index}`);
  }
});

test("names lead to virtual addresses, tasks and aliases; networks without a common service know nothing of each other", async () => {
  await deploy("other", chain(8081, 9001));
  await stackRuns("other");
  const inner = await cluster.api(1).get<NetworkView>("/networks/shop_inner");
  const { Subnet: subnet } = inner.IPAM.Config[0]!;
  const isInside = (address: string) => address.startsWith(subnet.split(".").slice(0, 3).join("."));
  const [virtual, ...more] = await lookup("shop_api", "store");
  assert.ok(virtual && isInside(virtual) && more.length === 0, `store is ${virtual} in ${subnet}`);
  assert.deepEqual(await lookup("shop_api", "db"), [virtual]);
  assert.deepEqual(await lookup("shop_api", "shop_store"), [virtual]);
  const tasks = await lookup("shop_api", "tasks.store");
  assert.equal(tasks.length, 1);
  assert.notEqual(tasks[0], virtual);
  assert.equal((await lookup("shop_store", "tasks.api")).length, 2);
  assert.equal((await lookup("shop_api", "tasks.front")).length, 3);
  assert.deepEqual(await lookup("shop_front", "store"), [], "front and store share no network");
  assert.deepEqual(await lookup("shop_front", "nonsense"), []);
  assert.notDeepEqual(await lookup("other_api", "store"), [virtual], "another stack's store is another one");
  const said = await ask(`http://${cluster.layout(1).address}:8081/chain`);
  const ours = (await cluster.containers("other_store")).map(({ container }) => container.slice(0, 12));
  assert.deepEqual([said.next?.next?.server], ours);
});

test("a stack that is deployed again unchanged restarts nothing; its removal takes everything away", async () => {
  const before = (await cluster.containers("other_front")).map(({ container }) => container).sort();
  await deploy("other", chain(8081, 9001));
  await stackRuns("other");
  assert.deepEqual((await cluster.containers("other_front")).map(({ container }) => container).sort(), before);
  await cluster.docker(1).ok(["stack", "rm", "other"]);
  await cluster.until("nothing of the stack is left", async () => {
    const left = await cluster.docker(1).lines(["network", "ls", "--quiet", "--filter", "name=other_"]);
    return left.length === 0 && (await cluster.containers("other_front")).length === 0;
  });
  assert.doesNotMatch(await cluster.docker(1).ok(["stack", "ls", "--format", "{{.Name}}"]), /other/);
});

test("a service with --endpoint-mode dnsrr has no virtual address: its name is its tasks", async () => {
  const create = ["service", "create", "--detach", "--quiet", "--network", "shop_inner", "--endpoint-mode", "dnsrr"];
  await cluster.docker(1).ok([...create, "--name", "round", "--replicas", "2", image]);
  await cluster.running("round", 2);
  await cluster.until("both are found", async () => (await lookup("shop_api", "round")).length === 2);
  assert.deepEqual(await lookup("shop_api", "round"), await lookup("shop_api", "tasks.round"));
  await cluster.docker(1).ok(["service", "rm", "round"]);
  await cluster.until("its name is gone", async () => (await lookup("shop_api", "round")).length === 0);
});

test("a user's container on an attachable network reaches services by name, on any node; on another it is refused", async () => {
  await cluster.docker(1).ok(["network", "create", "--driver", "overlay", "--attachable", "open"]);
  const create = ["service", "create", "--detach", "--quiet", "--network", "open", "--name", "web"];
  await cluster.docker(1).ok([...create, ...serverMounts, image, ...serverCommand]);
  await cluster.running("web", 1);
  for (const index of nodes) {
    const wget = ["run", "--rm", "--network", "open", image, "wget", "-q", "-O", "-", "http://web/"];
    const said = JSON.parse(await cluster.docker(index).ok(wget)) as Said;
    assert.ok(said.server, `from node-${index}`);
    const refused = await cluster.docker(index).refused(["run", "--rm", "--network", "shop_inner", image, "true"]);
    assert.match(refused, /not manually attachable/);
  }
  await cluster.docker(1).ok(["service", "rm", "web"]);
  await eventually({ what: "the network can go", limitMs: 30_000 }, async () => {
    const { status } = await cluster.docker(1).run(["network", "rm", "open"]);
    return status === 0;
  });
});

test("an encrypted network carries nothing between nodes that can be read", async () => {
  await cluster.docker(1).ok(["network", "create", "--driver", "overlay", "--opt", "encrypted", "secret"]);
  const create = ["service", "create", "--detach", "--quiet", "--network", "secret", "--constraint"];
  await cluster
    .docker(1)
    .ok([...create, "node.hostname==node-2", "--name", "far", ...serverMounts, image, ...serverCommand]);
  await cluster.docker(1).ok([...create, "node.hostname==node-3", "--name", "near", image]);
  await cluster.running("far", 1);
  const [near] = await cluster.running("near", 1);
  const { namespace } = cluster.layout(2);
  const capture = spawn(
    "nsenter",
    [
      `--net=/run/netns/${namespace}`,
      "tcpdump",
      "--immediate-mode",
      "-l",
      "-A",
      "-n",
      "-i",
      "any",
      "udp",
      "and",
      "not",
      "port",
      "53",
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const chunks: Buffer[] = [];
  capture.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  const listening = new Promise<void>((resolve) => {
    capture.stderr.on("data", (chunk: Buffer) => chunk.includes("listening on") && resolve());
  });
  try {
    await listening;
    const inside = cluster.docker(3).engine;
    const wget = ["exec", near!.container, "wget", "-q", "-O", "-", "http://far/find-this-text"];
    const said = await cluster.until("far answers", async () => {
      const { status, stdout } = await inside.run(wget);
      return status === 0 && (JSON.parse(stdout) as Said);
    });
    assert.ok(said.server);
    const seen = () => Buffer.concat(chunks).toString();
    await eventually({ what: "encrypted packets", limitMs: 10_000 }, () => /\.51822 > .*\.51822/.test(seen()));
    // What the task's own interface shows is inside of the node; between the nodes there is only WireGuard.
    const between = seen()
      .split("\n")
      .filter((line) => / (?:eth0|any) /.test(line) && /\.4789: /.test(line));
    assert.deepEqual(between, []);
    assert.doesNotMatch(seen(), /find-this-text/);
  } finally {
    capture.kill();
  }
  await cluster.docker(1).ok(["service", "rm", "far", "near"]);
});

test("when all is removed no node keeps anything of it", async () => {
  await cluster.docker(1).ok(["stack", "rm", "shop"]);
  await eventually({ what: "the networks can go", limitMs: 60_000 }, async () => {
    await cluster.docker(1).run(["network", "rm", "secret"]);
    const left = await cluster.docker(1).lines(["network", "ls", "--quiet", "--filter", "driver=overlay"]);
    return left.length === 1; // the ingress network
  });
  const { Id: ingress } = await cluster.api(1).get<NetworkView>("/networks/ingress");
  const own = `shoal-${ingress.slice(0, 12)}`;
  for (const index of nodes) {
    await cluster.until(`node-${index} is clean`, async () => {
      const machine = cluster.playground.machine(`node-${index}`).find("machine");
      const namespaces = await run("nsenter", ["--target", String(machine?.pid), "--mount", "ls", "/run/netns"]);
      const links = await run("nsenter", [
        `--net=/run/netns/${cluster.layout(index).namespace}`,
        "ip",
        "-brief",
        "link",
      ]);
      const leftVeths = links.split("\n").filter((line) => /^v[pc]-/.test(line));
      return (
        namespaces.split("\n").filter((name) => name.startsWith("shoal-") && name !== own).length + leftVeths.length ===
        0
      );
    });
  }
});
