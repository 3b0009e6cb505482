/**
 * The mesh under load, on three managers: a client outside asks through one node, each time over a connection of its
 * own, while replicas come and go, are updated in each order, a node is drained, agents and managers restart, and
 * machines die. No request may fail but those that are under way on what is killed, and those that come to a dead node's
 * tasks before the node is known to be down.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { image } from "./harness.ts";
import { assertNoFailures, Load } from "./load.ts";
import { serverCommand, serverMounts } from "./network-tools.ts";

const cluster = new Cluster("netload", "10.97.0");
const nodes = [1, 2, 3];
const port = 8080;

before(async () => {
  await cluster.start(3, 3);
  await cluster.playground.formSwarm();
  const create = [
    "service",
    "create",
    "--detach",
    "--quiet",
    "--name",
    "web",
    "--replicas",
    "3",
    "--restart-delay",
    "0s",
  ];
  const updates = ["--update-parallelism", "1", "--stop-grace-period", "5s", "--publish", `${port}:80`];
  // Without a check of its health a server counts from its start on, and refuses until it listens (which takes some
  // seconds on a loaded machine).
  const health = ["--health-cmd", "wget -q -O /dev/null http://127.0.0.1/"];
  health.push("--health-interval", "300ms", "--health-retries", "40");
  await cluster.docker(1).ok([...create, ...updates, ...health, ...serverMounts, image, ...serverCommand]);
  await cluster.running("web", 3);
});

after(() => cluster.stop());

/** Puts load on a node while something happens, and lets it go on for a moment after that. */
async function underLoad(happening: (load: Load) => Promise<void>, entry = 1): Promise<Load> {
  const load = new Load(`http://${cluster.layout(entry).address}:${port}/`);
  try {
    await cluster.until("the load is answered", async () => load.answered > 50);
    await happening(load);
    const answered = load.answered;
    await cluster.until("it is answered still", async () => load.answered > answered + 100);
  } finally {
    await load.stop();
  }
  return load;
}

async function updated(args: readonly string[]): Promise<void> {
  await cluster.docker(1).ok(["service", "update", "--detach", "--quiet", ...args, "web"]);
  await cluster.until(`the update with ${args.join(" ")} is complete`, async () => {
    const [service] = (await cluster.api(1).services()).filter(({ Spec }) => Spec.Name === "web");
    const { UpdateStatus: status } = service as { UpdateStatus?: { State: string } };
    return status?.State === "completed" || status === undefined;
  });
}

test("replicas come and go", async () => {
  const load = await underLoad(async () => {
    await cluster.docker(1).ok(["service", "scale", "--detach", "web=15"]);
    await cluster.running("web", 15);
    await cluster.docker(1).ok(["service", "scale", "--detach", "web=3"]);
    await cluster.running("web", 3);
  });
  assertNoFailures(load, "scaling");
});

for (const order of ["start-first", "stop-first"] as const) {
  test(`a rolling update, ${order}`, async () => {
    const before = await cluster.running("web", 3);
    const load = await underLoad(() => updated(["--force", "--update-order", order]));
    assertNoFailures(load, order);
    const now = await cluster.running("web", 3);
    assert.ok(
      now.every(({ container }) => !before.some((one) => one.container === container)),
      "all were replaced",
    );
  });
}

test("a node is drained, and comes back", async () => {
  const load = await underLoad(async () => {
    await cluster.docker(1).ok(["node", "update", "--availability", "drain", "node-3"]);
    await cluster.running("web", 3, (placed) => placed.every(({ node }) => node !== "node-3"));
    await cluster.docker(1).ok(["node", "update", "--availability", "active", "node-3"]);
    await updated(["--force", "--update-order", "start-first"]);
  });
  assertNoFailures(load, "draining");
});

test("a daemon restarts, and one is killed: nothing of the data plane is touched", async () => {
  const load = await underLoad(async () => {
    const machine = cluster.playground.machine("node-3");
    await machine.stopDaemon();
    await machine.startDaemon();
    await cluster.playground.kill("node-2", "daemon");
    await cluster.playground.start("node-2");
    for (const index of nodes) await cluster.nodeBecomes(index, "ready");
  });
  assertNoFailures(load, "restarts");
  await cluster.running("web", 3);
});

test("the leader's machine dies: what fails was on it, and nothing fails once the node is down", async () => {
  const leading = (await cluster.nodes()).find(({ ManagerStatus }) => ManagerStatus?.Leader);
  assert.ok(leading, "a manager leads");
  const victim = leading.Description.Hostname;
  const entry = nodes.find((index) => `node-${index}` !== victim)!;
  cluster.asked = entry;
  let downAt = Number.POSITIVE_INFINITY;
  const load = await underLoad(async () => {
    await cluster.playground.kill(victim);
    await cluster.nodeBecomes(Number(victim.replace("node-", "")), "down");
    downAt = performance.now();
    await cluster.running("web", 3, (placed) => placed.every(({ node }) => node !== victim));
  }, entry);
  const late = load.failures.filter(({ sentAt }) => sentAt > downAt + 1_000);
  assert.deepEqual(late, [], "nothing fails once the node is down");
  await cluster.playground.start(victim);
  for (const index of nodes) await cluster.nodeBecomes(index, "ready");
});
