import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, within } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { defaultIngressSpec } from "../../model/networks.ts";
import type { Node, Placement, ServiceSpec } from "../../model/types.ts";
import { drive } from "../planner.ts";
import { Cluster, putNode, putSpec, putTask, type TaskFacts } from "./harness.test.ts";
import { Scheduler } from "./scheduler.ts";

async function start(): Promise<{ cluster: Cluster; schedule: () => Promise<void> }> {
  const cluster = await Cluster.open();
  const scheduler = new Scheduler(cluster.store);
  return { cluster, schedule: () => cluster.settle(scheduler) };
}

function placement(facts: Placement): ServiceSpec {
  return { TaskTemplate: { Placement: facts } };
}

function spread(...descriptors: string[]): Placement {
  return { Preferences: descriptors.map((SpreadDescriptor) => ({ Spread: { SpreadDescriptor } })) };
}

function putTasks(tx: Parameters<typeof putTask>[0], count: number, facts: TaskFacts = {}, prefix = "t"): void {
  for (let i = 0; i < count; i++) putTask(tx, `${prefix}${i}`, facts);
}

const machine = { Resources: { NanoCPUs: 2e9, MemoryBytes: 1e9 } };

test("a pending task gets a node, and says so", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putNode(tx, "n1");
    putSpec(tx, "web");
    putTask(tx, "t1");
    putTask(tx, "fresh", { state: "new" });
  });
  await schedule();
  const { NodeID, Status } = cluster.task("t1");
  assert.equal(NodeID, "n1");
  assert.equal(Status.State, "assigned");
  assert.equal(Status.Message, "scheduler assigned task to node");
  assert.equal(Status.Err, undefined);
  assert.equal(cluster.task("fresh").NodeID, "");
});

test("tasks of a service are spread, then those of all services", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    for (const id of ["n1", "n2", "n3"]) putNode(tx, id);
    putSpec(tx, "web");
    putSpec(tx, "other");
    putTasks(tx, 4, { NodeID: "n1", state: "running", service: "other" }, "o");
    putTasks(tx, 3);
  });
  await schedule();
  const { t0, t1, t2 } = cluster.placed();
  assert.deepEqual([t0, t1, t2].sort(), ["n1", "n2", "n3"], "its own tasks rank before the total");
  await cluster.write((tx) => putTask(tx, "last", { service: "other" }));
  await schedule();
  assert.notEqual(cluster.task("last").NodeID, "n1");
});

test("the text says why there is no node, most frequent reason first", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putSpec(tx, "web", placement({ Constraints: ["node.labels.a==1"] }));
    putTask(tx, "t1");
  });
  await schedule();
  assert.equal(cluster.task("t1").Status.Err, "no suitable node");
  assert.equal(cluster.task("t1").Status.Message, "pending task scheduling");
  await cluster.write((tx) => {
    putNode(tx, "down", { state: "down" });
    putNode(tx, "n1");
    putNode(tx, "n2");
  });
  await schedule();
  assert.equal(
    cluster.task("t1").Status.Err,
    "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks: 1 down)",
  );
  const { Index } = cluster.task("t1").Version;
  await schedule();
  assert.equal(cluster.task("t1").Version.Index, Index, "the same text is not written twice");
  assert.equal(cluster.task("t1").Status.State, "pending");
  await cluster.write((tx) => putNode(tx, "n2", { labels: { a: "1" } }));
  await schedule();
  assert.equal(cluster.task("t1").NodeID, "n2");
  assert.equal(cluster.task("t1").Status.Err, undefined);
});

test("each filter has its text", async () => {
  const volume = { Type: "volume", VolumeOptions: { DriverConfig: { Name: "nfs" } } } as const;
  const port = { Protocol: "tcp", TargetPort: 80, PublishedPort: 80, PublishMode: "host" } as const;
  const specs: Record<string, ServiceSpec> = {
    "insufficient resources on 1 node": { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 3e9 } } } },
    "insufficient resources on 1 node ": { TaskTemplate: { Resources: { Reservations: { MemoryBytes: 2e9 } } } },
    "missing plugin on 1 node": { TaskTemplate: { ContainerSpec: { Mounts: [volume] } } },
    "missing plugin on 1 node ": { TaskTemplate: { LogDriver: { Name: "splunk" } } },
    "missing plugin on 1 node  ": { TaskTemplate: { Networks: [{ Target: "net" }] } },
    "scheduling constraints not satisfied on 1 node": placement({ Constraints: ["node.role==manager"] }),
    "scheduling constraints not satisfied on 1 node ": placement({ Constraints: ["not a constraint"] }),
    "unsupported platform on 1 node": placement({ Platforms: [{ OS: "windows", Architecture: "amd64" }] }),
    "host-mode port already in use on 1 node": { EndpointSpec: { Ports: [port] } },
    "max replicas per node limit exceed": placement({ MaxReplicas: 1 }),
  };
  for (const [text, spec] of Object.entries(specs)) {
    const { cluster, schedule } = await start();
    await cluster.write((tx) => {
      const Engine = { Plugins: [{ Type: "Log", Name: "json-file" }] };
      putNode(tx, "n1", { description: { ...machine, Engine, Platform: { OS: "linux", Architecture: "x86_64" } } });
      tx.create("networks", { ID: "net", Name: "net", Labels: {}, Driver: "weave", Predefined: false });
      putSpec(tx, "web", spec);
      putSpec(tx, "busy", { EndpointSpec: { Ports: [port] } });
      putTask(tx, "busy", { service: "busy", NodeID: "n1", state: "running" });
      putTask(tx, "there", { NodeID: "n1", state: "running" });
      putTask(tx, "t1");
    });
    await schedule();
    assert.equal(cluster.task("t1").Status.Err, `no suitable node (${text.trim()})`);
  }
});

test("tasks on networks go where the network does: not to stock Engines, nor without a key or an ingress address", async () => {
  const { cluster, schedule } = await start();
  const change = (id: string, facts: Partial<Node>) =>
    cluster.write((tx) => void tx.put("nodes", { ...tx.get("nodes", id)!, ...facts }));
  await cluster.write((tx) => {
    for (const id of ["n1", "n2"]) putNode(tx, id);
    const Allocated = { Subnet: "10.0.1.0/24", Gateway: "10.0.1.1", VxlanID: 4097 };
    const overlay = { Labels: {}, Driver: "overlay", Predefined: false, Allocated };
    tx.create("networks", { ID: "net", Name: "net", ...overlay });
    const Spec = { ...defaultIngressSpec, Ingress: false, Options: { encrypted: "" } };
    tx.create("networks", { ID: "secret", Name: "secret", ...overlay, Spec });
    putSpec(tx, "plain", { TaskTemplate: { Networks: [{ Target: "net" }] } });
    putSpec(tx, "secret", { TaskTemplate: { Networks: [{ Target: "secret" }] } });
    putSpec(tx, "mesh", { EndpointSpec: { Ports: [{ TargetPort: 80 }] } });
    putSpec(tx, "host", { EndpointSpec: { Ports: [{ TargetPort: 80, PublishMode: "host" }] } });
    for (const service of ["plain", "secret", "mesh", "host"]) putTask(tx, service, { service });
  });
  await schedule();
  const none = "no suitable node (overlay networks of this swarm not available on 2 nodes)";
  for (const id of ["plain", "secret", "mesh"]) assert.equal(cluster.task(id).Status.Err, none);
  assert.deepEqual(Object.keys(cluster.placed()), ["host"]);

  await change("n2", { DataPath: { address: "192.0.2.2", encryptionProblem: "no WireGuard" } });
  await schedule();
  assert.equal(cluster.placed().plain, "n2");
  const [keyless, unattached] = ["secret", "mesh"].map((id) => cluster.task(id).Status.Err);
  assert.match(keyless ?? "", /encryption of networks not available on 1 node/);
  assert.match(unattached ?? "", /no address on the ingress network on 1 node/);

  const DataPath = { address: "192.0.2.2", publicKey: "key" };
  await change("n2", { DataPath, Attachments: [{ NetworkID: "ingress", Address: "10.0.0.2/24" }] });
  await schedule();
  assert.deepEqual([cluster.placed().secret, cluster.placed().mesh], ["n2", "n2"]);
});

test("platforms and plugins are matched by all of their names", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    const Plugins = [{ Type: "Volume", Name: "nfs:latest" }];
    putNode(tx, "n1", { description: { Platform: { OS: "linux", Architecture: "aarch64" }, Engine: { Plugins } } });
    const Mounts = [{ Type: "volume", VolumeOptions: { DriverConfig: { Name: "nfs" } } } as const];
    putSpec(tx, "web", {
      TaskTemplate: {
        Placement: { Platforms: [{ OS: "linux", Architecture: "amd64" }, { Architecture: "arm64" }] },
        ContainerSpec: { Mounts },
        LogDriver: { Name: "journald" }, // this Engine does not say which log drivers it has
      },
    });
    putTask(tx, "t1");
  });
  await schedule();
  assert.equal(cluster.task("t1").NodeID, "n1");
});

test("a reservation is held until the task has stopped, not until it is told to", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putNode(tx, "n1", { description: machine });
    putSpec(tx, "web", { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 1e9, MemoryBytes: 1 } } } });
    putTasks(tx, 3);
  });
  await schedule();
  assert.equal(cluster.counts()[0], 2);
  const waiting = ["t0", "t1", "t2"].find((id) => !cluster.task(id).NodeID)!;
  const running = ["t0", "t1", "t2"].find((id) => cluster.task(id).NodeID)!;
  assert.equal(cluster.task(waiting).Status.Err, "no suitable node (insufficient resources on 1 node)");
  await cluster.change(running, { DesiredState: "shutdown" });
  await schedule();
  assert.equal(cluster.task(waiting).NodeID, "");
  await cluster.state(running, "shutdown");
  await schedule();
  assert.equal(cluster.task(waiting).NodeID, "n1");
});

test("what a batch itself takes counts within the batch", async () => {
  const { cluster, schedule } = await start();
  const port = { Protocol: "udp", TargetPort: 53, PublishedPort: 53, PublishMode: "host" } as const;
  await cluster.write((tx) => {
    for (const id of ["n1", "n2"]) putNode(tx, id);
    putSpec(tx, "web", { EndpointSpec: { Ports: [port] } });
    putSpec(tx, "few", placement({ MaxReplicas: 2 }));
    putSpec(tx, "other", { EndpointSpec: { Ports: [port] } });
    putTasks(tx, 3);
    putTasks(tx, 5, { service: "few" }, "f");
    putTask(tx, "o", { service: "other" });
  });
  await schedule();
  const placed = cluster.placed();
  assert.equal(Object.keys(placed).filter((id) => id.startsWith("t")).length, 2);
  assert.equal(Object.keys(placed).filter((id) => id.startsWith("f")).length, 4);
  assert.equal(placed.o, undefined, "another service's host port is as taken as its own");
});

test("a global service's task is only confirmed", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putNode(tx, "n1", { description: machine });
    putNode(tx, "n2", { availability: "pause" });
    putSpec(tx, "web", { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 15e8 } } } });
    putTask(tx, "t1", { NodeID: "n1", Slot: 0 });
    putTask(tx, "t2", { NodeID: "n2", Slot: 0 });
    putTask(tx, "t3", { NodeID: "n1", Slot: 0 });
  });
  await schedule();
  assert.equal(cluster.task("t1").Status.State, "assigned");
  assert.equal(cluster.task("t1").Status.Message, "scheduler confirmed task can run on preassigned node");
  assert.equal(cluster.task("t2").Status.Err, "1 node not available for new tasks: 1 paused");
  assert.equal(cluster.task("t3").Status.Err, "insufficient resources on 1 node");
  assert.equal(cluster.task("t3").Status.State, "pending");
  await cluster.state("t1", "failed");
  await schedule();
  assert.equal(cluster.task("t3").Status.State, "assigned");
});

test("a pending task that is to stop is shut down", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putNode(tx, "n1");
    putTask(tx, "gone", { service: "deleted", DesiredState: "remove" });
    putTask(tx, "old", { DesiredState: "shutdown" });
    putTask(tx, "global", { DesiredState: "shutdown", NodeID: "n1" });
    putTask(tx, "specless", { service: "deleted" });
  });
  await schedule();
  for (const id of ["gone", "old", "global"]) assert.equal(cluster.task(id).Status.State, "shutdown");
  assert.equal(cluster.task("specless").Status.State, "pending");
  await cluster.change("specless", { DesiredState: "remove" });
  await schedule();
  assert.equal(cluster.task("specless").Status.State, "shutdown");
});

test("a node where a revision fails over and over comes last, for five minutes", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    for (const id of ["n1", "n2"]) putNode(tx, id);
    putSpec(tx, "web");
    putSpec(tx, "web", {}, 2);
  });
  await schedule();
  await cluster.write((tx) => putTasks(tx, 5, { NodeID: "n1", state: "running" }));
  for (let i = 0; i < 5; i++) await cluster.state(`t${i}`, i % 2 === 0 ? "failed" : "rejected");
  await cluster.write((tx) => {
    for (let i = 0; i < 5; i++) tx.delete("tasks", `t${i}`); // the reaper's work takes nothing from the memory
    putTasks(tx, 3, {}, "a");
    putTasks(tx, 2, { revision: 2 }, "b");
  });
  await schedule();
  const placed = cluster.placed();
  assert.deepEqual([placed.a0, placed.a1, placed.a2], ["n2", "n2", "n2"]);
  assert.deepEqual([placed.b0, placed.b1], ["n1", "n1"], "another revision is not blamed");
  cluster.clock.time += 5 * 60_000;
  await cluster.write((tx) => putTasks(tx, 1, {}, "c"));
  await schedule();
  assert.equal(cluster.placed().c0, "n1");
});

test("failures are known after a restart", async () => {
  const { cluster } = await start();
  await cluster.write((tx) => {
    for (const id of ["n1", "n2"]) putNode(tx, id);
    putSpec(tx, "web");
    putTasks(tx, 5, { NodeID: "n1", state: "failed" });
    putTasks(tx, 2, {}, "a");
  });
  await cluster.settle(new Scheduler(cluster.store));
  assert.deepEqual([cluster.placed().a0, cluster.placed().a1], ["n2", "n2"]);
});

test("preferences nest, and a branch without room leaves its share to the others", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    for (const zone of ["a", "b"]) {
      for (const rack of ["1", "2"]) {
        for (let i = 0; i < (zone === "a" ? 3 : 1); i++) putNode(tx, `${zone}${rack}${i}`, { labels: { zone, rack } });
      }
    }
    putNode(tx, "nowhere");
    putSpec(tx, "web", placement(spread("node.labels.zone", "node.ip", "node.labels.rack")));
    putSpec(tx, "few", placement({ ...spread("node.labels.zone"), MaxReplicas: 2 }));
    putTasks(tx, 12);
    putTasks(tx, 18, { service: "few" }, "f");
  });
  await schedule();
  const perRack: Record<string, number> = {};
  for (const [id, nodeId] of Object.entries(cluster.placed())) {
    if (!id.startsWith("t")) continue;
    const rack = nodeId.slice(0, 2);
    perRack[rack] = (perRack[rack] ?? 0) + 1;
  }
  assert.deepEqual(perRack, { a1: 2, a2: 2, b1: 2, b2: 2, no: 4 });
  const few = Object.entries(cluster.placed()).filter(([id]) => id.startsWith("f"));
  assert.equal(few.length, 18, "all of the 9 nodes have their 2");
});

test("single tasks of many services take turns in the branches", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    for (let i = 0; i < 3; i++) putNode(tx, `n${i}`, { description: { Engine: { Labels: { rack: `${i}` } } } });
    for (let i = 0; i < 9; i++) {
      putSpec(tx, `s${i}`, placement(spread("engine.labels.rack")));
      putTask(tx, `t${i}`, { service: `s${i}` });
    }
  });
  await schedule();
  assert.deepEqual(cluster.counts(), [3, 3, 3]);
});

test("generic resources are given out by name or by amount, never twice", async () => {
  const { cluster, schedule } = await start();
  const gpu = (Value: string) => ({ NamedResourceSpec: { Kind: "GPU", Value } });
  const ssd = (Value: number) => ({ DiscreteResourceSpec: { Kind: "SSD", Value } });
  await cluster.write((tx) => {
    const GenericResources = [gpu("a"), gpu("b"), gpu("c"), ssd(3)];
    putNode(tx, "n1", { description: { Resources: { GenericResources } } });
    const reserved = [{ DiscreteResourceSpec: { Kind: "GPU", Value: 1 } }, ssd(2)];
    putSpec(tx, "web", { TaskTemplate: { Resources: { Reservations: { GenericResources: reserved } } } });
    const two = [{ DiscreteResourceSpec: { Kind: "GPU", Value: 2 } }];
    putSpec(tx, "two", { TaskTemplate: { Resources: { Reservations: { GenericResources: two } } } });
    putTask(tx, "t1");
    putTask(tx, "t2");
    putTask(tx, "t3", { service: "two" });
  });
  await schedule();
  assert.deepEqual(cluster.task("t1").AssignedGenericResources, [gpu("a"), ssd(2)]);
  assert.equal(cluster.task("t2").Status.Err, "no suitable node (insufficient resources on 1 node)");
  assert.deepEqual(cluster.task("t3").AssignedGenericResources, [gpu("b"), gpu("c")]);
  await cluster.state("t1", "complete");
  await schedule();
  assert.deepEqual(cluster.task("t2").AssignedGenericResources, [gpu("a"), ssd(2)]);
});

test("a conflict or a lost commit leaves nothing behind", async () => {
  const { cluster } = await start();
  const scheduler = new Scheduler(cluster.store);
  await cluster.write((tx) => {
    putNode(tx, "n1", { description: machine });
    putSpec(tx, "web", { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 2e9 } } } });
    putSpec(tx, "later", { TaskTemplate: { Resources: { Reservations: { NanoCPUs: 1e9 } } } });
    putTask(tx, "t1");
    putTask(tx, "t2", { service: "later" });
    putSpec(tx, "picky", placement({ Constraints: ["node.role==manager"] }));
    putTask(tx, "t3", { service: "picky" });
  });
  const context = { now: cluster.clock.now(), nowText: "", leadsSince: 0, newId: () => "", room: 1000 };
  for (let i = 0; i < 3; i++) {
    const { changes } = scheduler.plan(cluster.store.view, "", context); // never written
    assert.equal(changes.length, 3);
  }
  await cluster.write((tx) => tx.delete("tasks", "t1"));
  await cluster.settle(scheduler);
  assert.equal(cluster.task("t2").NodeID, "n1");
  assert.match(cluster.task("t3").Status.Err ?? "", /constraints not satisfied/);

  await cluster.write((tx) => putTask(tx, "t4", { service: "later" }));
  assert.equal(scheduler.plan(cluster.store.view, "", context).changes.length, 1);
  await cluster.write((tx) => {
    putNode(tx, "n2");
    tx.put("tasks", { ...tx.get("tasks", "t4")!, NodeID: "n2", Status: { State: "running", Timestamp: "" } });
    putTask(tx, "t5", { service: "later" });
  });
  await cluster.settle(scheduler);
  assert.equal(cluster.task("t5").NodeID, "n1", "the place that was meant for another is free");
});

test("a commit that the index cannot follow is written all the same, told once, and got over", async () => {
  const { cluster, schedule } = await start();
  await cluster.write((tx) => {
    putNode(tx, "n1");
    putSpec(tx, "broken", null as never);
    putTask(tx, "t1", { service: "broken" });
  });
  await assert.rejects(schedule(), TypeError);
  await cluster.write((tx) => {
    tx.delete("tasks", "t1");
    putSpec(tx, "web");
    putTask(tx, "t2");
  });
  await assert.rejects(schedule(), TypeError);
  await schedule();
  assert.equal(cluster.task("t2").NodeID, "n1");
});

test("a batch larger than a transaction is placed in several, and the loop is woken by what matters", async () => {
  const { cluster } = await start();
  const scheduler = new Scheduler(cluster.store);
  const runtime = { store: cluster.store, clock: systemClock, random: seededRandom(1), log: silentLogger };
  const { loop, unwatch } = drive(scheduler, runtime);
  const until = (done: () => boolean) => {
    const reached = new Promise<void>((resolve) => {
      const stop = cluster.store.watch(() => {
        if (!done()) return;
        stop();
        resolve();
      });
    });
    return within(systemClock, 10_000, reached, () => assert.fail(`not within 10 s: ${done}`));
  };
  try {
    loop.start();
    const allPlaced = until(() => cluster.counts().join() === "700,700,700");
    await cluster.write((tx) => {
      putSpec(tx, "web");
      for (const id of ["n1", "n2", "n3"]) putNode(tx, id);
      putTasks(tx, 2100);
    });
    await allPlaced;
    const confirmed = until(() => cluster.store.view.get("tasks", "late")?.NodeID === "n9");
    await cluster.write((tx) => {
      putSpec(tx, "picky", placement({ Constraints: ["node.id==n9"] }));
      putTask(tx, "late", { service: "picky" });
    });
    await cluster.write((tx) => putNode(tx, "n9"));
    await confirmed;
    assert.equal(loop.report().failures, 0);
  } finally {
    unwatch();
    scheduler.close();
    await loop.stop();
  }
});
