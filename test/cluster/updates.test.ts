/**
 * Updates that fail, on three nodes under load: the service goes back to what it was by itself, or stops where Swarm
 * stops and says so, and every request through the mesh is answered meanwhile.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { image } from "./harness.ts";
import { assertNoFailures, Load } from "./load.ts";
import { serverCommand, serverMounts } from "./network-tools.ts";

const cluster = new Cluster("updates", "10.119.0");
const nodes = [1, 2, 3];
const replicas = 3;
const port = 8080;
const missing = "shoal/missing:latest";
/** Its containers end as soon as they are started. */
const broken = "shoal/broken:latest";

before(async () => {
  await cluster.start(nodes.length, 1);
  await cluster.playground.formSwarm();
  await Promise.all(nodes.map(makeBrokenImage));
  const create = ["service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", "web"];
  const updates = ["--update-failure-action", "rollback", "--update-monitor", "3s", "--rollback-monitor", "1s"];
  const more = ["--replicas", `${replicas}`, "--restart-delay", "1s", "--publish", `${port}:80`];
  // Without a check of its health a server counts from its start on, and refuses until it listens (which takes some
  // seconds on a loaded machine).
  const health = ["--health-cmd", "wget -q -O /dev/null http://127.0.0.1/"];
  health.push("--health-interval", "300ms", "--health-retries", "40");
  await cluster.docker(1).ok([...create, ...updates, ...more, ...health, ...serverMounts, image, ...serverCommand]);
  await cluster.running("web", replicas);
});

after(() => cluster.stop());

async function makeBrokenImage(node: number): Promise<void> {
  const { engine } = cluster.docker(node);
  const container = await engine.ok(["create", image]);
  await engine.ok(["commit", "--change", 'ENTRYPOINT ["/bin/false"]', container, broken]);
  await engine.ok(["rm", container]);
}

interface ServiceView {
  readonly Spec: { readonly TaskTemplate: { readonly ContainerSpec: { readonly Image: string } } };
  readonly PreviousSpec?: object;
  readonly UpdateStatus?: { readonly State: string; readonly Message: string };
}

async function service(): Promise<ServiceView> {
  const [web] = await cluster.docker(1).inspect<ServiceView[]>("--type", "service", "web");
  return web!;
}

function updateBecomes(state: string, message = /./): Promise<ServiceView> {
  let seen = "";
  return cluster.until(
    `the update is ${state}`,
    async () => {
      const web = await service();
      seen = JSON.stringify(web.UpdateStatus);
      return web.UpdateStatus?.State === state && message.test(web.UpdateStatus.Message) && web;
    },
    { details: () => seen },
  );
}

function pretty(): Promise<string> {
  return cluster.docker(1).ok(["service", "inspect", "--pretty", "web"]);
}

/** Of the tasks that are wanted. */
async function images(): Promise<string[]> {
  const wanted = ["running", "ready"].flatMap((state) => ["--filter", `desired-state=${state}`]);
  return (await cluster.docker(1).lines(["service", "ps", ...wanted, "--format", "{{.Image}}", "web"])).sort();
}

/** How many tasks of the image there are, ended ones too. */
async function tasksOfImage(name: string): Promise<number> {
  return (await cluster.docker(1).lines(["service", "ps", "--format", "{{.Image}}", "web"])).filter(
    (one) => one === name,
  ).length;
}

async function underLoad(happening: () => Promise<void>): Promise<Load> {
  const load = new Load(`http://${cluster.layout(1).address}:${port}/`);
  try {
    await cluster.until("the load is answered", async () => load.answered > 50);
    await happening();
    const { answered } = load;
    await cluster.until("it is answered still", async () => load.answered > answered + 100);
  } finally {
    await load.stop();
  }
  return load;
}

const update = ["service", "update", "--detach", "--quiet", "--no-resolve-image"];

test("an image that is missing: the update goes back by itself, and costs no task", async () => {
  const before = await cluster.running("web", replicas);
  const load = await underLoad(async () => {
    await cluster.docker(1).ok([...update, "--image", missing, "web"]);
    const web = await updateBecomes("rollback_completed", /^rollback completed$/);
    assert.equal(web.Spec.TaskTemplate.ContainerSpec.Image, image);
  });
  assertNoFailures(load, "the update to a missing image");
  const now = await cluster.running("web", replicas);
  assert.deepEqual(now.map(({ container }) => container).sort(), before.map(({ container }) => container).sort());
  assert.match(
    await pretty(),
    /UpdateStatus:\n State:\s+rollback_completed\n Started:.*\n Message:\s+rollback completed\n/,
  );
  const ps = await cluster.docker(1).ok(["service", "ps", "--no-trunc", "web"]);
  assert.match(ps, /shoal\/missing:latest .*Rejected.*"No such image: shoal\/missing:latest/);
  assert.match(await cluster.docker(1).refused(["service", "rollback", "web"]), /does not have a previous spec/);
});

test("a container that ends at once: the update goes back by itself, and every request is answered", async () => {
  const load = await underLoad(async () => {
    await cluster.docker(1).ok([...update, "--image", broken, "web"]);
    await updateBecomes("rollback_completed");
    await cluster.running("web", replicas);
  });
  assertNoFailures(load, "the update to a broken image");
  assert.equal((await service()).Spec.TaskTemplate.ContainerSpec.Image, image);
  assert.deepEqual(await images(), [image, image, image]);
});

test("with failure action pause it stops after the first task, and says so; rollback goes on from there", async () => {
  const load = await underLoad(async () => {
    // Attached, as a user at a terminal: the CLI waits for the update, and fails with it.
    const attached = ["service", "update", "--no-resolve-image", "--update-failure-action", "pause", "--image", broken];
    const said = await cluster.docker(1).refused([...attached, "web"]);
    assert.match(said, /service update paused: update paused due to failure or early termination of task [0-9a-z]{25}/);
    const web = await updateBecomes("paused");
    const [, culprit] = /task ([0-9a-z]{25})$/.exec(web.UpdateStatus!.Message) ?? [];
    assert.match(
      await pretty(),
      new RegExp(`UpdateStatus:\\n State:\\s+paused\\n Started:.*\\n Message:.* task ${culprit}\\n`),
    );
    assert.deepEqual(await images(), [broken, image, image], "it has stopped at the first slot");
    // The slot's tasks are restarted as ever, and the update stays where it is.
    await cluster.until("the broken task was restarted twice", async () => (await tasksOfImage(broken)) >= 3);
    assert.equal((await service()).UpdateStatus?.State, "paused");
    assert.deepEqual(await images(), [broken, image, image]);

    const rolledBack = await cluster.docker(1).ok(["service", "rollback", "web"]);
    assert.match(rolledBack, /manually requested rollback/);
    await updateBecomes("rollback_completed");
    await cluster.running("web", replicas);
  });
  assertNoFailures(load, "the paused update");
  assert.deepEqual(await images(), [image, image, image]);
});

test("an update that cannot go on says what it waits for, and goes on when that has come", async () => {
  const load = await underLoad(async () => {
    const constraint = ["--constraint-add", "node.labels.disk==ssd"];
    await cluster.docker(1).ok([...update, "--force", ...constraint, "web"]);
    await updateBecomes("updating", /waiting for slot \d: task [0-9a-z]{25} is pending: no suitable node/);
    const reason = "no suitable node (scheduling constraints not satisfied on 3 nodes)";
    assert.ok((await pretty()).includes(reason), "the reason is where the user looks");
    assert.equal((await cluster.running("web", replicas)).length, replicas);
    await cluster.docker(1).ok(["node", "update", "--label-add", "disk=ssd", "node-2"]);
    await updateBecomes("completed", /^update completed$/);
    await cluster.running("web", replicas, (placed) => placed.every(({ node }) => node === "node-2"));
  });
  assertNoFailures(load, "the update that waits");
});
