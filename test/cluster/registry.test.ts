/**
 * A private registry with a password, over the whole way: login, push and the digest through Shoal's socket, the
 * credentials to the nodes that pull, and what becomes of tasks when the registry refuses, is down or hangs. The third
 * node is a stock Engine. The steps build on each other.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { Docker, image as sample } from "./harness.ts";
import { ClientConfig, firstUser, PrivateRegistry, type RegistryUser, secondUser } from "./private-registry.ts";

const cluster = new Cluster("registry", "10.125.0");
const registry = new PrivateRegistry(cluster.playground.layout.machineAddress);
const user = new ClientConfig();
const stranger = new ClientConfig();
const repository = `${registry.address}/team/app`;
let manager: Docker;
/** So that the CLI does not wait for long to see whether all stays as it is. */
const brief = ["--update-monitor", "100ms", "--rollback-monitor", "100ms"];
const stock = new Docker("/usr/bin/docker", cluster.layout(3), cluster.layout(3).engineSocket);

before(async () => {
  await cluster.start(3);
  manager = cluster.docker(1);
  await cluster.playground.kill("node-3", "daemon");
  await registry.start();
  await registry.allowOn(cluster.playground);
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  const token = await cluster.token("worker");
  const join = (index: number, docker: Docker) => {
    const own = ["--advertise-addr", cluster.layout(index).address];
    return docker.ok(["swarm", "join", ...own, "--token", token, cluster.managerAddress()]);
  };
  await join(2, cluster.docker(2));
  await join(3, stock);
  await cluster.nodeBecomes(3, "ready");
});

after(async () => {
  registry.goOn();
  await cluster.stop();
  await registry.remove();
  user.remove();
  stranger.remove();
});

/** As the user who is logged in. */
function ok(...args: string[]): Promise<string> {
  return manager.ok(args, { environment: user.environment });
}

/** An image of its own, with VERSION in its environment, pushed; this machine keeps no copy. */
async function publish(name: string, version: string): Promise<void> {
  const container = await manager.ok(["container", "create", sample]);
  await manager.ok(["commit", "--change", `ENV VERSION=${version}`, container, name]);
  await manager.ok(["rm", container]);
  await ok("push", name);
  await manager.ok(["rmi", name]);
}

/** Removes every image of the registry that is not running from every node: what is wanted again has to be pulled. */
async function forgetImages(): Promise<void> {
  for (const index of [1, 2, 3]) {
    const engine = cluster.docker(index).engine;
    const used = await engine.lines(["ps", "--format", "{{.ID}}"]);
    const running = used.length === 0 ? [] : await engine.lines(["inspect", "--format", "{{.Image}}", ...used]);
    const images = await engine.lines(["images", "--quiet", "--no-trunc", "--filter", `reference=${repository}`]);
    const unused = [...new Set(images)].filter((id) => !running.includes(id));
    if (unused.length > 0) await engine.ok(["rmi", "--force", ...unused]);
  }
}

async function versionsOf(service: string): Promise<string[]> {
  const versions = new Set<string>();
  for (const { node, container } of await cluster.containers(service)) {
    const docker = cluster.docker(cluster.playground.layout.nodeByName(node).index).engine;
    const [{ Config }] = await docker.inspect<[{ Config: { Env: string[] } }]>(container);
    versions.add(Config.Env.find((pair) => pair.startsWith("VERSION="))?.slice("VERSION=".length) ?? "");
  }
  return [...versions].sort();
}

/** Waits until all tasks of the service run that version. */
function runs(service: string, count: number, version: string): Promise<unknown> {
  return cluster.running(service, count).then(() =>
    cluster.until(`${service} runs version ${version}`, async () => {
      const running = await cluster.containers(service);
      return running.length === count && (await versionsOf(service)).join() === version;
    }),
  );
}

async function imageOf(service: string): Promise<string> {
  return manager.ok(["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", service]);
}

/** The texts by which a user's credentials would be known, wherever they stood. */
function secretsOf({ name, password }: RegistryUser): string[] {
  const basic = Buffer.from(`${name}:${password}`).toString("base64");
  return [password, basic, Buffer.from(password).toString("base64").replace(/=+$/, "")];
}

test("login and push go through Shoal's socket to the Engine; a wrong password is refused", async () => {
  const wrong = { ...firstUser, password: "wrong" };
  await assert.rejects(stranger.login(manager, registry, wrong), /unauthorized|401/);
  assert.match(await user.login(manager, registry, firstUser), /Login Succeeded/);
  for (const version of ["1", "2"]) await publish(`${repository}:${version}`, version);
});

test("the image is pinned to its digest, and each node pulls it with the credentials, a stock one too", async () => {
  const spread = ["--replicas", "3", "--replicas-max-per-node", "1", ...brief];
  await ok("service", "create", "--quiet", "--with-registry-auth", ...spread, "--name", "app", `${repository}:1`);
  await runs("app", 3, "1");
  assert.match(await imageOf("app"), new RegExp(`^${repository}:1@sha256:[0-9a-f]{64}$`));
  const [service] = await cluster
    .api(1)
    .get<{ Spec: { TaskTemplate: { Placement: { Platforms: object[] } } } }[]>("/services");
  assert.deepEqual(service?.Spec.TaskTemplate.Placement.Platforms, [{ Architecture: "amd64", OS: "linux" }]);
});

test("without --with-registry-auth the task says that the registry refused", async () => {
  await forgetImages();
  const options = ["--quiet", "--detach", "--restart-delay", "500ms", ...brief];
  await ok("service", "create", ...options, "--name", "refused", `${repository}:2`);
  assert.equal(await imageOf("refused"), `${repository}:2`, "the CLI asks for the digest without credentials, too");
  const { Err } = await cluster.until("a task is rejected", async () => {
    return (await cluster.api(1).tasks("refused")).find(({ Status }) => Status.State === "rejected")?.Status;
  });
  assert.match(Err ?? "", /^No such image: .*team\/app:2: .*no basic auth credentials/);
  // A later update brings them.
  await ok("service", "update", "--quiet", "--detach", "--with-registry-auth", "refused");
  await runs("refused", 1, "2");
  await ok("service", "rm", "refused");
});

test("an update to a new tag keeps the credentials, and so does the way back", async () => {
  await forgetImages();
  // Given without them (so that the CLI finds no digest): the service has them from before.
  await ok("service", "update", "--quiet", "--image", `${repository}:2`, "app");
  await runs("app", 3, "2");
  assert.equal(await imageOf("app"), `${repository}:2`);
  await forgetImages();
  await ok("service", "rollback", "--quiet", "app");
  await runs("app", 3, "1");
});

test("other credentials restart nothing, and are the ones that are used from then on", async () => {
  const before = (await cluster.containers("app")).map(({ container }) => container).sort();
  await user.login(manager, registry, secondUser);
  await ok("service", "update", "--quiet", "--with-registry-auth", "app");
  assert.deepEqual((await cluster.containers("app")).map(({ container }) => container).sort(), before);
  registry.forget(firstUser);
  await forgetImages();
  await ok("service", "update", "--quiet", "--image", `${repository}:2`, "app");
  await runs("app", 3, "2");
});

test("nobody is shown the credentials: not by the API, in a log, or on a disk", async () => {
  const api = cluster.api(1);
  const shown = [
    ...(await Promise.all(["/services", "/services/app", "/services/app?insertDefaults=true", "/tasks"].map(text))),
    ...(await Promise.all(["/nodes", "/swarm", "/info"].map(text))),
    ...(await Promise.all([1, 2].map((index) => cluster.docker(index).engine.ok(["ps", "--all", "--no-trunc"])))),
  ].join("\n");
  for (const secret of [firstUser, secondUser].flatMap(secretsOf)) {
    assert.ok(!shown.includes(secret), `the API shows ${secret}`);
    for (const index of [1, 2]) {
      const { dataDir } = cluster.layout(index);
      // Everything that Shoal keeps, and what its daemon and its Engine have written into their logs.
      for (const place of [`${dataDir}/shoal`, `${dataDir}/shoal.log`, `${dataDir}/engine.log`]) {
        assert.deepEqual(filesWith(secret, place), [], `on the disk of node-${index}`);
      }
    }
  }

  async function text(path: string): Promise<string> {
    return (await api.ask("GET", path)).text;
  }
});

/** The files below a place that hold the text, also binary ones. */
function filesWith(text: string, place: string): string[] {
  try {
    return execFileSync("grep", ["--recursive", "--files-with-matches", "--text", "--fixed-strings", text, place], {
      encoding: "utf8",
    })
      .split("\n")
      .filter((line) => line !== "");
  } catch (error) {
    if ((error as { status?: number }).status === 1) return []; // none
    throw error;
  }
}

test("with --no-resolve-image each node resolves the tag by itself", async () => {
  await forgetImages();
  const options = ["--with-registry-auth", "--no-resolve-image"];
  const ours = ["--constraint", "node.hostname!=node-3", "--replicas", "2", "--replicas-max-per-node", "1", ...brief];
  await ok("service", "create", "--quiet", ...options, ...ours, "--name", "tagged", `${repository}:2`);
  assert.equal(await imageOf("tagged"), `${repository}:2`);
  await runs("tagged", 2, "2");
});

test("a registry that hangs, or is down, keeps no task whose image is on the node", async () => {
  // Each trouble with a tag of its own: how one went is remembered for a while.
  for (const [tag, trouble] of [
    ["2", async () => registry.hang()],
    ["1", () => registry.stop()],
  ] as const) {
    await trouble();
    const scale = ["service", "update", "--quiet", "--detach", "--replicas-max-per-node", "0", "--replicas"];
    await ok(...scale, "12", "tagged");
    await runs("tagged", 12, tag);
    registry.goOn();
    await registry.stop();
    await registry.start();
    if (tag === "2") await ok("service", "update", "--quiet", "--image", `${repository}:1`, "tagged");
  }
});

test("an update to an image that a registry that is down ought to have says so, and the old tasks run on", async () => {
  await ok("service", "scale", "--detach", "tagged=2");
  const before = await cluster.running("tagged", 2);
  await registry.stop();
  const options = ["--no-resolve-image", "--update-failure-action", "pause"];
  await ok("service", "update", "--quiet", "--detach", ...options, "--image", `${repository}:3`, "tagged");
  const { Err } = await cluster.until("a task is rejected", async () => {
    return (await cluster.api(1).tasks("tagged")).find(({ Status }) => Status.State === "rejected")?.Status;
  });
  assert.match(Err ?? "", /^No such image: .*team\/app:3: .*connection refused/);
  await cluster.until("the update is paused", async () => {
    const state = await manager.ok(["service", "inspect", "--format", "{{.UpdateStatus.State}}", "tagged"]);
    return state === "paused";
  });
  const now = await cluster.containers("tagged");
  for (const { container } of before) assert.ok(now.some((one) => one.container === container));
});
