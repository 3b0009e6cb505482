/**
 * A stock Docker Engine as a worker of our swarm: the distribution's `docker swarm join` on a node whose Shoal daemon
 * does not run, so that nothing but swarmkit's own protocol can have brought it in. The steps build on each other.
 */
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { Docker } from "./harness.ts";

const cluster = new Cluster("stock", "10.85.0");
let manager: Docker;
const image = "shoal/sample:latest";
const onStock = ["--detach", "--quiet", "--constraint", "node.hostname==node-2"];
/** The stock Engine's own docker: what it says of itself, and how it is told to join. */
const stock = new Docker("/usr/bin/docker", cluster.layout(2), cluster.layout(2).engineSocket);

before(async () => {
  await cluster.start(2);
  manager = cluster.docker(1);
  await cluster.playground.kill("node-2", "daemon");
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
});

after(() => cluster.stop());

function joinStock(token: string, address = cluster.managerAddress()): Promise<string> {
  return stock.ok(["swarm", "join", "--advertise-addr", cluster.layout(2).address, "--token", token, address]);
}

test("docker swarm join on the stock Engine", async () => {
  assert.match(await joinStock(await cluster.token("worker")), /This node joined a swarm as a worker/);
  const node = await cluster.nodeBecomes(2, "ready");
  assert.equal(node.Spec.Role, "worker");
  assert.equal(node.Description.Engine.EngineVersion, await stock.ok(["info", "--format", "{{.ServerVersion}}"]));
  assert.equal(
    await stock.ok(["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.NodeID}}"]),
    `active ${node.ID}`,
  );
});

test("it runs replicas, and keeps them when the service grows", async () => {
  await manager.ok(["service", "create", ...onStock, "--name", "web", "--replicas", "2", image]);
  const before = await cluster.running("web", 2);
  await manager.ok(["service", "scale", "--detach", "web=4"]);
  const after = await cluster.running("web", 4, (placed) => placed.every(({ node }) => node === "node-2"));
  for (const { container } of before) assert.ok(after.some((one) => one.container === container));
});

test("service logs has its lines, each once", async () => {
  const talk = ["sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; exec sleep 1000"];
  await manager.ok(["service", "create", ...onStock, "--stop-grace-period", "1s", "--name", "talk", image, ...talk]);
  await cluster.running("talk", 1);
  const { stdout, stderr } = await cluster.until("all lines are there", async () => {
    const output = await manager.run(["service", "logs", "--raw", "talk"]);
    return output.stdout.includes("line 5") && output.stderr.includes("wrong") && output;
  });
  assert.deepEqual(
    stdout.trim().split("\n"),
    [1, 2, 3, 4, 5].map((number) => `line ${number}`),
  );
  assert.equal(stderr.trim(), "wrong");
  await using following = manager.follow(["service", "logs", "--follow", "--tail", "2", "--raw", "talk"]);
  await following.until("the last two lines", (lines) => lines.length >= 1 && lines.includes("line 5"));
  assert.ok(following.running);
  await manager.ok(["service", "rm", "talk"]);
});

test("a task is running when its health check says so, and not before", async () => {
  const health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1000"];
  await manager.ok(["service", "create", ...onStock, ...health, "--name", "well", image]);
  const [task] = await cluster.until("the task is starting, its container runs", async () => {
    const tasks = await cluster.api(1).tasks("well");
    return tasks[0]?.Status.State === "starting" && (await cluster.containers("well")).length === 1 && tasks;
  });
  const container = (await cluster.containers("well"))[0]?.container ?? "";
  assert.equal((await cluster.api(1).tasks("well"))[0]?.Status.State, "starting");
  await stock.ok(["exec", container, "touch", "/tmp/well"]);
  const [placed] = await cluster.running("well", 1);
  assert.deepEqual([placed?.task, placed?.container], [task?.ID, container]);
  await manager.ok(["service", "rm", "well"]);
});

test("a host-mode port answers on its address", async () => {
  const publish = "published=8095,target=80,mode=host";
  await manager.ok(["service", "create", ...onStock, "--publish", publish, "--name", "page", image]);
  await cluster.running("page", 1);
  const url = `http://${cluster.layout(2).address}:8095/`;
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
  assert.match(await response.text(), /Hello from a service on Shoal/);
  await manager.ok(["service", "rm", "page"]);
});

test("it has no part in our overlay networks and the mesh: such tasks are not placed there, and say why", async () => {
  await manager.ok(["network", "create", "--driver", "overlay", "blue"]);
  await manager.ok(["service", "create", ...onStock, "--network", "blue", "--name", "joined", image]);
  await manager.ok(["service", "create", ...onStock, "--publish", "8096:80", "--name", "meshed", image]);
  const reason = /no suitable node \(.*overlay networks of this swarm not available on 1 node/;
  for (const name of ["joined", "meshed"]) {
    await cluster.until(`the task of ${name} says why it waits`, async () => {
      const [said = ""] = await manager.lines([
        "service",
        "ps",
        "--no-trunc",
        "--format",
        "{{.CurrentState}} {{.Error}}",
        name,
      ]);
      return said.startsWith("Pending") && reason.test(said);
    });
    assert.deepEqual(await cluster.containers(name), []);
  }
  await manager.ok(["service", "update", "--detach", "--quiet", "--constraint-rm", "node.hostname==node-2", "joined"]);
  await cluster.running("joined", 1, ([one]) => one?.node === "node-1");
  assert.equal((await cluster.nodes()).filter(({ Status }) => Status.State === "ready").length, 2);
  await manager.ok(["service", "rm", "joined", "meshed"]);
  await manager.ok(["network", "rm", "blue"]);
});

test("a failure and a missing image are told in the Engine's words", async () => {
  const once = [...onStock, "--restart-condition", "none"];
  await manager.ok(["service", "create", ...once, "--name", "fails", image, "sh", "-c", "exit 3"]);
  await manager.ok(["service", "create", ...once, "--name", "lost", "shoal-test/nowhere:1"]);
  const ended = (service: string, state: string) =>
    cluster.until(`the task of ${service} is ${state}`, async () => {
      const [task] = await cluster.api(1).tasks(service);
      return task?.Status.State === state && task.Status;
    });
  assert.match((await ended("fails", "failed")).Err ?? "", /non-zero exit \(3\)/);
  assert.match((await ended("lost", "rejected")).Err ?? "", /No such image: shoal-test\/nowhere:1/);
  await manager.ok(["service", "rm", "fails", "lost"]);
});

test("a job completes on it, slot by slot, and is run again", async () => {
  const mode = ["--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2"];
  await manager.ok(["service", "create", ...onStock, ...mode, "--name", "batch", image, "true"]);
  const completed = (count: number) =>
    cluster.until(`${count} tasks have completed`, async () => {
      const found = (await cluster.api(1).tasks("batch")).filter(({ Status }) => Status.State === "complete");
      return found.length === count && found;
    });
  const slots = (await completed(3)).map(({ Slot = 0 }) => Slot);
  assert.deepEqual(slots.sort(), [0, 1, 2]);
  await manager.ok(["service", "update", "--detach", "--force", "batch"]);
  await completed(6);
  await manager.ok(["service", "rm", "batch"]);
});

/** Kills the manager's daemon, starts it again; what the stock Engine runs must be the same as before, untouched. */
async function survivesRestart(): Promise<void> {
  const before = await cluster.running("web", 4);
  await cluster.playground.kill("node-1", "daemon");
  await cluster.playground.start("node-1");
  await cluster.nodeBecomes(2, "ready");
  // Something new goes through, so the session is there again and not only remembered.
  await manager.ok(["service", "create", ...onStock, "--name", "fresh", image]);
  await cluster.running("fresh", 1);
  assert.deepEqual(await cluster.running("web", 4), before);
  await manager.ok(["service", "rm", "fresh"]);
  await cluster.until("fresh is gone", async () => (await cluster.containers("fresh")).length === 0);
}

test("it survives kill -9 of its manager's daemon", survivesRestart);

/** The certificate and the root that the stock Engine has on its disk. */
function certificatesOnDisk(): { readonly node: X509Certificate; readonly root: X509Certificate } {
  const directory = `${cluster.layout(2).dataDir}/engine/swarm/certificates`;
  const read = (name: string) => new X509Certificate(readFileSync(`${directory}/${name}`));
  return { node: read("swarm-node.crt"), root: read("swarm-root-ca.crt") };
}

test("the root is rotated: it renews its certificate, and then still reaches a manager that was restarted", async () => {
  const before = certificatesOnDisk();
  await manager.ok(["swarm", "ca", "--rotate", "--detach", "--quiet"]);
  await cluster.until("the rotation is over", async () => {
    const swarm = await cluster.api(1).get<{ RootRotationInProgress: boolean }>("/swarm");
    const { node, root } = certificatesOnDisk();
    const isNew = root.fingerprint256 !== before.root.fingerprint256;
    return !swarm.RootRotationInProgress && isNew && node.serialNumber !== before.node.serialNumber;
  });
  const { node, root } = certificatesOnDisk();
  assert.ok(node.verify(root.publicKey));
  // From a renewal on, a stock agent dials without ALPN, which node:http2 by itself refuses: nothing would be seen of it
  // until the next connection.
  await survivesRestart();
  await survivesRestart();
});

test("restarted itself, its tasks are replaced or adopted, and none is there twice", async () => {
  await cluster.playground.kill("node-2", "engine");
  await cluster.playground.machine("node-2").startEngine();
  await cluster.nodeBecomes(2, "ready");
  await cluster.running("web", 4);
});

test("it cannot be promoted: its Engine does not know our managers' store", async () => {
  assert.match(
    await manager.refused(["node", "promote", "node-2"]),
    /runs a stock Docker Engine, which cannot be a manager/,
  );
  assert.equal((await cluster.node(2)).Spec.Role, "worker");
});

test("drained, it gives its tasks up; active again, it takes new ones", async () => {
  await manager.ok(["service", "update", "--detach", "--quiet", "--constraint-rm", "node.hostname==node-2", "web"]);
  await manager.ok(["node", "update", "--availability", "drain", "node-2"]);
  await cluster.running("web", 4, (placed) => placed.every(({ node }) => node === "node-1"));
  await manager.ok(["node", "update", "--availability", "active", "node-2"]);
  await manager.ok(["service", "create", ...onStock, "--name", "again", image]);
  await cluster.running("again", 1, ([one]) => one?.node === "node-2");
});

test("it leaves as it came, and can join again", async () => {
  assert.match(await stock.ok(["swarm", "leave"]), /Node left the swarm/);
  const { ID } = await cluster.nodeBecomes(2, "down");
  await manager.ok(["node", "rm", ID]);
  assert.match(await joinStock(await cluster.token("worker")), /This node joined a swarm as a worker/);
  assert.notEqual((await cluster.nodeBecomes(2, "ready")).ID, ID);
  await cluster.running("again", 1, ([one]) => one?.node === "node-2");
});

test("a removed stock node is refused from then on", async () => {
  const { ID } = await cluster.node(2);
  await manager.ok(["node", "rm", "--force", ID]);
  await cluster.until("its tasks are gone from the swarm", async () => {
    const tasks = await cluster.api(1).tasks();
    return !tasks.some(({ NodeID, DesiredState }) => NodeID === ID && DesiredState === "running");
  });
  assert.equal((await cluster.nodes()).filter(({ Description }) => Description.Hostname === "node-2").length, 0);
  await stock.ok(["swarm", "leave", "--force"]);
});
