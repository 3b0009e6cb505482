/**
 * Secrets and configs over the whole way: from the docker CLI to files in containers, on two nodes of ours, which are
 * both managers, and on a stock Engine that joined. What counts is what containers see, and what is on the disks.
 * The steps build on each other.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Cluster, type Placed } from "./cluster.ts";
import { Docker, image } from "./harness.ts";

const cluster = new Cluster("secrets", "10.121.0");
const scratch = mkdtempSync(join(tmpdir(), "shoal-secrets-"));
let manager: Docker;
const stock = new Docker("/usr/bin/docker", cluster.layout(3), cluster.layout(3).engineSocket);

/** Text that is found again wherever it is written; also as base64, which begins where this begins. */
const marker = `shoal-secret-${randomBytes(24).toString("hex")}`;
const largestSecret = randomBytes(511_999);
const largestConfig = randomBytes(1_023_999);

const quiet = ["--detach", "--quiet"];
const everywhere = [...quiet, "--replicas", "3", "--replicas-max-per-node", "1"];

before(async () => {
  await cluster.start(3);
  manager = cluster.docker(1);
  await cluster.playground.kill("node-3", "daemon");
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
});

after(async () => {
  await cluster.stop();
  rmSync(scratch, { recursive: true });
});

function fileOf(name: string, content: string | Buffer): string {
  const path = join(scratch, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
}

/** Runs a shell line in the task's container. */
function inside({ node, container }: Omit<Placed, "slot">, line: string): Promise<string> {
  const { index } = cluster.playground.layout.nodeByName(node);
  return cluster.docker(index).engine.ok(["exec", container, "sh", "-c", line]);
}

/** What the tasks on the node have in memory, as its agent and its Engine see it. */
function tasksWithFiles(node: string): string[] {
  const { pid } = cluster.playground.machine(node).find("machine")!;
  const directory = `/proc/${pid}/root/run/shoal/tasks`;
  return readdirSync(directory).flatMap((nodeId) => readdirSync(join(directory, nodeId)));
}

async function hasFilesOf(node: string, tasks: readonly string[]): Promise<void> {
  await cluster.until(`${node} has files of ${tasks.length} tasks`, async () => {
    return JSON.stringify(tasksWithFiles(node).sort()) === JSON.stringify([...tasks].sort());
  });
}

function sha256(content: Buffer | string): string {
  return createHash("sha256").update(content).digest("hex");
}

test("they are made from files and standard input, once, and a secret is never shown", async () => {
  const [key, password] = [fileOf("key", marker), fileOf("password", "open sesame\n")];
  await manager.ok(["secret", "create", "--label", "app=vault", "key", key]);
  await manager.ok(["secret", "create", "password", "-"], { input: "open sesame\n" });
  await manager.ok(["config", "create", "--label", "app=vault", "settings", fileOf("settings", "tide=high\n")]);
  assert.match(await manager.refused(["secret", "create", "password", password]), /secret password already exists/);
  assert.match(await manager.refused(["config", "create", "settings", key]), /config settings already exists/);
  assert.match(await manager.refused(["secret", "create", "a b", key]), /only 64 \[a-zA-Z0-9-_.\] characters allowed/);
  const large = fileOf("too-large", randomBytes(512_000));
  const tooLarge = /secret data must be larger than 0 and less than 512000 bytes/;
  assert.match(await manager.refused(["secret", "create", "large", large]), tooLarge);

  assert.deepEqual(await manager.lines(["secret", "ls", "--format", "{{.Name}}", "--filter", "label=app"]), ["key"]);
  assert.deepEqual(await manager.lines(["config", "ls", "--format", "{{.Name}}"]), ["settings"]);
  const shown = await manager.ok(["secret", "inspect", "key"]);
  for (const text of [marker, Buffer.from(marker).toString("base64")]) assert.ok(!shown.includes(text));
  assert.match(await manager.ok(["config", "inspect", "--pretty", "settings"]), /Data:\s+tide=high/);
});

test("they move with the managers' store when a second manager comes, and are served by both", async () => {
  const join = async (docker: Docker, index: number, role: "manager" | "worker") => {
    const own = ["--advertise-addr", cluster.layout(index).address];
    await docker.ok(["swarm", "join", ...own, "--token", await cluster.token(role), cluster.managerAddress()]);
    await cluster.nodeBecomes(index, "ready");
  };
  await join(cluster.docker(2), 2, "manager");
  await join(stock, 3, "worker");
  const listed = await cluster.docker(2).lines(["secret", "ls", "--format", "{{.Name}}"]);
  assert.deepEqual(listed.sort(), ["key", "password"]);
  const [largest, wide] = [fileOf("largest", largestSecret), fileOf("wide", largestConfig)];
  await cluster.docker(2).ok(["secret", "create", "largest", largest]);
  await cluster.docker(2).ok(["config", "create", "wide", wide]);
  assert.equal((await manager.lines(["config", "ls", "--quiet"])).length, 2);
});

const vault = [
  ...["--secret", "source=key,target=/etc/keys/the-key,uid=33,gid=44,mode=0400"],
  ...["--secret", "password"],
  ...["--secret", "largest"],
  ...["--config", "source=settings,target=/etc/vault/settings.ini,mode=0640,gid=7"],
  ...["--config", "wide"],
];

/** Content, owner, mode and file system of all of it, as a container of `vault` sees them. */
async function assertVault(placed: Placed, password = "open sesame\n"): Promise<void> {
  const files = {
    "/etc/keys/the-key": { owner: "33 44 400", content: marker },
    "/run/secrets/password": { owner: "0 0 444", content: password },
    "/run/secrets/largest": { owner: "0 0 444", content: largestSecret },
    "/etc/vault/settings.ini": { owner: "0 7 640", content: "tide=high\n" },
    "/wide": { owner: "0 0 444", content: largestConfig },
  };
  const sums = await inside(placed, `sha256sum ${Object.keys(files).join(" ")}`);
  const stats = await inside(placed, `stat -c '%n %u %g %a' ${Object.keys(files).join(" ")}`);
  const mounts = (await inside(placed, "cat /proc/mounts")).split("\n").map((line) => line.split(" "));
  for (const [path, { owner, content }] of Object.entries(files)) {
    assert.ok(sums.includes(`${sha256(content)}  ${path}`), `${placed.node}: content of ${path}\n${sums}`);
    assert.ok(stats.includes(`${path} ${owner}`), `${placed.node}: ${path}\n${stats}`);
    const mounted = mounts.find(([, target]) => target === path);
    assert.equal(mounted?.[2], "tmpfs", `${placed.node}: ${path} is in memory`);
    assert.equal(mounted?.[3]?.split(",")[0], "ro", `${placed.node}: ${path} is read-only`);
  }
}

test("containers have them as files in memory, with owner, mode and target, on our nodes and a stock one", async () => {
  await manager.ok(["service", "create", ...everywhere, ...vault, "--name", "vault", image]);
  const placed = await cluster.running("vault", 3, (all) => new Set(all.map(({ node }) => node)).size === 3);
  for (const one of placed) await assertVault(one);
  for (const { node, task } of placed.slice()) if (node !== "node-3") await hasFilesOf(node, [task]);
});

test("a node without such tasks has nothing, and what services use stays", async () => {
  const only = ["--constraint", "node.hostname==node-1", "--secret", "password"];
  await manager.ok(["service", "create", ...quiet, ...only, "--name", "other", image]);
  const [other] = await cluster.running("other", 1);
  const ours = (await cluster.running("vault", 3)).filter(({ node }) => node === "node-1").map(({ task }) => task);
  await hasFilesOf("node-1", [...ours, other!.task]);
  assert.match(
    await manager.refused(["secret", "rm", "password"]),
    /secret 'password' is in use by the following services: other, vault/,
  );
  assert.match(
    await manager.refused(["config", "rm", "settings"]),
    /config 'settings' is in use by the following service: vault/,
  );
  await manager.ok(["service", "rm", "other"]);
  await hasFilesOf("node-1", ours);
});

test("rotation: an update brings the new secret under the old name, then the old one can go", async () => {
  const before = await cluster.running("vault", 3);
  await manager.ok(["secret", "create", "password.2", "-"], { input: "abracadabra\n" });
  const rotation = ["--secret-rm", "password", "--secret-add", "source=password.2,target=password"];
  await manager.ok(["service", "update", ...quiet, "--update-parallelism", "3", ...rotation, "vault"]);
  const placed = await cluster.running("vault", 3, (all) =>
    all.every(({ task }) => !before.some((old) => old.task === task)),
  );
  for (const one of placed) await assertVault(one, "abracadabra\n");
  await cluster.until("the update is over", async () => {
    const said = await manager.ok(["service", "inspect", "--format", "{{.UpdateStatus.State}}", "vault"]);
    return said === "completed";
  });
  assert.equal(await manager.ok(["secret", "rm", "password"]), "password");
  for (const { node, task } of placed) if (node !== "node-3") await hasFilesOf(node, [task]);
});

test("templates in configs are expanded where the task runs, on our nodes and a stock one", async () => {
  const template = '{{.Service.Name}} {{.Task.Slot}} {{env "TIDE"}} {{secret "password"}}';
  await manager.ok(["config", "create", "--template-driver", "golang", "page", "-"], { input: template });
  const used = ["--env", "TIDE=low", "--config", "page", "--secret", "source=password.2,target=password"];
  await manager.ok(["service", "create", ...everywhere, ...used, "--name", "templated", image]);
  for (const one of await cluster.running("templated", 3)) {
    assert.equal(await inside(one, "cat /page"), `templated ${one.slot} low abracadabra`);
  }
  await manager.ok(["service", "rm", "templated"]);
});

test("a task may have many large ones: they come with it in one message, on our nodes and a stock one", async () => {
  const names = Array.from({ length: 12 }, (_, index) => `large-${index}`);
  const large = fileOf("large", largestConfig);
  for (const name of names) await manager.ok(["config", "create", name, large]);
  const used = names.flatMap((name) => ["--config", name]);
  await manager.ok(["service", "create", ...everywhere, ...used, "--name", "loaded", image]);
  for (const one of await cluster.running("loaded", 3)) {
    const sums = await inside(
      one,
      `sha256sum ${names.map((name) => `/${name}`).join(" ")} | cut -d ' ' -f 1 | uniq -c`,
    );
    assert.equal(sums.trim(), `12 ${sha256(largestConfig)}`);
  }
  await manager.ok(["service", "rm", "loaded"]);
  await manager.ok(["config", "rm", ...names]);
});

test("a container that ends by itself leaves nothing", async () => {
  const once = ["--restart-condition", "none", "--constraint", "node.hostname==node-2", "--secret", "key"];
  await manager.ok(["service", "create", ...quiet, ...once, "--name", "once", image, "cat", "/run/secrets/key"]);
  await cluster.until("the task is complete", async () => {
    return (await cluster.api(1).tasks("once"))[0]?.Status.State === "complete";
  });
  assert.equal(await manager.ok(["service", "logs", "--raw", "once"]), marker);
  const others = (await cluster.running("vault", 3)).filter(({ node }) => node === "node-2").map(({ task }) => task);
  await hasFilesOf("node-2", others);
  await manager.ok(["service", "rm", "once"]);
});

test("kill -9 of both daemons: containers keep theirs, and new ones get theirs again from a manager", async () => {
  const before = await cluster.running("vault", 3);
  const ours = ["node-1", "node-2"];
  await Promise.all(ours.map((node) => cluster.playground.kill(node, "daemon")));
  await Promise.all(ours.map((node) => cluster.playground.start(node)));
  for (const index of [1, 2, 3]) await cluster.nodeBecomes(index, "ready");
  assert.deepEqual(await cluster.running("vault", 3), before);
  const onTwo = before.find(({ node }) => node === "node-2")!;
  await assertVault(onTwo, "abracadabra\n");
  await cluster.docker(2).engine.ok(["kill", onTwo.container]);
  const placed = await cluster.running("vault", 3, (all) =>
    all.every(({ container }) => container !== onTwo.container),
  );
  const next = placed.find(({ node }) => node === "node-2")!;
  await assertVault(next, "abracadabra\n");
  await hasFilesOf("node-2", [next.task]);
});

test("a node that loses its power comes back without any, and gets what its new tasks need", async () => {
  const before = await cluster.running("vault", 3);
  await cluster.playground.kill("node-2");
  await cluster.playground.start("node-2");
  await cluster.nodeBecomes(2, "ready");
  const placed = await cluster.running("vault", 3, (all) => {
    return all.some(({ node, task }) => node === "node-2" && !before.some((old) => old.task === task));
  });
  const next = placed.find(({ node }) => node === "node-2")!;
  await assertVault(next, "abracadabra\n");
  await hasFilesOf("node-2", [next.task]);
});

test("nothing of a secret is on a disk or in a log: neither a manager's nor a node's nor its Engine's", () => {
  const texts = [marker, Buffer.from(marker).toString("base64").slice(0, 40)];
  for (const index of [1, 2]) {
    const { dataDir, daemonLog, engineLog } = cluster.layout(index);
    for (const text of texts) {
      // The log of the container that printed it is the user's own doing, and went with it.
      const found = spawnSync("grep", ["-r", "-l", "-a", "-F", "-e", text, dataDir, daemonLog, engineLog]);
      assert.deepEqual([found.status, found.stdout.toString()], [1, ""], found.stderr.toString());
    }
  }
  // What is looked for this way is found.
  const known = execFileSync("grep", ["-r", "-l", "-a", "-F", "-e", marker, scratch]).toString();
  assert.match(known, /key/);
});

test("docker stack deploy makes them, finds them as they are, and refuses other content", async () => {
  fileOf("stack-secret", "first\n");
  fileOf("stack-config", "first\n");
  const compose = fileOf(
    "compose.yaml",
    JSON.stringify({
      version: "3.8",
      services: { app: { image, secrets: ["word"], configs: [{ source: "page", target: "/etc/page", mode: 0o444 }] } },
      secrets: { word: { file: "./stack-secret" } },
      configs: { page: { file: "./stack-config" } },
    }),
  );
  const deploy = ["stack", "deploy", "--resolve-image", "never", "--compose-file", compose, "tide"];
  await manager.ok(deploy);
  const [placed] = await cluster.running("tide_app", 1);
  assert.equal(await inside(placed!, "cat /run/secrets/word /etc/page"), "first\nfirst");
  await manager.ok(deploy);
  fileOf("stack-config", "second\n");
  assert.match(await manager.refused(deploy), /only updates to Labels are allowed/);
  await manager.ok(["stack", "rm", "tide"]);
  await cluster.until("the stack is gone", async () => {
    const secrets = await manager.lines(["secret", "ls", "--format", "{{.Name}}"]);
    return !secrets.some((name) => name.startsWith("tide")) && (await cluster.containers("tide_app")).length === 0;
  });
});

test("after their services and they themselves are removed, nothing is left on any node", async () => {
  await manager.ok(["service", "rm", "vault"]);
  await manager.ok(["secret", "rm", "key", "password.2", "largest"]);
  await manager.ok(["config", "rm", "settings", "wide", "page"]);
  assert.deepEqual(await manager.lines(["secret", "ls", "--quiet"]), []);
  assert.deepEqual(await manager.lines(["config", "ls", "--quiet"]), []);
  await cluster.until("the containers are gone", async () => (await cluster.containers("vault")).length === 0);
  for (const node of ["node-1", "node-2"]) await hasFilesOf(node, []);
});

test("a node that leaves takes none with it", async () => {
  await manager.ok(["secret", "create", "last", "-"], { input: "last" });
  const onTwo = ["--constraint", "node.hostname==node-2", "--secret", "last"];
  await manager.ok(["service", "create", ...quiet, ...onTwo, "--name", "stays", image]);
  const [placed] = await cluster.running("stays", 1);
  await hasFilesOf("node-2", [placed!.task]);
  await cluster.docker(2).ok(["swarm", "leave", "--force"]);
  assert.deepEqual(tasksWithFiles("node-2"), []);
});
