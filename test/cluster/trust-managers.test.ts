/**
 * Trust among several managers: each seals its own disk with the swarm's unlock key, whoever was asked to change it,
 * and a rotation of the root goes on through the loss of its leader. The steps build on each other.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readNodeCertificate } from "../../src/ca/chain.ts";
import { Cluster } from "./cluster.ts";

const cluster = new Cluster("trustm", "10.94.0");
const all = [1, 2, 3] as const;
const password = "hunter2-in-the-environment";
const image = "shoal/sample:latest";
let key = "";

before(async () => {
  await cluster.start(3);
  const { address } = cluster.layout(1);
  await cluster.docker(1).ok(["swarm", "init", "--advertise-addr", address]);
  for (const index of [2, 3]) {
    const token = await cluster.token("manager");
    await cluster.docker(index).ok(["swarm", "join", "--token", token, cluster.managerAddress()]);
  }
  for (const index of all) await cluster.nodeBecomes(index, "ready");
});

after(() => cluster.stop());

function keyIn(output: string): string {
  const found = /SWMKEY-1-[A-Za-z0-9+/]{43}/.exec(output)?.[0];
  assert.ok(found, output);
  return found;
}

function stateOf(index: number): Promise<string> {
  return cluster.docker(index).ok(["info", "--format", "{{.Swarm.LocalNodeState}}"]);
}

async function restart(index: number): Promise<void> {
  await cluster.playground.kill(`node-${index}`, "daemon");
  await cluster.playground.start(`node-${index}`);
}

/** Whether the node's keys are sealed on its disk. */
function isSealed(index: number): boolean {
  const text = readFileSync(`${cluster.layout(index).dataDir}/shoal/swarm/data-key.json`, "utf8");
  return JSON.parse(text).seal === "unlock-key";
}

/**
 * Looks at the node's disk again and again while `work` runs: who has the disk of that moment must never have a
 * manager's secrets, which are the store's key and the key of a manager's certificate.
 */
async function nothingReadable(index: number, work: () => Promise<void>): Promise<void> {
  const directory = `${cluster.layout(index).dataDir}/shoal/swarm`;
  const seen = new Set<string>();
  const look = () => {
    // In the opposite order of that in which they are written.
    const certificate = readIfThere(join(directory, "certificates/swarm-node.crt"));
    const text = readIfThere(join(directory, "data-key.json"));
    if (certificate === undefined || text === undefined) return;
    const { seal, keys } = JSON.parse(text);
    seen.add(`${readNodeCertificate(certificate).role} ${seal} ${Object.keys(keys ?? {}).join()}`);
  };
  const timer = setInterval(look, 2);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  look();
  const readable = [...seen].filter((state) => /^manager none|none .*data/.test(state));
  assert.deepEqual(readable, [], [...seen].join("; "));
  assert.ok(seen.has("manager unlock-key "), [...seen].join("; "));
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function unlock(index: number, withKey = key): Promise<void> {
  await cluster.docker(index).ok(["swarm", "unlock"], { input: `${withKey}\n` });
}

function ready(via: number): Promise<unknown> {
  return cluster.until(`node-${via} sees all nodes ready`, async () => {
    const nodes = await cluster.nodes(via);
    return nodes.length === 3 && nodes.every(({ Status }) => Status.State === "ready");
  });
}

test("autolock that is turned on through one manager seals the disks of all", async () => {
  await cluster
    .docker(1)
    .ok(["service", "create", "--detach", "--name", "web", "--env", `P=${password}`, "--replicas", "3", image]);
  await cluster.running("web", 3);
  key = keyIn(await cluster.docker(2).ok(["swarm", "update", "--autolock=true"]));
  assert.ok(isSealed(2), "the one that was asked, before it answered");
  await cluster.until("all disks are sealed", async () => all.every(isSealed));
  for (const index of all) assert.equal(await cluster.docker(index).ok(["swarm", "unlock-key", "-q"]), key);
});

test("one that restarts is locked until it is unlocked; the others go on, and nothing is readable on its disk", async () => {
  await restart(3);
  assert.equal(await stateOf(3), "locked");
  await cluster.docker(1).ok(["service", "create", "--detach", "--name", "meanwhile", image]);
  const directory = `${cluster.layout(3).dataDir}/shoal`;
  const files = readdirSync(directory, { recursive: true, encoding: "utf8" }).map((name) => join(directory, name));
  assert.ok(
    files.some((path) => path.includes("etcd")),
    files.join(),
  );
  for (const path of files.filter((one) => statSync(one).isFile())) {
    const content = readFileSync(path);
    for (const secret of ["PRIVATE KEY", "SWMTKN-1-", "SWMKEY-1-", password, '"seal":"none"']) {
      assert.ok(!content.includes(secret), `${path} has ${secret}`);
    }
  }
  await unlock(3);
  await ready(3);
  assert.ok((await cluster.docker(3).lines(["service", "ls", "--format", "{{.Name}}"])).includes("meanwhile"));
});

test("a manager that was away while the key was rotated opens with the old one, and then has the new one", async () => {
  const old = key;
  await cluster.playground.machine("node-3").stopDaemon();
  key = keyIn(await cluster.docker(1).ok(["swarm", "unlock-key", "--rotate"]));
  await cluster.playground.start("node-3");
  assert.match(await cluster.docker(3).refused(["swarm", "unlock"], { input: `${key}\n` }), /invalid key provided/);
  await unlock(3, old);
  await ready(3);
  await restart(3);
  await cluster.until("it is sealed with the new key", async () => {
    const { status } = await cluster.docker(3).run(["swarm", "unlock"], { input: `${key}\n` });
    return status === 0;
  });
  await ready(3);
});

test("a demoted manager has nothing to lock any more, and a promoted one does", async () => {
  await cluster.docker(1).ok(["node", "demote", "node-3"]);
  await cluster.until("node-3 is a worker with an open disk", async () => !isSealed(3) && !(await isManager(3)));
  await restart(3);
  assert.equal(await stateOf(3), "active");
  await ready(1);
  await nothingReadable(3, async () => {
    await cluster.docker(1).ok(["node", "promote", "node-3"]);
    await cluster.until("node-3 is a manager with a sealed disk", async () => isSealed(3) && (await isManager(3)));
    await ready(3);
  });
  await restart(3);
  assert.equal(await stateOf(3), "locked");
  await unlock(3);
  await ready(3);
});

test("a manager that joins has nothing readable on its disk at any moment", async () => {
  const former = await cluster.node(3);
  await cluster.docker(3).ok(["swarm", "leave", "--force"]);
  await cluster.nodeBecomes(3, "down");
  await cluster.docker(1).ok(["node", "rm", "--force", former.ID]);
  await nothingReadable(3, async () => {
    const token = await cluster.token("manager");
    await cluster.docker(3).ok(["swarm", "join", "--token", token, cluster.managerAddress()]);
    await ready(3);
  });
  await restart(3);
  assert.equal(await stateOf(3), "locked");
  await unlock(3);
  await ready(3);
});

test("a rotation of the root through a manager that does not lead, whose leader dies in the middle", async () => {
  const trusted = async (via: number) => await cluster.docker(via).ok(["swarm", "ca"]);
  const root = await trusted(1);
  const leader = await cluster.until("there is a leader", leaderIndex);
  const [via, away] = all.filter((index) => index !== leader);
  await cluster.playground.machine(`node-${away}`).stopDaemon();
  await cluster.docker(via!).ok(["swarm", "ca", "--rotate", "--detach"]);
  await restart(leader); // no quorum until it is unlocked
  await unlock(leader);
  await cluster.playground.start(`node-${away}`);
  await unlock(away!);
  await cluster.until("the rotation is done", async () => {
    const { RootRotationInProgress } = await cluster.api(via!).get<{ RootRotationInProgress: boolean }>("/swarm");
    return !RootRotationInProgress;
  });
  for (const index of all) {
    await ready(index);
    assert.notEqual(await trusted(index), root);
    const statuses = async () => await cluster.docker(index).lines(["node", "ls", "--format", "{{.TLSStatus}}"]);
    await cluster.until("all are Ready", async () => (await statuses()).every((status) => status === "Ready"));
  }
  await cluster.running("web", 3);
  await cluster.docker(away!).ok(["service", "rm", "web", "meanwhile"]);
});

async function isManager(index: number): Promise<boolean> {
  return (await cluster.docker(index).ok(["info", "--format", "{{.Swarm.ControlAvailable}}"])) === "true";
}

async function leaderIndex(): Promise<number | undefined> {
  for (const index of all) if ((await cluster.node(index)).ManagerStatus?.Leader) return index;
  return undefined;
}

test("autolock that is turned off leaves every manager open", async () => {
  await cluster.docker(1).ok(["swarm", "update", "--autolock=false"]);
  await cluster.until("no disk is sealed", async () => !all.some(isSealed));
  for (const index of all) await restart(index);
  for (const index of all) await ready(index);
});
