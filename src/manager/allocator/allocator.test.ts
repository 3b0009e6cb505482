import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, within } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { EndpointPortConfig, EndpointSpec, Service, Task } from "../../model/types.ts";
import { specKey } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store, type Transaction } from "../../store/store.ts";
import { drive } from "../planner.ts";
import { allocator } from "./allocator.ts";
import { isAllocated } from "./endpoint.ts";
import { portConflict } from "./ports.ts";

function putSpec(tx: Transaction, serviceId: string, endpoint: EndpointSpec | undefined, revision: number): void {
  const Spec = endpoint ? { EndpointSpec: endpoint } : {};
  tx.create("specs", { ID: specKey(serviceId, revision), ServiceID: serviceId, Revision: revision, Spec });
}

function putService(tx: Transaction, id: string, endpoint?: EndpointSpec): void {
  putSpec(tx, id, endpoint, 1);
  tx.create("services", { ID: id, Name: `name-${id}`, SpecVersion: { Index: 1 } });
}

function updateService(tx: Transaction, id: string, endpoint: EndpointSpec): void {
  const service = tx.service(id)!;
  const Index = service.SpecVersion.Index + 1;
  putSpec(tx, id, endpoint, Index);
  tx.put("services", { ...service, SpecVersion: { Index } });
}

function putTask(tx: Transaction, id: string, facts: Partial<Task> = {}): void {
  tx.create("tasks", {
    ID: id,
    ServiceID: "web",
    Slot: 1,
    NodeID: "",
    SpecVersion: { Index: 1 },
    Status: { State: "new", Timestamp: tx.now, Message: "created" },
    DesiredState: "running",
    ...facts,
  });
}

/** Runs the allocator's real loop on a store until `test` ends. */
async function withLoop(
  test: (
    store: Store,
    until: (done: () => boolean) => Promise<void>,
    loop: { waits(): Promise<void> },
  ) => Promise<void>,
  opened?: Store,
): Promise<void> {
  const store = opened ?? (await Store.open(new MemoryBackend(), systemClock));
  const runtime = { store, clock: systemClock, random: seededRandom(1), log: silentLogger };
  const { loop, unwatch } = drive(allocator, runtime);
  const until = async (done: () => boolean) => {
    if (done()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const stop = store.watch(() => done() && resolve());
    await within(systemClock, 10_000, promise, () => assert.fail(`not within 10 s: ${done}`));
    stop();
  };
  const waits = async () => {
    // The loop on a store in memory goes on by microtasks alone, so these turns are enough for any number of steps.
    for (let turn = 0; turn < 10_000 && loop.report().state !== "idle"; turn++) await Promise.resolve();
    assert.equal(loop.report().state, "idle");
  };
  try {
    loop.start();
    await test(store, until, { waits });
    assert.equal(loop.report().failures, 0, loop.report().lastError);
  } finally {
    unwatch();
    await loop.stop();
  }
}

function service(store: Store, id: string): Service {
  const found = store.view.service(id);
  assert(found);
  return found;
}

function published(store: Store, id: string): (number | undefined)[] {
  return (service(store, id).Endpoint?.Ports ?? []).map(({ PublishedPort }) => PublishedPort);
}

const tcp = (TargetPort: number, PublishedPort?: number): EndpointPortConfig => ({
  Protocol: "tcp",
  TargetPort,
  PublishMode: "ingress",
  ...(PublishedPort ? { PublishedPort } : {}),
});
const host = (TargetPort: number, PublishedPort?: number): EndpointPortConfig => ({
  ...tcp(TargetPort, PublishedPort),
  PublishMode: "host",
});

test("a service without ports is allocated, and its tasks go on with its endpoint", async () => {
  await withLoop(async (store, until, loop) => {
    await loop.waits();
    await store.update((tx) => {
      putService(tx, "web", { Mode: "vip" });
      putTask(tx, "t1");
      putTask(tx, "t2");
    });
    await until(() => [...store.view.tasksInState("pending")].length === 2);
    assert.deepEqual(service(store, "web").Endpoint, { Spec: { Mode: "vip" } });
    const { Status, Endpoint } = store.view.get("tasks", "t1")!;
    assert.equal(Status.Message, "pending task scheduling");
    assert.deepEqual(Endpoint, { Spec: { Mode: "vip" } });
    assert.equal(store.view.revision, 2, "the service and its tasks are allocated in one transaction");
    await loop.waits();
    await store.update((tx) => putTask(tx, "t3"));
    await until(() => store.view.get("tasks", "t3")?.Status.State === "pending");
    assert.equal(store.view.revision, 4, "a new task is allocated by the next transaction");
  });
});

test("open ingress ports get numbers, open host ports do not", async () => {
  await withLoop(async (store, until) => {
    await store.update((tx) => {
      putService(tx, "fixed", { Ports: [tcp(1, 30_000), host(2, 30_002)] });
      putService(tx, "web", { Ports: [tcp(80), { ...tcp(53), Protocol: "udp" }, tcp(81), host(82), tcp(83, 30_001)] });
    });
    await until(
      () => isAllocated(service(store, "web"), store.view) && isAllocated(service(store, "fixed"), store.view),
    );
    assert.deepEqual(published(store, "web"), [30_003, 30_000, 30_004, undefined, 30_001]);
    assert.deepEqual(service(store, "web").Endpoint?.Spec?.Ports?.[0], tcp(80), "the spec stays as it was written");
  });
});

test("a number that another manager gives away at the same moment is not given twice", async () => {
  const memory = new MemoryBackend();
  const other = await Store.open(memory, systemClock);
  const fixed = { Ports: [tcp(81, 30_000)] };
  let raced = false;
  const store = await Store.open(
    {
      load: () => memory.load(),
      follow: (listener) => memory.follow(listener),
      commit: async (batch) => {
        const gives = batch.puts.some(({ table, object }) => table === "services" && "Endpoint" in object);
        if (gives && !raced) {
          raced = true;
          // As the API of another manager does it for a port that is asked for.
          await other.update((tx) => {
            tx.takeLock("port 30000");
            assert.equal(portConflict(tx, "fixed", fixed.Ports), undefined);
            putService(tx, "fixed", fixed);
          });
        }
        return memory.commit(batch);
      },
      currentRevision: () => memory.currentRevision(),
      close: () => memory.close(),
    },
    systemClock,
  );
  await withLoop(async (_, until) => {
    await store.update((tx) => putService(tx, "web", { Ports: [tcp(80)] }));
    await until(() => published(store, "web").length > 0);
    assert.ok(raced);
    assert.deepEqual(published(store, "web"), [30_001]);
  }, store);
});

test("a number is kept while name, protocol and target stay", async () => {
  await withLoop(async (store, until) => {
    await store.update((tx) => {
      putService(tx, "web", { Ports: [tcp(80), tcp(81), tcp(82)] });
    });
    await until(() => published(store, "web").length === 3);
    await store.update((tx) => updateService(tx, "web", { Ports: [tcp(82), tcp(90), tcp(81)] }));
    await until(() => isAllocated(service(store, "web"), store.view));
    assert.deepEqual(published(store, "web"), [30_002, 30_000, 30_001]);
    await store.update((tx) => updateService(tx, "web", { Ports: [{ ...tcp(82), Name: "http" }, tcp(83, 30_002)] }));
    await until(() => isAllocated(service(store, "web"), store.view));
    assert.deepEqual(published(store, "web"), [30_000, 30_002]);
    await store.update((tx) => updateService(tx, "web", {}));
    await until(() => isAllocated(service(store, "web"), store.view));
    assert.deepEqual(service(store, "web").Endpoint, { Spec: {} });
  });
});

test("without a free port the tasks say why they wait, until one is given back", async () => {
  await withLoop(async (store, until, loop) => {
    const all = Array.from({ length: 2768 }, (_, i) => tcp(i + 1, 30_000 + i));
    await store.update((tx) => {
      putService(tx, "greedy", { Ports: all });
      putService(tx, "web", { Ports: [tcp(80)] });
      putTask(tx, "t1");
    });
    await until(() => store.view.get("tasks", "t1")?.Status.Err !== undefined);
    const { State, Err } = store.view.get("tasks", "t1")!.Status;
    assert.equal(State, "new");
    assert.equal(Err, "no published port is free: all tcp ports from 30000 to 32767 are in use");
    await until(() => isAllocated(service(store, "greedy"), store.view));
    await loop.waits();
    const { revision } = store.view;
    await store.update((tx) => putTask(tx, "t2", { ServiceID: "none" }));
    await loop.waits();
    assert.equal(store.view.revision, revision + 1, "the same text is not written again");
    await store.update((tx) => updateService(tx, "greedy", { Ports: all.slice(1) }));
    await until(() => store.view.get("tasks", "t1")?.Status.State === "pending");
    assert.deepEqual(published(store, "web"), [30_000]);
    assert.equal(store.view.get("tasks", "t1")?.Status.Err, undefined);
  });
});

test("a new task that is to stop is shut down, even without its service", async () => {
  await withLoop(async (store, until) => {
    await store.update((tx) => {
      putTask(tx, "t1", { ServiceID: "gone" });
      putTask(tx, "t2", { ServiceID: "gone", DesiredState: "remove" });
    });
    await until(() => store.view.get("tasks", "t2")?.Status.State === "shutdown");
    assert.equal(store.view.get("tasks", "t1")?.Status.State, "new");
    await store.update((tx) => tx.put("tasks", { ...tx.get("tasks", "t1")!, DesiredState: "remove" }));
    await until(() => store.view.get("tasks", "t1")?.Status.State === "shutdown");
  });
});

test("more new tasks than a transaction takes are all allocated", async () => {
  await withLoop(async (store, until) => {
    await store.update((tx) => {
      putService(tx, "web");
      for (let i = 0; i < 2500; i++) putTask(tx, `t${i}`);
    });
    let pending = 0;
    store.watch(({ changes }) => {
      for (const { table, after } of changes) if (table === "tasks" && after?.Status.State === "pending") pending++;
    });
    await until(() => pending === 2500);
  });
});

test("conflicts of ports have Swarm's texts", async () => {
  const store = await Store.open(new MemoryBackend(), systemClock);
  await store.update((tx) => {
    putService(tx, "a", { Ports: [tcp(80, 80), host(81, 81)] });
    putService(tx, "b", { Ports: [tcp(1)] });
    const Ports = [tcp(1, 30_000)];
    tx.put("services", { ...tx.service("b")!, Endpoint: { Spec: { Ports: [tcp(1)] }, Ports } });
  });
  const conflict = (ports: EndpointPortConfig[] | undefined, id = "") => portConflict(store.view, id, ports);
  const ingress = "port '80' is already in use by service 'name-a' (a) as an ingress port";
  assert.equal(conflict([tcp(9, 80)]), ingress);
  assert.equal(conflict([host(9, 80)]), ingress);
  assert.equal(conflict([host(9, 80), tcp(9, 80)]), ingress);
  assert.equal(conflict([tcp(9, 81)]), "port '81' is already in use by service 'name-a' (a) as a host-published port");
  assert.match(conflict([host(9, 81), tcp(9, 81)]) ?? "", /host-published/);
  assert.match(conflict([tcp(9, 30_000)]) ?? "", /'name-b' \(b\) as an ingress port/, "what was given counts too");
  assert.equal(conflict([host(9, 81)]), undefined, "host ports may be shared: the scheduler keeps them apart");
  assert.equal(conflict([{ ...tcp(9, 80), Protocol: "udp" }]), undefined);
  assert.equal(conflict([tcp(9, 80)], "a"), undefined, "a service does not conflict with itself");
  assert.equal(conflict([tcp(9)]), undefined);
  assert.equal(conflict(undefined), undefined);
});
