import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Node, NodeRole } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { takeLead } from "../../store/replica.ts";
import { Store } from "../../store/store.ts";
import type { Draft } from "../../store/view.ts";
import { rolesLoop } from "./roles.ts";

function node(ID: string, Role: NodeRole, desired: NodeRole = Role): Draft<Node> {
  return {
    ID,
    Spec: { Role: desired, Availability: "active" },
    Status: { State: "ready" },
    Role,
    ...(Role === "manager" && { ManagerStatus: { Addr: `${ID}:2377` } }),
    Certificate: { State: "issued", Role, CSR: "csr", Certificate: "chain" },
  };
}

async function running(nodes: Draft<Node>[], removeReplica: (nodeId: string) => Promise<void> = async () => {}) {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) => {
    for (const each of nodes) tx.create("nodes", each);
  });
  const fence = await takeLead(store, "leader");
  const done: string[] = [];
  const roles = rolesLoop({
    nodeId: "leader",
    store,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    fence,
    removeReplica: async (nodeId) => {
      await removeReplica(nodeId);
      done.push(`removed ${nodeId} as ${store.view.get("nodes", nodeId)?.Role}`);
    },
    resign: async () => void done.push("resigned"),
  });
  roles.start();
  return { clock, store, roles, done, now: (id: string) => store.view.get("nodes", id)! };
}

/** Waits for a condition; fails when it does not come true. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    assert.ok(turn < 500, "it does not happen");
    await new Promise<void>((resolve) => systemClock.after(1, resolve));
  }
}

test("promoting gives the role first, and asks for a certificate with it", async () => {
  const { now, roles, done } = await running([node("leader", "manager"), node("w", "worker", "manager")]);
  await until(() => now("w").Role === "manager");
  assert.deepEqual(now("w").Certificate, { State: "rotate", Role: "manager", CSR: "csr", Certificate: "chain" });
  assert.equal(now("w").ManagerStatus, undefined, "it is among the managers only when it takes part in the store");
  assert.deepEqual(done, []);
  await roles.stop();
});

test("demoting takes the replica out while the node is still a manager, and then the role", async () => {
  const { now, roles, done } = await running([node("leader", "manager"), node("m", "manager", "worker")]);
  await until(() => now("m").Role === "worker");
  assert.deepEqual(done, ["removed m as manager"]);
  assert.equal(now("m").ManagerStatus, undefined);
  assert.equal(now("m").Certificate?.State, "rotate");
  await roles.stop();
});

test("the leader hands over instead of demoting itself", async () => {
  const { now, roles, done } = await running([node("leader", "manager", "worker"), node("m", "manager")]);
  await until(() => done.length > 0);
  assert.deepEqual(done, ["resigned"]);
  assert.equal(now("leader").Role, "manager");
  await roles.stop();
});

test("what would lose the quorum waits, keeps the role, and does not hold up the others", async () => {
  let refuse = true;
  const remove = async (nodeId: string) => {
    if (nodeId === "m1" && refuse) throw new ShoalError("FailedPrecondition", "loss of quorum");
  };
  const nodes = [node("leader", "manager"), node("m1", "manager", "worker"), node("m2", "manager", "worker")];
  const { clock, now, roles } = await running(nodes, remove);
  await until(() => now("m2").Role === "worker");
  await until(() => roles.report().lastError === "loss of quorum");
  assert.equal(now("m1").Role, "manager");
  refuse = false;
  clock.advance(5_000);
  await until(() => now("m1").Role === "worker");
  await roles.stop();
});

test("a deposed leader changes nobody's role", async () => {
  const { store, now, roles } = await running([node("leader", "manager"), node("w", "worker")]);
  await takeLead(store, "other");
  const { Version, CreatedAt, UpdatedAt, ...w } = now("w");
  await store.update((tx) => tx.put("nodes", { ...w, Version, CreatedAt, UpdatedAt, Spec: { Role: "manager" } }));
  await until(() => roles.report().failures > 0);
  assert.match(roles.report().lastError ?? "", /no longer leads/);
  assert.equal(now("w").Role, "worker");
  await roles.stop();
});
