/**
 * Users' own containers on networks of the swarm, with the docker CLI, on a manager and on a worker: they get addresses
 * of the swarm, find its services and are found, keep their addresses over restarts, and give them back.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { type Docker, image } from "./harness.ts";

const cluster = new Cluster("attach", "10.98.0");
const nodes = [1, 2];
const forever = ["sleep", "100000"];

before(async () => {
  await cluster.start(2, 1);
  await cluster.docker(1).ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  await cluster.docker(2).ok(["swarm", "join", "--token", await cluster.token("worker"), cluster.managerAddress()]);
  await cluster.nodeBecomes(2, "ready");
  await create("shared", "--attachable", "--subnet", "10.20.0.0/24");
  await create("closed");
  await cluster
    .docker(1)
    .ok(["service", "create", "--detach", "--quiet", "--name", "web", "--network", "shared", image]);
  await cluster.running("web", 1);
});

after(() => cluster.stop());

function create(name: string, ...options: string[]): Promise<string> {
  return cluster.docker(1).ok(["network", "create", "--driver", "overlay", ...options, name]);
}

/** A container of a user that does nothing. */
function start(docker: Docker, name: string, ...options: string[]): Promise<string> {
  return docker.ok(["run", "--detach", "--name", name, "--stop-timeout", "1", ...options, image, ...forever]);
}

interface ContainerView {
  readonly HostConfig: { readonly NetworkMode: string };
  readonly NetworkSettings: { readonly Networks: Readonly<Record<string, { readonly IPAddress: string }>> };
}

async function inspect(docker: Docker, name: string): Promise<ContainerView> {
  const [found] = await docker.inspect<ContainerView[]>(name);
  assert.ok(found);
  return found;
}

/** On the network, as the Engine has it. */
async function addressOf(docker: Docker, name: string, network = "shared"): Promise<string> {
  const { NetworkSettings } = await inspect(docker, name);
  const { IPAddress = "" } = NetworkSettings.Networks[network] ?? {};
  return IPAddress;
}

/** What the service answers, found by its name. (The image's static wget does not work; nslookup and nc do.) */
const askWeb = [
  "sh",
  "-c",
  "address=$(nslookup -type=a web | sed -n '4,$s/^Address: //p') && printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $address 80",
];

function askFrom(docker: Docker, name: string): Promise<string> {
  return docker.ok(["exec", name, ...askWeb]);
}

/** Waits: names come to a node a moment after the container that they are of. */
function finds(docker: Docker, name: string, wanted: string, address: string): Promise<boolean> {
  return cluster.until(`${name} finds ${wanted} at ${address}`, async () => {
    const { stdout } = await docker.run(["exec", name, "nslookup", "-type=a", wanted]);
    return stdout
      .split(/\n\s*\n/)
      .slice(1)
      .join()
      .includes(`Address: ${address}`);
  });
}

/** The network goes at once: nothing holds an address of it. */
async function isFree(network: string): Promise<void> {
  assert.equal(await cluster.docker(1).ok(["network", "rm", network]), network);
}

test("docker run reaches a service by its name, on a manager and on a worker, and leaves nothing behind", async () => {
  await create("once", "--attachable");
  for (const index of nodes) {
    const docker = cluster.docker(index);
    const said = await docker.ok(["run", "--rm", "--network", "shared", image, ...askWeb]);
    assert.match(said, /Hello from a service/);
    await docker.ok(["run", "--rm", "--network", "once", image, "true"]);
  }
  await cluster.until("the address of a container that was removed by its own end is free", async () => {
    const { status } = await cluster.docker(1).run(["network", "rm", "once"]);
    return status === 0;
  });
});

test("a container is shown on the swarm's network, with an address of its subnet", async () => {
  const docker = cluster.docker(2);
  const id = await start(docker, "shown", "--network", "shared");
  const { HostConfig, NetworkSettings } = await inspect(docker, "shown");
  assert.equal(HostConfig.NetworkMode, "shared");
  assert.deepEqual(Object.keys(NetworkSettings.Networks), ["shared"]);
  assert.match(NetworkSettings.Networks.shared?.IPAddress ?? "", /^10\.20\.0\.\d+$/);
  const [network] = await docker.inspect<{ Containers: Record<string, { Name: string }> }[]>(
    "--type",
    "network",
    "shared",
  );
  assert.equal(network?.Containers[id]?.Name, "shown");
  assert.deepEqual(
    await docker.lines(["ps", "--filter", "network=shared", "--filter", "name=shown", "--format", "{{.Names}}"]),
    ["shown"],
  );
  await docker.ok(["rm", "--force", "shown"]);
});

test("names and aliases lead from one node to the other, both ways, and end with the container", async () => {
  const [manager, worker] = [cluster.docker(1), cluster.docker(2)];
  await start(manager, "one", "--network", "shared", "--network-alias", "first");
  await start(worker, "two", "--network", "shared");
  const [one, two] = [await addressOf(manager, "one"), await addressOf(worker, "two")];
  assert.notEqual(one, two);
  await finds(worker, "two", "first", one);
  await finds(worker, "two", "one", one);
  await finds(manager, "one", "two", two);
  await manager.ok(["exec", "one", "ping", "-c", "1", "-W", "5", two]);
  await worker.ok(["rm", "--force", "two"]);
  await cluster.until("the name is gone", async () => {
    const { status } = await manager.run(["exec", "one", "nslookup", "-type=a", "two"]);
    return status !== 0;
  });
  await manager.ok(["rm", "--force", "one"]);
});

test("--ip is the container's, and nobody else's meanwhile", async () => {
  const [manager, worker] = [cluster.docker(1), cluster.docker(2)];
  await start(manager, "fixed", "--network", "shared", "--ip", "10.20.0.77");
  assert.equal(await addressOf(manager, "fixed"), "10.20.0.77");
  const refused = await worker.refused(["run", "--rm", "--network", "shared", "--ip", "10.20.0.77", image, "true"]);
  assert.match(refused, /Could not attach to network shared: .*10\.20\.0\.77/);
  await manager.ok(["rm", "--force", "fixed"]);
  await worker.ok(["run", "--rm", "--network", "shared", "--ip", "10.20.0.77", image, "true"]);
});

test("a network that is not attachable refuses users' containers in Swarm's words; one that nobody knows, the Engine", async () => {
  const words =
    "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not manually attachable";
  for (const index of nodes) {
    const docker = cluster.docker(index);
    const output = await docker.run(["run", "--rm", "--name", "refused", "--network", "closed", image, "true"]);
    assert.equal(output.status, 125);
    assert.ok(output.stderr.includes(words), output.stderr);
    assert.deepEqual(await docker.lines(["ps", "--all", "--filter", "name=refused", "--quiet"]), []);
    assert.match(
      await docker.refused(["run", "--rm", "--network", "nowhere", image, "true"]),
      /network nowhere not found/,
    );
  }
  await start(cluster.docker(2), "outsider");
  assert.ok((await cluster.docker(2).refused(["network", "connect", "closed", "outsider"])).includes(words));
  await cluster.docker(2).ok(["rm", "--force", "outsider"]);
});

test("connect and disconnect a container that runs: it finds services, and is found, also after its restart", async () => {
  const docker = cluster.docker(2);
  await start(docker, "late");
  await create("passing", "--attachable");
  await docker.ok(["network", "connect", "--alias", "guest", "shared", "late"]);
  await docker.ok(["network", "connect", "passing", "late"]);
  assert.match(await askFrom(docker, "late"), /Hello from a service/);
  await start(cluster.docker(1), "watcher", "--network", "shared");
  await finds(cluster.docker(1), "watcher", "guest", await addressOf(docker, "late"));
  assert.match(
    await docker.refused(["network", "connect", "shared", "late"]),
    /late is already attached to network shared/,
  );
  await docker.ok(["restart", "--time", "0", "late"]);
  await cluster.until("it finds services also after its restart", async () => {
    const { stdout } = await docker.run(["exec", "late", ...askWeb]);
    return /Hello/.test(stdout);
  });
  await docker.ok(["network", "disconnect", "passing", "late"]);
  await isFree("passing");
  assert.equal(await addressOf(docker, "late", "passing"), "");
  await docker.ok(["rm", "--force", "late"]);
  await cluster.docker(1).ok(["rm", "--force", "watcher"]);
});

test("an address stays over a stop and a start, and goes with the container, also with one that never ran", async () => {
  const docker = cluster.docker(2);
  await create("kept", "--attachable");
  await start(docker, "box", "--network", "kept");
  const address = await addressOf(docker, "box", "kept");
  await docker.ok(["stop", "box"]);
  const next = await docker.ok(["run", "--rm", "--network", "kept", image, "hostname", "-i"]);
  assert.notEqual(next, address);
  await docker.ok(["start", "box"]);
  assert.equal(await addressOf(docker, "box", "kept"), address);
  await docker.ok(["rm", "--force", "box"]);
  await docker.ok(["create", "--name", "never", "--network", "kept", image]);
  assert.match(await cluster.docker(1).refused(["network", "rm", "kept"]), /in use/);
  await docker.ok(["rm", "never"]);
  await isFree("kept");
});

test("a daemon that was killed: containers go on with their addresses, and what was removed meanwhile is free", async () => {
  const docker = cluster.docker(2);
  const node = cluster.playground.machine("node-2");
  await create("outlived", "--attachable");
  await start(docker, "stays", "--network", "shared", "--network-alias", "steady");
  await start(docker, "goes", "--network", "outlived");
  const address = await addressOf(docker, "stays");
  await node.kill("daemon");
  await docker.engine.ok(["rm", "--force", "goes"], { limitMs: 90_000 });
  await node.startDaemon();
  await cluster.nodeBecomes(2, "ready");
  await cluster.until("the removed container's address is free", async () => {
    const { status } = await cluster.docker(1).run(["network", "rm", "outlived"]);
    return status === 0;
  });
  await start(cluster.docker(1), "asker", "--network", "shared");
  await finds(cluster.docker(1), "asker", "steady", address);
  assert.match(await askFrom(docker, "stays"), /Hello from a service/);
  await cluster.docker(1).ok(["rm", "--force", "asker"]);
  await docker.ok(["rm", "--force", "stays"]);
});

test("at the end nothing is held: the swarm's networks go at once", async () => {
  await cluster.docker(1).ok(["service", "rm", "web"]);
  await cluster.until("the service's addresses are free", async () => (await cluster.containers("web")).length === 0);
  await cluster.until("the network goes", async () => {
    const { status } = await cluster.docker(1).run(["network", "rm", "shared"]);
    return status === 0;
  });
  await isFree("closed");
});
