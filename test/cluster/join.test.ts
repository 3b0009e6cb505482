/**
 * A swarm of one manager and two workers, each on a machine of its own: who gets in, who is kept out, where tasks run,
 * and what is left when a machine, a wire or a daemon goes. The steps build on each other.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { IdentityFiles } from "../../src/ca/identity-files.ts";
import { NodeKeys } from "../../src/daemon/data-key.ts";
import { dataKeyPath } from "../../src/daemon/open-store.ts";
import { swarmDirectory } from "../../src/daemon/state-file.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { managerDialer } from "../../src/rpc/client.ts";
import type { NodeIdentity } from "../../src/rpc/services.ts";
import { Cluster, type NodeView, type Placed } from "./cluster.ts";
import { type Docker, settleMs } from "./harness.ts";

const cluster = new Cluster("join", "10.87.0");
const image = "shoal/sample:latest";
const create = ["service", "create", "--detach", "--quiet", "--restart-delay", "0s"];
/** From a worker's end to its tasks running elsewhere (restart delay 0), as promised. */
const elsewhereLimitMs = 7000;
let manager: Docker;

before(async () => {
  await cluster.start(3);
  manager = cluster.docker(1);
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
});

after(() => cluster.stop());

function joinArgs(token: string, address = cluster.managerAddress()): string[] {
  return ["swarm", "join", "--token", token, address];
}

async function joinWorker(index: number): Promise<NodeView> {
  const said = await cluster.docker(index).ok(joinArgs(await cluster.token("worker")));
  assert.match(said, /This node joined a swarm as a worker/);
  return await cluster.nodeBecomes(index, "ready");
}

async function localState(index: number): Promise<string> {
  const info = await cluster.api(index).get<{ Swarm: { LocalNodeState: string; ControlAvailable: boolean } }>("/info");
  return `${info.Swarm.LocalNodeState}${info.Swarm.ControlAvailable ? " manager" : ""}`;
}

/** How many of them are on each node, by name. */
function spread(placed: readonly Placed[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { node } of placed) counts[node] = (counts[node] ?? 0) + 1;
  return counts;
}

function containersOf(placed: readonly Placed[]): string[] {
  return placed.map(({ container }) => container).sort();
}

function only(name: string): (placed: readonly Placed[]) => boolean {
  return (placed) => placed.every(({ node }) => node === name);
}

async function remove(...services: readonly string[]): Promise<void> {
  await manager.ok(["service", "rm", ...services]);
  await cluster.until("their containers are gone", async () => {
    const left = await Promise.all(services.map((service) => cluster.containers(service)));
    return left.every((containers) => containers.length === 0);
  });
}

/** The node's identity as it is on its disk. */
async function identityOf(index: number): Promise<NodeIdentity> {
  const dataDirectory = `${cluster.layout(index).dataDir}/shoal`;
  const keys = new NodeKeys(dataKeyPath(dataDirectory), systemRandom);
  await keys.load();
  const identity = await new IdentityFiles(swarmDirectory(dataDirectory), keys).load();
  assert.ok(identity, `node-${index} has no certificate`);
  return identity;
}

/** A call that only members of the cluster may make, with that certificate; the session itself is unknown. */
async function callManager(identity: NodeIdentity): Promise<void> {
  const connection = managerDialer.dial(cluster.managerAddress(), identity);
  try {
    await connection.heartbeat("no-session", AbortSignal.timeout(5000));
  } finally {
    connection.close();
  }
}

describe("who is kept out", () => {
  /** No trace of the attempt, on either side. */
  async function nothingLeft(index: number): Promise<void> {
    assert.equal(await localState(index), "inactive");
    assert.equal((await cluster.nodes()).length, 1);
  }

  test("a malformed token", async () => {
    for (const token of ["SWMTKN-1-short", "nonsense", `${await cluster.token("worker")}x`]) {
      assert.match(await cluster.docker(2).refused(joinArgs(token)), /invalid join token/);
    }
    await nothingLeft(2);
  });

  test("a token whose secret is another", async () => {
    const token = (await cluster.token("worker")).replace(/-[^-]+$/, `-${"0".repeat(25)}`);
    const startedAt = performance.now();
    const said = await cluster.docker(2).refused(joinArgs(token));
    assert.match(said, /A valid join token is necessary to join this cluster/);
    assert.ok(performance.now() - startedAt < 5000, "Swarm takes 10 s to say so");
    await nothingLeft(2);
  });

  test("a token with another fingerprint, and one of another swarm", async () => {
    const token = (await cluster.token("worker")).replace(/^SWMTKN-1-[^-]+/, `SWMTKN-1-${"1".repeat(50)}`);
    assert.match(await cluster.docker(2).refused(joinArgs(token)), /remote CA does not match fingerprint/);
    await nothingLeft(2);
    await cluster.docker(3).ok(["swarm", "init", "--advertise-addr", cluster.layout(3).address]);
    const foreign = await cluster.token("worker", 3);
    const stranger = await identityOf(3);
    assert.match(await cluster.docker(2).refused(joinArgs(foreign)), /remote CA does not match fingerprint/);
    // Nor does a certificate of that swarm open anything here, though it is a manager's.
    await assert.rejects(callManager({ ...stranger, rootCA: await rootOf(1) }), { code: "PermissionDenied" });
    await cluster.docker(3).ok(["swarm", "leave", "--force"]);
    await nothingLeft(2);
  });

  test("a token that was rotated, and only that one", async () => {
    const [oldWorker, oldManager] = [await cluster.token("worker"), await cluster.token("manager")];
    await manager.ok(["swarm", "join-token", "--rotate", "--quiet", "worker"]);
    assert.equal(await cluster.token("manager"), oldManager);
    assert.notEqual(await cluster.token("worker"), oldWorker);
    const said = await cluster.docker(2).refused(joinArgs(oldWorker));
    assert.match(said, /A valid join token is necessary to join this cluster/);
    await nothingLeft(2);
  });

  test("a manager that cannot be reached is tried in the background, until it can", async () => {
    await cluster.playground.partition("node-2");
    const startedAt = performance.now();
    const said = await cluster.docker(2).refused(joinArgs(await cluster.token("worker")));
    const tookMs = performance.now() - startedAt;
    assert.match(said, /Timeout was reached before node joined.*will continue in the background/s);
    assert.ok(tookMs < 25_000, `it took ${tookMs} ms`);
    assert.equal(await localState(2), "pending");
    await cluster.playground.heal("node-2");
    await cluster.nodeBecomes(2, "ready");
    assert.equal(await localState(2), "active");
    await cluster.docker(2).ok(["swarm", "leave"]);
    const { ID } = await cluster.nodeBecomes(2, "down");
    await manager.ok(["node", "rm", ID]);
    await nothingLeft(2);
  });
});

async function rootOf(index: number): Promise<string> {
  return (await cluster.api(index).get<{ TLSInfo: { TrustRoot: string } }>("/swarm")).TLSInfo.TrustRoot;
}

describe("members", () => {
  test("workers join in under a second, and node ls shows them", async () => {
    for (const index of [2, 3]) {
      const startedAt = performance.now();
      await cluster.docker(index).ok(joinArgs(await cluster.token("worker")));
      const tookMs = performance.now() - startedAt;
      await cluster.nodeBecomes(index, "ready");
      assert.ok(tookMs < 1000, `node-${index} took ${tookMs} ms to join`);
    }
    const format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.Self}}";
    assert.deepEqual((await manager.lines(["node", "ls", "--format", format])).sort(), [
      "node-1 Ready Active Leader true",
      "node-2 Ready Active  false",
      "node-3 Ready Active  false",
    ]);
    const addresses = (await cluster.nodes()).map(({ Status }) => Status.Addr).sort();
    assert.deepEqual(addresses, [1, 2, 3].map((index) => cluster.layout(index).address).sort());
  });

  test("a worker says that it is one, and cannot be asked about the swarm", async () => {
    const worker = cluster.docker(2);
    assert.equal(await localState(2), "active");
    assert.match(await worker.refused(["node", "ls"]), /Worker nodes can't be used to view or modify cluster state/);
    assert.match(await worker.refused(["service", "create", image]), /Worker nodes can't be used/);
    assert.match(await worker.refused(joinArgs(await cluster.token("worker"))), /already part of a swarm/);
    assert.match(await worker.refused(["swarm", "init"]), /already part of a swarm/);
    const format = "{{range .Swarm.RemoteManagers}}{{.Addr}}{{end}}";
    assert.equal(await worker.ok(["info", "--format", format]), cluster.managerAddress());
  });

  test("the playground lists what the swarm says", async () => {
    const listed = await cluster.playground.list();
    assert.deepEqual(
      listed.map(({ name, role, state, status }) => `${name} ${role} ${state} ${status}`),
      ["node-1 manager up ready", "node-2 worker up ready", "node-3 worker up ready"],
    );
    await cluster.playground.formSwarm(); // it is one already
    assert.equal((await cluster.nodes()).length, 3);
  });

  test("a worker leaves, is Down, is removed, and comes back as another node", async () => {
    await manager.ok([...create, "--name", "brief", "--mode", "global", image]);
    await cluster.running("brief", 3);
    assert.match(await cluster.docker(3).ok(["swarm", "leave"]), /Node left the swarm/);
    assert.equal(await localState(3), "inactive");
    assert.deepEqual(await cluster.engine(3).containers(), []);
    const { ID } = await cluster.nodeBecomes(3, "down");
    await cluster.running("brief", 2);
    await manager.ok(["node", "rm", ID]);
    assert.equal((await cluster.nodes()).length, 2);
    assert.notEqual((await joinWorker(3)).ID, ID);
    await cluster.running("brief", 3);
    await remove("brief");
  });

  test("a node that is removed by force is out at once, and its certificate opens nothing", async () => {
    const { ID } = await cluster.node(3);
    const identity = await identityOf(3);
    assert.match(await manager.refused(["node", "rm", ID]), /is not down and can't be removed/);
    await assert.rejects(callManager(identity), (error: { code: string }) => error.code !== "PermissionDenied");
    await manager.ok([...create, "--name", "whole", "--mode", "global", image]);
    await cluster.running("whole", 3);
    await manager.ok(["node", "rm", "--force", ID]);
    await assert.rejects(callManager(identity), { code: "PermissionDenied" });
    await cluster.until("only two tasks are left", async () => {
      const running = (await cluster.api(1).tasks("whole")).filter(({ DesiredState }) => DesiredState === "running");
      return running.length === 2;
    });
    assert.equal((await cluster.nodes()).length, 2);
    await cluster.docker(3).ok(["swarm", "leave", "--force"]);
    assert.deepEqual(await cluster.engine(3).containers(), []);
    await cluster.running("whole", 2);
    await joinWorker(3);
    await cluster.running("whole", 3);
    await remove("whole");
  });

  test("what only several managers can do is refused in Swarm's words", async () => {
    assert.match(await manager.refused(["node", "demote", "node-1"]), /demote the last manager of the swarm/);
    const self = (await cluster.node(1)).ID;
    assert.match(await manager.refused(["node", "rm", "--force", self]), /It must be demoted to worker before removal/);
    assert.match(await manager.refused(["swarm", "leave"]), /participating as a manager/);
    assert.match(await manager.refused(["node", "update", "--availability", "away", "node-2"]), /[Aa]vailability/);
    assert.match(
      await manager.refused(["node", "inspect", "node-9"]),
      /(?:[Nn]o such node: node-9|node node-9 not found)/,
    );
    assert.match(await manager.refused(["node", "rm", "node-9"]), /node node-9 not found/);
  });
});

describe("where tasks run", () => {
  test("six tasks are two on each node, and node ps tells them", async () => {
    await manager.ok([...create, "--name", "web", "--replicas", "6", image]);
    const placed = await cluster.running("web", 6);
    assert.deepEqual(spread(placed), { "node-1": 2, "node-2": 2, "node-3": 2 });
    const format = "{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}}";
    const listed = await manager.lines(["node", "ps", "--format", format, "node-2"]);
    const expected = placed
      .filter(({ node }) => node === "node-2")
      .map(({ slot }) => `web.${slot} node-2 Running Running`);
    assert.deepEqual(
      listed.map((line) => line.replace(/ (?:less than|about|\d+) .*ago$/i, "")).sort(),
      expected.sort(),
    );
  });

  test("drained, a node gives up its tasks; active again, it takes new ones and no old ones", async () => {
    const before = await cluster.running("web", 6);
    await manager.ok(["node", "update", "--availability", "drain", "node-2"]);
    const drained = await cluster.running("web", 6, (placed) => spread(placed)["node-2"] === undefined);
    assert.deepEqual(spread(drained), { "node-1": 3, "node-3": 3 });
    const stayed = containersOf(before.filter(({ node }) => node !== "node-2"));
    assert.ok(stayed.every((container) => containersOf(drained).includes(container)));
    await manager.ok(["node", "update", "--availability", "active", "node-2"]);
    await manager.ok(["service", "scale", "--detach", "web=9"]);
    const grown = await cluster.running("web", 9);
    assert.deepEqual(spread(grown), { "node-1": 3, "node-2": 3, "node-3": 3 });
    assert.ok(containersOf(drained).every((container) => containersOf(grown).includes(container)));
  });

  test("paused, a node keeps its tasks and takes none", async () => {
    const before = await cluster.running("web", 9);
    await manager.ok(["node", "update", "--availability", "pause", "node-2"]);
    await manager.ok(["service", "scale", "--detach", "web=12"]);
    const grown = await cluster.running("web", 12);
    assert.equal(spread(grown)["node-2"], 3);
    assert.ok(containersOf(before).every((container) => containersOf(grown).includes(container)));
    await manager.ok(["node", "update", "--availability", "active", "node-2"]);
    await manager.ok(["service", "scale", "--detach", "web=6"]);
    assert.deepEqual(spread(await cluster.running("web", 6)), { "node-1": 2, "node-2": 2, "node-3": 2 });
  });

  test("a label on a node moves what is bound to it", async () => {
    await manager.ok(["node", "update", "--label-add", "disk=fast", "node-2"]);
    assert.deepEqual((await cluster.node(2)).Spec.Labels, { disk: "fast" });
    const bound = ["--constraint", "node.labels.disk==fast"];
    await manager.ok([...create, "--name", "bound", "--replicas", "2", ...bound, image]);
    await cluster.running("bound", 2, only("node-2"));
    await manager.ok(["node", "update", "--label-add", "disk=fast", "node-3"]);
    await manager.ok(["node", "update", "--label-rm", "disk", "node-2"]);
    await cluster.running("bound", 2, only("node-3"));
    const roles = ["--constraint", "node.role==worker", "--constraint", "node.hostname!=node-3"];
    await manager.ok([...create, "--name", "role", "--replicas", "2", ...roles, image]);
    await cluster.running("role", 2, only("node-2"));
    await remove("bound", "role");
  });

  test("service logs come from all nodes, each line once", async () => {
    const talk = ["sh", "-c", "for i in 1 2 3; do echo $i; done; exec sleep 1000"];
    await manager.ok([...create, "--name", "talk", "--mode", "global", "--stop-grace-period", "1s", image, ...talk]);
    await cluster.running("talk", 3);
    const linesOf = async (...options: string[]) =>
      (await manager.lines(["service", "logs", ...options, "talk"])).map((line) => {
        const [, node, number] = /@(node-\d)\s+\| (\d)$/.exec(line) ?? [];
        return `${node} ${number}`;
      });
    const expected = [1, 2, 3].flatMap((node) => [1, 2, 3].map((line) => `node-${node} ${line}`));
    const lines = await cluster.until("all lines are there", async () => {
      const found = await linesOf();
      return found.length >= expected.length && found;
    });
    assert.deepEqual(lines.sort(), expected);
    assert.deepEqual((await linesOf("--tail", "1")).sort(), ["node-1 3", "node-2 3", "node-3 3"]);
    await remove("talk");
  });
});

describe("what goes wrong", () => {
  /** As many tasks as wanted, each in a slot of its own, and no container besides. */
  async function settled(count: number): Promise<Placed[]> {
    const placed = await cluster.running("web", count);
    const ids = (await cluster.api(1).tasks("web"))
      .filter(({ DesiredState }) => DesiredState === "running")
      .map(({ Slot }) => Slot);
    assert.equal(new Set(ids).size, count, "a slot is filled twice");
    return placed;
  }

  /** Something new runs on the node: it is in touch with the manager now, and not only remembered as Ready. */
  async function inTouch(index: number): Promise<void> {
    await manager.ok([...create, "--name", "probe", "--constraint", `node.hostname==node-${index}`, image]);
    await cluster.running("probe", 1);
    await remove("probe");
  }

  test("a worker's daemon is killed: it comes back and adopts what ran", async () => {
    const before = await settled(6);
    await cluster.playground.kill("node-2", "daemon");
    assert.deepEqual(containersOf((await cluster.containers("web")) as Placed[]), containersOf(before));
    await cluster.playground.start("node-2");
    await inTouch(2);
    assert.deepEqual(containersOf(await settled(6)), containersOf(before));
  });

  test("the manager's daemon is killed: the workers' containers are the same afterwards", async () => {
    const before = await settled(6);
    for (const part of ["daemon", "machine"] as const) {
      await cluster.playground.kill("node-1", part);
      await cluster.playground.start("node-1");
      for (const index of [1, 2, 3]) await inTouch(index);
      const now = await settled(6);
      const workers = (placed: readonly Placed[]) => containersOf(placed.filter(({ node }) => node !== "node-1"));
      assert.deepEqual(workers(now), workers(before), `after kill -9 of the manager's ${part}`);
    }
  });

  test("a worker loses its power: its tasks run elsewhere, and once only when it is back", async (t) => {
    const before = await settled(6);
    const killedAt = performance.now();
    await cluster.playground.kill("node-3");
    await cluster.nodeBecomes(3, "down");
    t.diagnostic(`Down after ${Math.round(performance.now() - killedAt)} ms`);
    const without = await cluster.running("web", 6, (placed) => spread(placed)["node-3"] === undefined);
    const elsewhereMs = performance.now() - killedAt;
    t.diagnostic(`its tasks run elsewhere after ${Math.round(elsewhereMs)} ms`);
    assert.ok(elsewhereMs < elsewhereLimitMs, "a dead worker's tasks took too long");
    const kept = containersOf(before.filter(({ node }) => node !== "node-3"));
    assert.ok(kept.every((container) => containersOf(without).includes(container)));
    assert.equal((await cluster.playground.list())[2]?.status, "down");
    await cluster.playground.start("node-3");
    await cluster.nodeBecomes(3, "ready");
    assert.deepEqual(containersOf(await settled(6)), containersOf(without));
    await cluster.until("what it ran before is removed", async () =>
      (await cluster.engine(3).containers()).every(({ State }) => State !== "running"),
    );
  });

  test("a worker is cut off: its tasks run elsewhere; healed, nothing runs twice", async (t) => {
    await manager.ok(["service", "scale", "--detach", "web=9"]);
    assert.equal(spread(await settled(9))["node-3"], 3);
    const cutAt = performance.now();
    await cluster.playground.partition("node-3");
    await cluster.until("its tasks run elsewhere", async () => {
      const elsewhere = (await cluster.containers("web")).filter(({ node }) => node !== "node-3");
      return elsewhere.length === 9;
    });
    const elsewhereMs = performance.now() - cutAt;
    t.diagnostic(`its tasks run elsewhere after ${Math.round(elsewhereMs)} ms`);
    assert.ok(elsewhereMs < elsewhereLimitMs, "the tasks of a worker that is cut off took too long");
    assert.equal(
      (await cluster.containers("web")).filter(({ node }) => node === "node-3").length,
      3,
      "they run on, alone",
    );
    await cluster.playground.heal("node-3");
    await cluster.nodeBecomes(3, "ready");
    const healed = await settled(9);
    assert.equal(spread(healed)["node-3"], undefined);
    await manager.ok(["service", "scale", "--detach", "web=12"]);
    assert.equal(spread(await settled(12))["node-3"], 3);
  });

  test("a short cut is nobody's death", async () => {
    const before = await settled(12);
    await cluster.playground.split(["node-2"]);
    // The manager pings its nodes; what it finds dead is Down. A cut that ends before leaves all as it was.
    await cluster.playground.heal("node-2");
    await inTouch(2);
    assert.deepEqual(containersOf(await settled(12)), containersOf(before));
  });

  test("a worker's Engine dies: the node is Down, its tasks run elsewhere; it takes part again with its Engine", async (t) => {
    const before = await settled(12);
    const killedAt = performance.now();
    await cluster.playground.kill("node-3", "engine");
    await cluster.nodeBecomes(3, "down");
    t.diagnostic(`Down after ${Math.round(performance.now() - killedAt)} ms`);
    assert.ok((await manager.lines(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])).includes("node-3 Down"));
    const without = await cluster.running("web", 12, (placed) => spread(placed)["node-3"] === undefined);
    const kept = containersOf(before.filter(({ node }) => node !== "node-3"));
    assert.ok(kept.every((container) => containersOf(without).includes(container)));
    await cluster.playground.start("node-3");
    await cluster.nodeBecomes(3, "ready");
    await inTouch(3);
    assert.deepEqual(containersOf(await settled(12)), containersOf(without));
  });

  test("two workers that do not reach each other still reach the manager", async () => {
    await cluster.playground.split(["node-2"]);
    await cluster.playground.heal("node-1"); // the cut between the workers stays
    const states = (await cluster.playground.list()).map(({ name, state }) => `${name} ${state}`);
    assert.deepEqual(states, ["node-1 up", "node-2 partitioned", "node-3 partitioned"]);
    await manager.ok([...create, "--name", "probe", "--mode", "global", image]);
    await cluster.running("probe", 3);
    await cluster.playground.heal("node-2");
    await remove("probe");
  });

  test("no daemon has logged a broken promise", () => {
    for (const index of [1, 2, 3]) {
      const log = readFileSync(cluster.layout(index).daemonLog, "utf8");
      const broken = log.split("\n").filter((line) => /level=(?:error|fatal)|TypeError|unhandled/i.test(line));
      assert.deepEqual(broken, [], `node-${index}`);
    }
  });

  test("the last worker gone, everything runs on the manager", { timeout: 3 * settleMs }, async () => {
    await manager.ok(["service", "scale", "--detach", "web=2"]);
    await settled(2);
    for (const index of [2, 3]) await cluster.docker(index).ok(["swarm", "leave"]);
    await cluster.running("web", 2, only("node-1"));
  });
});
