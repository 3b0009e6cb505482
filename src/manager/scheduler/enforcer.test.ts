import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenericResource, ServiceSpec } from "../../model/types.ts";
import { constraintEnforcer } from "./enforcer.ts";
import { Cluster, type NodeFacts, putNode, putService, putSpec, putTask } from "./harness.test.ts";

const ssd: ServiceSpec = { TaskTemplate: { Placement: { Constraints: ["node.labels.disk==ssd"] } } };

test("tasks that the node's labels no longer allow are rejected, others stay", async () => {
  const cluster = await Cluster.open();
  await cluster.write((tx) => {
    putNode(tx, "n1", { labels: { disk: "ssd" } });
    putService(tx, "web", ssd);
    putService(tx, "other");
    putTask(tx, "t1", { NodeID: "n1", state: "running" });
    putTask(tx, "starting", { NodeID: "n1", state: "preparing", DesiredState: "ready" });
    putTask(tx, "t2", { NodeID: "n1", state: "running", service: "other" });
    putTask(tx, "done", { NodeID: "n1", state: "failed" });
    putTask(tx, "stopping", { NodeID: "n1", state: "running", DesiredState: "shutdown" });
  });
  await cluster.settle(constraintEnforcer, "n1");
  assert.equal(cluster.task("t1").Status.State, "running");
  await cluster.write((tx) => putNode(tx, "n1", { labels: { disk: "hdd" } }));
  await cluster.settle(constraintEnforcer, "n1");
  const { Status, DesiredState } = cluster.task("t1");
  assert.equal(Status.State, "rejected");
  assert.equal(Status.Err, "assigned node no longer meets constraints");
  assert.equal(DesiredState, "running", "whether it is to run is not the enforcer's to say");
  assert.equal(cluster.task("starting").Status.State, "rejected");
  assert.equal(cluster.task("t2").Status.State, "running");
  assert.equal(cluster.task("done").Status.State, "failed");
  assert.equal(cluster.task("stopping").Status.State, "running");
});

test("only active nodes are looked at", async () => {
  for (const availability of ["pause", "drain"] as const) {
    const cluster = await Cluster.open();
    await cluster.write((tx) => {
      putNode(tx, "n1", { availability });
      putService(tx, "web", ssd);
      putTask(tx, "t1", { NodeID: "n1", state: "running" });
    });
    await cluster.settle(constraintEnforcer, "n1");
    await cluster.settle(constraintEnforcer, "gone");
    assert.equal(cluster.task("t1").Status.State, "running");
  }
});

test("the service's current constraints count, not those that the task was made with", async () => {
  const cluster = await Cluster.open();
  await cluster.write((tx) => {
    putNode(tx, "n1", { labels: { disk: "hdd" } });
    putService(tx, "web", ssd);
    putSpec(tx, "web", {}, 2);
    tx.put("services", { ...tx.service("web")!, SpecVersion: { Index: 2 } });
    putTask(tx, "t1", { NodeID: "n1", state: "running" });
    putSpec(tx, "deleted", ssd);
    putTask(tx, "orphan", { NodeID: "n1", state: "running", service: "deleted" });
  });
  await cluster.settle(constraintEnforcer, "n1");
  assert.equal(cluster.task("t1").Status.State, "running");
  assert.equal(cluster.task("orphan").Status.State, "rejected");
});

test("a node that shrank keeps the oldest tasks that still fit", async () => {
  const cluster = await Cluster.open();
  const machine = (cpus: number, gpus: string[]): NodeFacts => {
    const GenericResources = gpus.map((Value) => ({ NamedResourceSpec: { Kind: "GPU", Value } }));
    return { description: { Resources: { NanoCPUs: cpus * 1e9, MemoryBytes: 1e9, GenericResources } } };
  };
  await cluster.write((tx) => {
    putNode(tx, "n1", machine(4, ["a", "b"]));
    const gpu = [{ DiscreteResourceSpec: { Kind: "GPU", Value: 1 } }];
    putService(tx, "web", { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 1e9, MemoryBytes: 1 } } } });
    putService(tx, "ai", { TaskTemplate: { Resources: { Reservations: { GenericResources: gpu } } } });
    putTask(tx, "z-old", { NodeID: "n1", state: "running" });
    putTask(tx, "z-gpu", { NodeID: "n1", state: "running", service: "ai" });
    const held = [{ NamedResourceSpec: { Kind: "GPU", Value: "a" } }];
    tx.put("tasks", { ...tx.get("tasks", "z-gpu")!, AssignedGenericResources: held });
  });
  cluster.clock.time += 1000;
  await cluster.write((tx) => {
    putTask(tx, "a-new", { NodeID: "n1", state: "running" });
    putTask(tx, "a-gpu", { NodeID: "n1", state: "running", service: "ai" });
    const held = [{ NamedResourceSpec: { Kind: "GPU", Value: "b" } }];
    tx.put("tasks", { ...tx.get("tasks", "a-gpu")!, AssignedGenericResources: held });
  });
  await cluster.settle(constraintEnforcer, "n1");
  await cluster.write((tx) => putNode(tx, "n1", machine(1, ["b"])));
  await cluster.settle(constraintEnforcer, "n1");
  const states = ["z-old", "a-new", "z-gpu", "a-gpu"].map((id) => cluster.task(id).Status.State);
  // Of what has a name, it is not age that counts: only the younger one has the GPU that is left.
  assert.deepEqual(states, ["running", "rejected", "rejected", "running"]);
});

test("an amount that shrank is kept by the oldest; a kind that has names now is another one", async () => {
  const cluster = await Cluster.open();
  const ssd = (Value: number) => ({ DiscreteResourceSpec: { Kind: "SSD", Value } });
  const offers = (...GenericResources: GenericResource[]): NodeFacts => ({
    description: { Resources: { GenericResources } },
  });
  const tasks = ["old", "new"];
  await cluster.write((tx) => {
    putNode(tx, "n1", offers(ssd(4)));
    putService(tx, "web", { TaskTemplate: { Resources: { Reservations: { GenericResources: [ssd(2)] } } } });
  });
  for (const id of tasks) {
    cluster.clock.time += 1000;
    await cluster.write((tx) => {
      putTask(tx, id, { NodeID: "n1", state: "running" });
      tx.put("tasks", { ...tx.get("tasks", id)!, AssignedGenericResources: [ssd(2)] });
    });
  }
  const states = async (...offered: GenericResource[]) => {
    await cluster.write((tx) => putNode(tx, "n1", offers(...offered)));
    await cluster.settle(constraintEnforcer, "n1");
    return tasks.map((id) => cluster.task(id).Status.State);
  };
  assert.deepEqual(await states(ssd(4)), ["running", "running"]);
  assert.deepEqual(await states(ssd(3)), ["running", "rejected"]);
  const named = ["a", "b", "c"].map((Value) => ({ NamedResourceSpec: { Kind: "SSD", Value } }));
  assert.deepEqual(await states(...named), ["rejected", "rejected"]);
});

test("it is woken by what it looks at", async () => {
  const cluster = await Cluster.open();
  const woken: string[] = [];
  cluster.store.watch(({ changes }) => {
    for (const change of changes) woken.push(...constraintEnforcer.wakes(change, cluster.store.view));
  });
  await cluster.write((tx) => putNode(tx, "n1"));
  assert.deepEqual(woken.splice(0), ["n1"]);
  await cluster.write((tx) => putNode(tx, "n1", { state: "down" }));
  await cluster.write((tx) => putTask(tx, "t1"));
  assert.deepEqual(woken.splice(0), []);
  await cluster.write((tx) => putNode(tx, "n1", { labels: { a: "b" } }));
  assert.deepEqual(woken.splice(0), ["n1"]);
  await cluster.write((tx) => tx.delete("nodes", "n1"));
  assert.deepEqual(woken, []);
  await cluster.write((tx) => putNode(tx, "n2"));
  assert.deepEqual([...constraintEnforcer.keys(cluster.store.view)], ["n2"]);
});
