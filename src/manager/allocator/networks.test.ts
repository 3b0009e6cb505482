import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../lib/fake-clock.ts";
import { defaultIngressSpec } from "../../model/networks.ts";
import type { EndpointSpec, Network, NetworkSpec, Task } from "../../model/types.ts";
import { specKey } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store, type Transaction } from "../../store/store.ts";
import { applyChange } from "../planner.ts";
import { addressUse, isOverlay } from "./addresses.ts";
import { allocator } from "./allocator.ts";
import { isAllocated } from "./endpoint.ts";
import { allocateNetwork } from "./subnets.ts";

/** A store that the allocator is run on by hand: exactly the keys that its own wakes name, as its loop would. */
class World {
  readonly store: Store;
  readonly #woken = new Set<string>();
  /** Plans that were run. */
  plans = 0;

  constructor(store: Store) {
    this.store = store;
    store.watch(({ changes }) => {
      for (const change of changes) for (const key of allocator.wakes(change, store.view)) this.#woken.add(key);
    });
  }

  static async open(pool = "10.0.0.0/8", size = 24): Promise<World> {
    const world = new World(await Store.open(new MemoryBackend(), new FakeClock()));
    await world.change((tx) => {
      tx.create("cluster", { ID: "c", DefaultAddrPool: [pool], SubnetSize: size } as never);
    });
    return world;
  }

  /** Writes, and lets the allocator do all that follows. */
  async change(change: (tx: Transaction) => void): Promise<void> {
    await this.store.update(change);
    await this.settle();
  }

  async settle(): Promise<void> {
    for (let round = 0; this.#woken.size > 0; round++) {
      assert.ok(round < 1000, "it comes to rest");
      const keys = [...this.#woken];
      this.#woken.clear();
      await this.store.update((tx) => {
        for (const key of keys) {
          const context = { now: 0, nowText: tx.now, leadsSince: 0, newId: () => assert.fail(), room: 1000 };
          const plan = allocator.plan(tx, key, context);
          this.plans++;
          for (const change of plan.changes) applyChange(tx, change);
          if (plan.more) this.#woken.add(key);
        }
      });
    }
  }

  /** A new leader looks at everything. */
  async resync(): Promise<void> {
    for (const key of allocator.keys(this.store.view)) this.#woken.add(key);
    await this.settle();
  }

  task(id: string): Task {
    const task = this.store.view.get("tasks", id);
    assert(task);
    return task;
  }

  /** The last parts of a task's addresses. */
  hosts(...ids: string[]): string[] {
    return ids.map((id) => (this.task(id).Addresses ?? []).map(({ Address }) => lastPart(Address)).join());
  }

  vips(id: string): string {
    const ips = this.store.view.service(id)?.Endpoint?.VirtualIPs ?? [];
    return ips.map(({ NetworkID, Addr = "" }) => `${NetworkID} ${lastPart(Addr)}`).join();
  }
}

function lastPart(cidr: string): string {
  return cidr.split("/")[0]!.split(".").at(-1)!;
}

function network(tx: Transaction, id: string, more: Partial<NetworkSpec> = {}): void {
  const Spec = { ...defaultIngressSpec, Ingress: false, ...more };
  const Allocated = allocateNetwork(tx, tx.cluster()!, Spec);
  tx.create("networks", { ID: id, Name: id, Labels: {}, Driver: "overlay", Predefined: false, Spec, Allocated });
}

const ingress = (tx: Transaction, id = "mesh") => network(tx, id, { Ingress: true });
const of = (Subnet: string, more: object = {}) => ({
  IPAM: { Driver: "default", Options: {}, Config: [{ Subnet, ...more }] },
});

function spec(tx: Transaction, id: string, revision: number, networks: string[], EndpointSpec?: EndpointSpec): void {
  const TaskTemplate = { Networks: networks.map((Target) => ({ Target })) };
  const Spec = { Name: id, TaskTemplate, ...(EndpointSpec ? { EndpointSpec } : {}) };
  tx.create("specs", { ID: specKey(id, revision), ServiceID: id, Revision: revision, Spec });
}

function service(tx: Transaction, id: string, networks: string[], endpoint?: EndpointSpec): void {
  spec(tx, id, 1, networks, endpoint);
  tx.create("services", { ID: id, Name: id, SpecVersion: { Index: 1 } });
}

function update(tx: Transaction, id: string, networks: string[], endpoint?: EndpointSpec): void {
  const before = tx.service(id)!;
  const Index = before.SpecVersion.Index + 1;
  spec(tx, id, Index, networks, endpoint);
  tx.put("services", { ...before, SpecVersion: { Index } });
}

function tasks(tx: Transaction, ServiceID: string, ids: string[], more: Partial<Task> = {}): void {
  const SpecVersion = { Index: tx.service(ServiceID)?.SpecVersion.Index ?? 0 };
  const Status = { State: "new", Timestamp: tx.now, Message: "created" } as const;
  for (const ID of ids) {
    tx.create("tasks", { ID, ServiceID, Slot: 1, NodeID: "", SpecVersion, Status, DesiredState: "running", ...more });
  }
}

function end(tx: Transaction, ...ids: string[]): void {
  for (const id of ids) {
    const task = tx.get("tasks", id)!;
    tx.put("tasks", { ...task, Status: { ...task.Status, State: "failed" } });
  }
}

function node(tx: Transaction, ID: string): void {
  const DataPath = { address: "192.0.2.1" };
  tx.create("nodes", { ID, Spec: {}, Status: { State: "ready" }, Role: "worker", DataPath });
}

const published = { Ports: [{ TargetPort: 80, PublishedPort: 8080 }] };

test("a service gets a virtual address per network, its tasks the next ones; ingress only with its ports", async () => {
  const world = await World.open();
  await world.change((tx) => {
    ingress(tx);
    network(tx, "web");
    service(tx, "api", ["web"], published);
    service(tx, "db", ["web"]);
    service(tx, "alone", []);
    tasks(tx, "api", ["t1", "t2"]);
    tasks(tx, "alone", ["t3"]);
  });
  const { view } = world.store;
  assert.equal(view.network("mesh")?.Allocated?.Subnet, "10.0.0.0/24");
  assert.equal(view.network("web")?.Allocated?.Subnet, "10.0.1.0/24");
  assert.equal(world.vips("api"), "web 2,mesh 2");
  assert.equal(world.vips("db"), "web 3");
  assert.equal(world.vips("alone"), "");
  assert.deepEqual(
    world.task("t1").Addresses?.map(({ NetworkID }) => NetworkID),
    ["web", "mesh"],
  );
  const [first, second] = world.hosts("t1", "t2").map((hosts) => hosts.split(",").map(Number));
  assert.deepEqual([second![0]! - first![0]!, second![1]! - first![1]!], [1, 1], "one after the other");
  assert.equal(world.task("t1").Status.State, "pending");
  assert.deepEqual(world.task("t1").Endpoint?.VirtualIPs, view.service("api")?.Endpoint?.VirtualIPs);
  assert.equal(world.task("t3").Addresses, undefined);
  assert.equal(world.task("t3").Status.State, "pending");
});

test("virtual addresses are kept over updates; a network or mode that goes gives its own back, and new ones come", async () => {
  const world = await World.open();
  await world.change((tx) => {
    ingress(tx);
    for (const id of ["a", "b"]) network(tx, id);
    service(tx, "web", ["a"], published);
  });
  assert.equal(world.vips("web"), "a 2,mesh 2");
  await world.change((tx) => update(tx, "web", ["b", "a"], published));
  assert.equal(world.vips("web"), "b 2,a 2,mesh 2");
  await world.change((tx) => update(tx, "web", ["b"]));
  assert.equal(world.vips("web"), "b 2");
  await world.change((tx) => update(tx, "web", ["b"], { Mode: "dnsrr" }));
  assert.equal(world.vips("web"), "");
  assert.deepEqual(world.store.view.service("web")?.Endpoint, { Spec: { Mode: "dnsrr" } });
  await world.change((tx) => tasks(tx, "web", ["t1"]));
  assert.deepEqual(world.hosts("t1"), ["3"], "next after the last, not the one just given back");
  await world.change((tx) => update(tx, "web", ["b"], { Mode: "vip" }));
  assert.equal(world.vips("web"), "b 4");
  assert.ok(isAllocated(world.store.view.service("web")!, world.store.view));
});

test("addresses go round serially, and are free as soon as the task has ended or is deleted", async () => {
  const world = await World.open();
  await world.change((tx) => {
    network(tx, "n", of("10.1.0.0/29"));
    service(tx, "s", ["n"], { Mode: "dnsrr" });
    tasks(tx, "s", ["a", "b", "c"]);
  });
  assert.deepEqual(world.hosts("a", "b", "c"), ["2", "3", "4"]);
  await world.change((tx) => end(tx, "a"));
  await world.change((tx) => tx.delete("tasks", "b"));
  await world.change((tx) => tasks(tx, "s", ["d", "e", "f", "g"]));
  assert.deepEqual(world.hosts("d", "e", "f", "g"), ["5", "6", "2", "3"]);
  assert.deepEqual(world.hosts("a"), ["2"], "what has ended still says what it had");
  const use = world.store.view.network("n");
  assert(isOverlay(use));
  assert.deepEqual(addressUse(world.store.view, use), { total: 5, used: 5, inUse: 8 });
  const other = new World(world.store); // another leader goes on from there
  await world.change((tx) => end(tx, "d", "e"));
  await other.change((tx) => tasks(tx, "s", ["h"]));
  assert.deepEqual(other.hosts("h"), ["5"]);
});

test("without a free address a task says so in numbers, and gets the next that is given back", async () => {
  const world = await World.open();
  await world.change((tx) => {
    network(tx, "n", of("10.1.0.0/29"));
    network(tx, "other");
    service(tx, "s", ["other", "n"]);
    tasks(tx, "s", ["a", "b", "c", "d", "e", "f"]);
  });
  assert.equal(world.vips("s"), "other 2,n 2");
  const waiting = ["e", "f"].map((id) => world.task(id));
  for (const { Status, WaitsFor, Addresses } of waiting) {
    assert.deepEqual([Status.State, Status.Err], ["new", "network n has no free address: 5 of 5 are in use"]);
    assert.equal(WaitsFor, "n");
    assert.equal(Addresses, undefined, "nothing is held meanwhile");
  }
  await world.change((tx) => end(tx, "c"));
  assert.deepEqual(world.hosts("e"), [`${Number(world.hosts("d")[0]!.split(",")[0]) + 1},5`]);
  assert.equal(world.task("e").Status.State, "pending");
  assert.equal(world.task("e").Status.Err, undefined);
  assert.equal(world.task("e").WaitsFor, undefined);
  assert.equal(world.task("f").Status.State, "new");
  await world.change((tx) => update(tx, "s", ["other", "n"], { Mode: "dnsrr" }));
  assert.deepEqual(
    world.hosts("f").map((hosts) => hosts.split(",")[1]),
    ["2"],
    "the virtual address",
  );
});

test("a service without a virtual address: its tasks say why, and follow when it gets one", async () => {
  const world = await World.open();
  await world.change((tx) => {
    network(tx, "n", of("10.1.0.0/29"));
    service(tx, "greedy", ["n"], { Mode: "dnsrr" });
    tasks(tx, "greedy", ["a", "b", "c", "d", "e"]);
    service(tx, "web", ["n"]);
    tasks(tx, "web", ["t1", "t2"]);
  });
  assert.equal(world.vips("web"), "");
  assert.equal(world.task("t1").Status.Err, "network n has no free address: 5 of 5 are in use");
  const { plans } = world;
  await world.change((tx) => tasks(tx, "nobody", ["x"], { ServiceID: "nobody" }));
  assert.ok(world.plans - plans < 3, "who waits is not looked at for others' sake");
  await world.change((tx) => end(tx, "a"));
  assert.equal(world.vips("web"), "n 2");
  assert.equal(world.task("t1").Status.State, "new");
  await world.change((tx) => end(tx, "c", "d"));
  assert.deepEqual(world.hosts("t1", "t2"), ["4", "5"]);
});

test("the range of a network is what is handed out", async () => {
  const world = await World.open();
  await world.change((tx) => {
    network(tx, "n", of("10.1.0.0/16", { IPRange: "10.1.8.0/30" }));
    service(tx, "s", ["n"], { Mode: "dnsrr" });
    tasks(tx, "s", ["a", "b", "c", "d"]);
  });
  assert.equal(world.store.view.network("n")?.Allocated?.Gateway, "10.1.8.0");
  assert.deepEqual(world.task("a").Addresses, [{ NetworkID: "n", Address: "10.1.8.1/16" }]);
  assert.deepEqual(world.hosts("a", "b", "c"), ["1", "2", "3"]);
  assert.equal(world.task("d").Status.Err, "network n has no free address: 3 of 3 are in use");
});

test("nodes have an address on the ingress network as long as they are there, also on one that comes later", async () => {
  const world = await World.open("10.0.0.0/8", 29);
  const attachments = (id: string) =>
    world.store.view.get("nodes", id)?.Attachments?.map(({ NetworkID, Address }) => `${NetworkID} ${Address}`);
  await world.change((tx) => {
    for (const id of ["n1", "n2"]) node(tx, id);
    tx.create("nodes", { ID: "stock", Spec: {}, Status: { State: "ready" }, Role: "worker" });
  });
  assert.equal(attachments("n1"), undefined);
  await world.change((tx) => ingress(tx));
  assert.deepEqual([attachments("n1"), attachments("n2")], [["mesh 10.0.0.2/29"], ["mesh 10.0.0.3/29"]]);
  assert.equal(attachments("stock"), undefined);
  await world.change((tx) => {
    for (const id of ["n3", "n4", "n5", "n6"]) node(tx, id);
  });
  assert.equal(attachments("n6"), undefined, "there is none");
  await world.change((tx) => tx.delete("nodes", "n2"));
  assert.deepEqual(attachments("n6"), ["mesh 10.0.0.3/29"]);
  await world.change((tx) => {
    tx.delete("networks", "mesh");
    network(tx, "next", { Ingress: true, ...of("10.20.0.0/16") });
  });
  assert.deepEqual([attachments("n1"), attachments("n6")?.length], [["next 10.20.0.2/16"], 1]);
});

test("a removed network goes with its last task, and nothing of it stays", async () => {
  const world = await World.open();
  await world.change((tx) => {
    network(tx, "n");
    service(tx, "s", ["n"]);
    tasks(tx, "s", ["a", "b"]);
  });
  await world.change((tx) => {
    tx.delete("services", "s");
    tx.put("networks", { ...tx.network("n")!, Removed: true });
  });
  assert.ok(world.store.view.network("n"));
  assert.equal(world.store.view.networkByName("n"), undefined);
  await world.change((tx) => end(tx, "a"));
  assert.ok(world.store.view.network("n"));
  await world.change((tx) => end(tx, "b"));
  assert.equal(world.store.view.network("n"), undefined);
  await world.settle();
  assert.deepEqual(
    [...world.store.view.all("locks")].map(({ ID }) => ID),
    ["serial-vxlan"],
  );
});

test("a user's container gets the address that it asks for, or is told why not", async () => {
  const world = await World.open();
  const attach = (tx: Transaction, id: string, address?: string, NetworkID = "n") =>
    tasks(tx, "", [id], {
      NodeID: "n1",
      Attachment: { NetworkID, ContainerID: id, Aliases: ["x"], ...(address ? { Address: address } : {}) },
    });
  await world.change((tx) => {
    network(tx, "n", of("10.1.0.0/24"));
    attach(tx, "any");
    attach(tx, "seven", "10.1.0.7");
    attach(tx, "again", "10.1.0.7");
    attach(tx, "gateway", "10.1.0.1");
    attach(tx, "far", "10.2.0.7");
    attach(tx, "lost", undefined, "nowhere");
  });
  assert.deepEqual(world.task("any").Addresses, [{ NetworkID: "n", Address: "10.1.0.2/24" }]);
  assert.equal(world.task("any").Status.State, "assigned");
  assert.deepEqual(world.hosts("seven"), ["7"]);
  const errors = ["again", "gateway", "far", "lost"].map((id) => world.task(id).Status.Err);
  assert.deepEqual(errors, [
    "address 10.1.0.7 of network n is in use",
    "address 10.1.0.1 is none that network n (10.1.0.0/24) could give",
    "address 10.2.0.7 is none that network n (10.1.0.0/24) could give",
    "network nowhere not found",
  ]);
  await world.change((tx) => end(tx, "seven"));
  assert.deepEqual(world.hosts("again"), ["7"]);
  await world.change((tx) =>
    tasks(tx, "", ["next"], { Attachment: { NetworkID: "n", ContainerID: "c", Aliases: [] } }),
  );
  assert.deepEqual(world.hosts("next"), ["3"], "asked ones do not move the order");
});

test("an ingress network that comes later reaches the services that need it", async () => {
  const world = await World.open();
  await world.change((tx) => service(tx, "web", [], published));
  assert.equal(world.vips("web"), "");
  await world.change((tx) => ingress(tx));
  assert.equal(world.vips("web"), "mesh 2");
});

test("two managers that both believe that they lead never give one address or subnet to two", async () => {
  const memory = new MemoryBackend();
  const worlds = [
    new World(await Store.open(memory, new FakeClock())),
    new World(await Store.open(memory, new FakeClock())),
  ];
  const [one, other] = worlds as [World, World];
  await one.change((tx) => {
    tx.create("cluster", { ID: "c", DefaultAddrPool: ["10.0.0.0/8"], SubnetSize: 24 } as never);
    network(tx, "n", of("172.16.0.0/24"));
    service(tx, "s", ["n"], { Mode: "dnsrr" });
  });
  for (let round = 0; round < 10; round++) {
    await Promise.all(
      worlds.map(async (world, which) => {
        const id = `${which}-${round}`;
        await world.store.update((tx) => {
          network(tx, `n${id}`);
          tasks(tx, "s", [`t${id}`]);
          const Attachment = { NetworkID: "n", ContainerID: id, Aliases: [], Address: `172.16.0.${100 + round}` };
          tasks(tx, "", [`a${id}`], { Attachment });
        });
      }),
    );
    await Promise.all([one.settle(), other.settle()]);
    check(one.store);
  }
  const networks = [...one.store.view.all("networks")].map(({ Allocated }) => Allocated);
  assert.equal(new Set(networks.map((network) => network?.Subnet)).size, 21);
  assert.equal(new Set(networks.map((network) => network?.VxlanID)).size, 21);
  const states = [...one.store.view.all("tasks")].map(({ Status }) => Status.State);
  assert.deepEqual([...new Set(states)].sort(), ["assigned", "new", "pending"]);
  assert.equal(states.filter((state) => state === "new").length, 10, "each address that two asked for went to one");
});

/** Everything that holds an address, by network and address. */
function holders(store: Store): Map<string, string[]> {
  const held = new Map<string, string[]>();
  const add = (networkId: string, cidr: string, who: string) => {
    const key = `${networkId} ${cidr}`;
    held.set(key, [...(held.get(key) ?? []), who]);
  };
  const live = (task: Task) => !["failed", "shutdown"].includes(task.Status.State);
  for (const task of store.view.all("tasks")) {
    if (live(task)) for (const { NetworkID, Address } of task.Addresses ?? []) add(NetworkID, Address, task.ID);
  }
  for (const { ID, Endpoint } of store.view.all("services")) {
    for (const { NetworkID = "", Addr = "" } of Endpoint?.VirtualIPs ?? []) add(NetworkID, Addr, ID);
  }
  for (const { ID, Attachments = [] } of store.view.all("nodes")) {
    for (const { NetworkID, Address } of Attachments) add(NetworkID, Address, ID);
  }
  return held;
}

function check(store: Store): void {
  const held = holders(store);
  for (const [address, who] of held) assert.equal(who.length, 1, `${address} has ${who.join(" and ")}`);
  for (const task of store.view.tasksInState("new")) {
    if (task.DesiredState !== "running" || !task.WaitsFor || task.Attachment?.Address) continue;
    if (!task.Attachment && !store.view.service(task.ServiceID)) continue; // an orchestrator takes it back
    const full = store.view.network(task.WaitsFor) as Network;
    assert(isOverlay(full));
    const { total, used } = addressUse(store.view, full);
    assert.equal(used, total, `${task.ID} waits for ${task.WaitsFor}, which is not full`);
  }
  for (const network of store.view.all("networks")) {
    if (!isOverlay(network)) continue;
    const of = [...held.keys()].filter((key) => key.startsWith(`${network.ID} `));
    assert.equal(addressUse(store.view, network).used, of.length);
    assert.ok(!of.includes(`${network.ID} ${network.Allocated.Gateway}/29`));
  }
}

test("whatever happens, no address is had twice, and nobody waits where one is free", async () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant("create" as const), who: fc.nat(5), networks: fc.nat(7), mode: fc.nat(2) }),
    fc.record({ kind: fc.constant("remove" as const), who: fc.nat(5) }),
    fc.record({ kind: fc.constant("scale" as const), who: fc.nat(5), count: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ kind: fc.constant("end" as const), which: fc.nat(30) }),
    fc.record({ kind: fc.constant("delete" as const), which: fc.nat(30) }),
    fc.record({ kind: fc.constant("unwant" as const), which: fc.nat(30) }),
    fc.record({ kind: fc.constant("node" as const), who: fc.nat(3) }),
    fc.record({ kind: fc.constant("leader" as const) }),
  );
  const property = fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 40 }), async (actions) => {
    let world = await World.open("10.0.0.0/16", 29);
    await world.change((tx) => {
      ingress(tx);
      for (const id of ["a", "b"]) network(tx, id);
    });
    let made = 0;
    for (const one of actions) {
      const all = [...world.store.view.all("tasks")].map(({ ID }) => ID);
      const picked = "which" in one ? all[one.which % (all.length || 1)] : undefined;
      await world.change((tx) => {
        if (one.kind === "create") {
          const id = `s${one.who}`;
          const names = ["a", "b"].filter((_, bit) => one.networks & (1 << bit));
          const endpoint: EndpointSpec =
            one.mode === 0
              ? { Mode: "dnsrr" }
              : one.networks & 4
                ? { Ports: [{ TargetPort: 80, PublishedPort: 8000 + one.who }] }
                : {};
          if (tx.service(id)) update(tx, id, names, endpoint);
          else if (!tx.spec(id, 1)) service(tx, id, names, endpoint);
        } else if (one.kind === "remove") tx.delete("services", `s${one.who}`);
        else if (one.kind === "scale") {
          const id = `s${one.who}`;
          const ids = Array.from({ length: one.count }, () => `t${made++}`);
          if (tx.service(id)) tasks(tx, id, ids);
        } else if (one.kind === "node") {
          if (tx.get("nodes", `n${one.who}`)) tx.delete("nodes", `n${one.who}`);
          else node(tx, `n${one.who}`);
        } else if (one.kind === "leader") return;
        else if (picked === undefined) return;
        else if (one.kind === "end") {
          if (tx.get("tasks", picked)?.Status.State !== "new") end(tx, picked);
        } else if (one.kind === "delete") tx.delete("tasks", picked);
        else tx.put("tasks", { ...tx.get("tasks", picked)!, DesiredState: "remove" });
      });
      if (one.kind === "leader") {
        world = new World(world.store);
        await world.resync();
      }
      check(world.store);
    }
  });
  await fc.assert(property, { numRuns: 60, seed: 4 });
});
