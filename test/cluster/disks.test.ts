/**
 * What may happen to a manager's disk: it is full, the daemon is killed in the middle of the store's move from LMDB
 * into etcd, files on it are damaged. Nothing that was answered is lost, the node says what is the matter, and the
 * other managers go on. The steps build on each other.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, cpSync, existsSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually } from "../../src/playground/wait.ts";
import { Cluster } from "./cluster.ts";

const cluster = new Cluster("disks", "10.103.0");
const image = "shoal/sample:latest";
const api = cluster.api(1);
const { address } = cluster.layout(1);

before(() => cluster.start(3));
after(() => cluster.stop());

const directoryOf = (index: number) => `${cluster.layout(index).dataDir}/shoal`;

function serviceSpec(Name: string, options: { readonly replicas?: number; readonly bytes?: number } = {}) {
  const { replicas = 0, bytes = 0 } = options;
  return {
    Name,
    Labels: { filling: "x".repeat(bytes) },
    TaskTemplate: { ContainerSpec: { Image: image } },
    Mode: { Replicated: { Replicas: replicas } },
  };
}

async function names(via = 1): Promise<ReadonlySet<string>> {
  return new Set((await cluster.api(via).services()).map(({ Spec }) => Spec.Name));
}

async function assertThere(answered: readonly string[], via = 1): Promise<void> {
  const there = await names(via);
  assert.deepEqual(
    answered.filter((name) => !there.has(name)),
    [],
    "answered, and not there",
  );
}

function init(): Promise<string> {
  return cluster.docker(1).ok(["swarm", "init", "--advertise-addr", address]);
}

async function localState(index: number): Promise<string> {
  const format = "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Error}}";
  return (await cluster.docker(index).ok(["info", "--format", format])).trim();
}

test("a full disk under a single manager is named in the answer, loses nothing, and is over when there is room", async () => {
  const machine = cluster.playground.machine("node-1");
  const disk = directoryOf(1);
  const inMachine = (...command: string[]) => {
    const { pid } = machine.find("engine")!;
    execFileSync("nsenter", [`--mount=/proc/${pid}/ns/mnt`, ...command]);
  };
  await machine.stopDaemon();
  inMachine("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", disk);
  await machine.startDaemon();
  await init();
  await api.post("/services/create", serviceSpec("before", { replicas: 1 }));
  await cluster.running("before", 1);

  const answered: string[] = [];
  const write = async () => {
    const name = `full-${answered.length}`;
    const { status, message } = await api.ask("POST", "/services/create", serviceSpec(name, { bytes: 512 * 1024 }));
    if (status !== 201) return { status, message };
    answered.push(name);
    return undefined;
  };
  let refusal: Awaited<ReturnType<typeof write>>;
  while (!refusal && answered.length < 100) refusal = await write();
  assert.match(refusal?.message ?? "", /the store cannot be written \(is the disk full\?\)$/);
  assert.equal(refusal?.status, 503);
  assert.ok(answered.length > 5, `${answered.length} were written`);
  await assertThere(["before", ...answered]);
  assert.equal(await localState(1), "active true");

  inMachine("mount", "-o", "remount,size=64M", disk);
  await eventually({ what: "writes go on", limitMs: 10_000, details: async () => "" }, async () => !(await write()));
  await api.post("/services/create", serviceSpec("after", { replicas: 1 }));
  await cluster.running("after", 1);
  await cluster.playground.kill("node-1", "daemon");
  await machine.startDaemon();
  await cluster.running("before", 1);
  await assertThere(["before", "after", ...answered]);

  await cluster.docker(1).ok(["swarm", "leave", "--force"]);
  await machine.stopDaemon();
  inMachine("umount", disk);
  await machine.startDaemon();
});

/** Whether etcd's log, which is written before anything else of it, has this text. */
function etcdHas(text: string): boolean {
  const path = join(directoryOf(1), "etcd/data/member/wal/0000000000000000-0000000000000000.wal");
  if (!existsSync(path)) return false;
  const file = openSync(path, "r");
  try {
    const content = Buffer.alloc(8 * 1024 * 1024);
    return content.subarray(0, readSync(file, content)).includes(text);
  } finally {
    closeSync(file);
  }
}

const hasStore = (place: "store" | "etcd") => existsSync(join(directoryOf(1), place));
const namesEtcd = () => readFileSync(join(directoryOf(1), "swarm/state.json"), "utf8").includes('"store": "etcd"');

const points: readonly { readonly what: string; readonly isReached: () => boolean }[] = [
  { what: "etcd is founded", isReached: () => existsSync(join(directoryOf(1), "etcd/etcd.pid")) },
  { what: "objects are copied", isReached: () => etcdHas("/shoal/services/") },
  { what: "all are copied", isReached: () => etcdHas("/shoal-meta/head") },
  { what: "etcd is what counts", isReached: namesEtcd },
  { what: "LMDB is removed", isReached: () => !hasStore("store") },
];

for (const { what, isReached } of points) {
  test(`kill -9 in the move into etcd, when ${what}: nothing is lost, and the manager comes up whole`, async () => {
    await init();
    const answered = Array.from({ length: 200 }, (_, index) => `s${index}`);
    await Promise.all(answered.map((name) => api.post("/services/create", serviceSpec(name, { bytes: 4_096 }))));
    const token = await cluster.token("manager");
    const joining = cluster.docker(2).run(["swarm", "join", "--token", token, cluster.managerAddress()]);
    let killed = false;
    const writing = (async () => {
      for (let count = 0; !killed; count++) {
        const name = `w${count}`;
        const answer = await api.ask("POST", "/services/create", serviceSpec(name)).catch(() => undefined);
        if (answer?.status === 201) answered.push(name);
      }
    })();
    await eventually({ what, limitMs: 20_000, intervalMs: 1, details: async () => "" }, async () => isReached());
    await cluster.playground.kill("node-1", "daemon");
    killed = true;
    await writing;
    await cluster.playground.start("node-1");

    assert.equal(await localState(1), "active true");
    assert.equal(hasStore("etcd"), namesEtcd(), "what is left of the other place is removed");
    assert.equal(hasStore("store"), !namesEtcd(), "what is left of the other place is removed");
    await assertThere(answered);
    await api.post("/services/create", serviceSpec("afterwards"));

    await joining;
    if ((await localState(2)) !== "inactive false") await cluster.docker(2).ok(["swarm", "leave", "--force"]);
    await cluster.docker(2).ok(["swarm", "join", "--token", await cluster.token("manager"), cluster.managerAddress()]);
    await assertThere([...answered, "afterwards"], 2);
    if (what === points.at(-1)!.what) return; // the next step goes on from here
    for (const index of [2, 1]) await cluster.docker(index).ok(["swarm", "leave", "--force"]);
  });
}

/** Files without which a manager can't work, and what is said where one is damaged. */
const damages: readonly { readonly path: string; readonly says: RegExp }[] = [
  { path: "swarm/data-key.json", says: /^error false the node's keys .*data-key\.json cannot be read$/ },
  { path: "swarm/certificates/swarm-node.crt", says: /^error false .*certificate/ },
  { path: "etcd/replica.json", says: /^active false .*replica\.json cannot be read/ },
  { path: "etcd/data/member/snap/db", says: /^active false .*etcd did not become ready/ },
  { path: "swarm/state.json", says: /^error false .*state\.json is damaged: restore it from a backup/ },
];

test("a damaged file on one of several managers: it says so, the others go on, and it can come back anew", async () => {
  const machine = cluster.playground.machine("node-3");
  const former = new Set((await cluster.nodes()).map(({ ID }) => ID));
  const token = await cluster.token("manager");
  await cluster.docker(3).ok(["swarm", "join", "--token", token, cluster.managerAddress()]);
  await cluster.nodeBecomes(3, "ready");
  const whole = `${directoryOf(3)}-whole`;
  await machine.stopDaemon();
  cpSync(directoryOf(3), whole, { recursive: true });
  for (const [at, { path, says }] of damages.entries()) {
    rmSync(directoryOf(3), { recursive: true });
    cpSync(whole, directoryOf(3), { recursive: true });
    writeFileSync(join(directoryOf(3), path), "\0damaged");
    await machine.startDaemon();
    const state = await eventually(
      { what: `${path} is told of`, limitMs: 30_000, details: () => localState(3) },
      async () => {
        const found = await localState(3);
        return says.test(found) && found;
      },
    );
    assert.match(state, says);
    const { status, message } = await cluster.api(3).ask("GET", "/services");
    assert.equal(status, 503, message);
    await api.post("/services/create", serviceSpec(`without-${at}`, { replicas: 1 }));
    await cluster.running(`without-${at}`, 1);
    if (at < damages.length - 1) await machine.stopDaemon();
  }
  await cluster.docker(3).ok(["swarm", "leave", "--force"]);
  assert.equal(await localState(3), "inactive false");
  const { ID } = (await cluster.nodes()).find((node) => !former.has(node.ID))!;
  await cluster.docker(1).ok(["node", "demote", ID]);
  await cluster.docker(1).ok(["node", "rm", "--force", ID]);
  await cluster.docker(3).ok(["swarm", "join", "--token", token, cluster.managerAddress()]);
  await assertThere(
    damages.map((_, at) => `without-${at}`),
    3,
  );
  rmSync(whole, { recursive: true });
});
