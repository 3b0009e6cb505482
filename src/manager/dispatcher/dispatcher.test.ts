import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { type Cluster, type Node, type NodeDescription, type Service, specKey, type Task } from "../../model/types.ts";
import type { AssignmentsMessage, Caller, WeightedPeer } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { takeLead } from "../../store/replica.ts";
import { Store } from "../../store/store.ts";
import type { Draft } from "../../store/view.ts";
import { Dispatcher } from "./dispatcher.ts";

const clusterId = "cluster1";
const secondMs = 1000;
const dayMs = 24 * 60 * 60 * secondMs;
const description: NodeDescription = { Hostname: "host-1", Platform: { OS: "linux", Architecture: "x86_64" } };

function cluster(periodNs = 5e9): Draft<Cluster> {
  return {
    ID: clusterId,
    Spec: { Name: "default", Dispatcher: { HeartbeatPeriod: periodNs } },
    RootCA: { Certificate: "ROOT 1", Key: "", JoinTokens: { Worker: "", Manager: "" } },
    DefaultAddrPool: [],
    SubnetSize: 24,
    DataPathPort: 4789,
    RemovedNodes: {},
  };
}

function node(id: string, state: Node["Status"]["State"] = "unknown"): Draft<Node> {
  return { ID: id, Spec: { Role: "worker", Availability: "active" }, Status: { State: state }, Role: "worker" };
}

function task(id: string, nodeId: string, state: Task["Status"]["State"] = "assigned"): Draft<Task> {
  return {
    ID: id,
    ServiceID: "s1",
    Slot: 1,
    NodeID: nodeId,
    SpecVersion: { Index: 1 },
    Status: { Timestamp: "2026-01-01T00:00:00Z", State: state },
    DesiredState: "running",
  };
}

const service: Draft<Service> = { ID: "s1", Name: "web", SpecVersion: { Index: 1 } };

function caller(nodeId: string): Caller {
  return { nodeId, role: "worker", clusterId, address: "10.0.0.7", certificate: "" };
}

const agent1 = caller("n1");
const agent2 = caller("n2");

interface Swarm {
  clock: FakeClock;
  store: Store;
  dispatcher: Dispatcher;
  managers: WeightedPeer[];
  commits: () => number;
}

async function swarm(
  t: { after(run: () => void): void },
  nodes = [node("n1"), node("n2")],
  options: { periodNs?: number; tasks?: Draft<Task>[] } = {},
): Promise<Swarm> {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) => {
    tx.create("cluster", cluster(options.periodNs));
    for (const draft of nodes) tx.create("nodes", draft);
    tx.create("services", service);
    tx.create("specs", {
      ID: specKey("s1", 1),
      ServiceID: "s1",
      Revision: 1,
      Spec: { Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1" } } },
    });
    for (const draft of options.tasks ?? []) tx.create("tasks", draft);
  });
  const managers = [{ nodeId: "n1", address: "10.0.0.1:2377", weight: 1 }];
  let commits = 0;
  store.watch(() => commits++);
  const fence = await takeLead(store, "manager1");
  const dispatcher = new Dispatcher({
    nodeId: "manager1",
    store,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    managers: () => managers,
    election: { fence, watch: () => () => {} },
  });
  await dispatcher.start();
  t.after(() => dispatcher.stop());
  commits = 0;
  return { clock, store, dispatcher, managers, commits: () => commits };
}

/** A stream that is read on demand. */
function reader<T>(stream: AsyncIterable<T>) {
  const iterator = stream[Symbol.asyncIterator]();
  let asked: Promise<IteratorResult<T>> | undefined;
  const ask = () => {
    asked ??= iterator.next();
    asked.catch(() => undefined); // whoever takes it sees it
    return asked;
  };
  const step = () => {
    const result = ask();
    asked = undefined;
    return result;
  };
  return {
    step,
    async next(): Promise<T> {
      const result = await step();
      assert(!result.done, "the stream has ended");
      return result.value;
    },
    /** Whether nothing comes when everything has happened that can without time passing. */
    async silent(): Promise<boolean> {
      let came = false;
      const note = () => (came = true);
      ask().then(note, note);
      await settled();
      return !came;
    },
  };
}

async function open({ dispatcher }: Swarm, who: Caller, sessionId = "", about = description) {
  const gone = new AbortController();
  const session = reader(dispatcher.session(who, { description: about, sessionId }, gone.signal));
  const first = await session.next();
  return { gone, session, first, id: first.sessionId };
}

function edit(store: Store, id: string, change: Partial<Task>): Promise<unknown> {
  return store.update((tx) => tx.put("tasks", { ...tx.get("tasks", id)!, ...change }));
}

function summary(message: AssignmentsMessage): string {
  const changes = message.changes.map((change) => {
    switch (change.kind) {
      case "update-task":
        return `${change.task.ID}=${change.task.DesiredState}`;
      case "remove-task":
        return `-${change.id}`;
      case "update-secret":
        return `secret ${change.secret.Spec.Name}`;
      case "update-config":
        return `config ${change.config.Spec.Name}`;
      default:
        return `-${change.kind.slice("remove-".length)} ${change.id}`;
    }
  });
  return `${message.type} ${message.appliesTo}>${message.resultsIn} ${changes.join(" ")}`.trim();
}

const running = { Timestamp: "2026-01-01T00:00:01Z", State: "running" } as const;

test("a session registers the node and says at once what the agent has to know", async (t) => {
  const world = await swarm(t);
  const { first } = await open(world, agent1);
  assert.equal(first.rootCA, "ROOT 1");
  assert.deepEqual(first.managers, [{ nodeId: "n1", address: "10.0.0.1:2377", weight: 10 }]);
  assert.deepEqual(first.node.Description, description);
  assert.deepEqual(world.store.view.get("nodes", "n1")?.Status, { State: "ready", Addr: "10.0.0.7" });
});

test("a valid session id is kept and costs no write; an unknown one is replaced, and the old session ends", async (t) => {
  const world = await swarm(t);
  const one = await open(world, agent1);
  const again = await open(world, agent1, one.id);
  assert.equal(again.id, one.id);
  assert.equal(world.commits(), 1);
  const other = await open(world, agent1, "long-gone");
  assert.notEqual(other.id, one.id);
  await assert.rejects(one.session.step(), { code: "InvalidArgument", message: "session invalid" });
  await assert.rejects(world.dispatcher.heartbeat(agent1, one.id), { code: "InvalidArgument" });
  await assert.rejects(world.dispatcher.heartbeat(agent2, other.id), {
    code: "NotFound",
    message: "node not registered",
  });
});

test("a changed description is written once", async (t) => {
  const world = await swarm(t);
  const { id } = await open(world, agent1);
  const changed = { ...description, Hostname: "renamed", Engine: undefined };
  await open(world, agent1, id, changed);
  await open(world, agent1, id, changed);
  assert.equal(world.commits(), 2);
  assert.equal(world.store.view.get("nodes", "n1")?.Description?.Hostname, "renamed");
});

test("a full message follows each change of node, managers or root, and none follows a status", async (t) => {
  const world = await swarm(t);
  const { session } = await open(world, agent1);
  assert(await session.silent());
  await world.store.update((tx) => {
    const before = tx.get("nodes", "n1")!;
    tx.put("nodes", { ...before, Status: { ...before.Status, Message: "busy" } });
  });
  assert(await session.silent());
  await world.store.update((tx) =>
    tx.put("nodes", { ...tx.get("nodes", "n1")!, Spec: { Role: "worker", Availability: "drain" } }),
  );
  assert.equal((await session.next()).node.Spec.Availability, "drain");
  await world.store.update((tx) =>
    tx.put("cluster", { ...tx.cluster()!, RootCA: { ...tx.cluster()!.RootCA, Certificate: "ROOT 2" } }),
  );
  assert.equal((await session.next()).rootCA, "ROOT 2");
  world.managers.push({ nodeId: "n2", address: "10.0.0.2:2377", weight: 1 });
  await world.store.update((tx) =>
    tx.put("nodes", { ...tx.get("nodes", "n2")!, ManagerStatus: { Reachability: "reachable", Addr: "10.0.0.2:2377" } }),
  );
  assert.equal((await session.next()).managers.length, 2);
});

test("the fourth registration within 8 s is refused, and the next is granted as soon as the first is 8 s old", async (t) => {
  const world = await swarm(t);
  for (let count = 0; count < 3; count++) await open(world, agent1);
  await assert.rejects(open(world, agent1), {
    code: "Unavailable",
    message: /exceeded rate limit count of registrations/,
  });
  await open(world, agent2);
  await world.clock.advance(8 * secondMs);
  await open(world, agent1);
});

test("the period of each heartbeat is within a tenth of the cluster's", async (t) => {
  const world = await swarm(t, undefined, { periodNs: 2e9 });
  const { id } = await open(world, agent1);
  const periods = [];
  for (let count = 0; count < 50; count++) periods.push((await world.dispatcher.heartbeat(agent1, id)).periodMs);
  assert(Math.min(...periods) >= 1800 && Math.max(...periods) <= 2200);
  assert(Math.max(...periods) - Math.min(...periods) > 200);
});

test("a node that stops beating is down after three periods, and only then", async (t) => {
  const world = await swarm(t);
  const { id, session } = await open(world, agent1);
  for (let count = 0; count < 10; count++) {
    await world.clock.advance(12 * secondMs);
    await world.dispatcher.heartbeat(agent1, id);
  }
  assert.equal(world.store.view.get("nodes", "n1")?.Status.State, "ready");
  await world.clock.advance(13.4 * secondMs);
  assert.equal(world.store.view.get("nodes", "n1")?.Status.State, "ready");
  await world.clock.advance(3.2 * secondMs);
  const { Status } = world.store.view.get("nodes", "n1")!;
  assert.deepEqual(Status, { State: "down", Addr: "10.0.0.7", Message: "heartbeat failure" });
  await assert.rejects(session.step(), { code: "Aborted", message: "node must disconnect" });
  await assert.rejects(world.dispatcher.heartbeat(agent1, id), { code: "NotFound" });
  await open(world, agent1, id);
  assert.deepEqual(world.store.view.get("nodes", "n1")?.Status, { State: "ready", Addr: "10.0.0.7" });
});

test("a start leaves nodes as they are, and gives them as long as agents pause to come back", async (t) => {
  const mine = { ...node("n3", "ready"), SessionManager: "manager1" };
  const world = await swarm(t, [node("n1", "ready"), node("n2", "down"), mine]);
  const states = () => ["n1", "n2", "n3"].map((id) => world.store.view.get("nodes", id)?.Status.State);
  assert.deepEqual(states(), ["ready", "down", "ready"]);
  await world.clock.advance(13.5 * secondMs);
  assert.deepEqual(states(), ["ready", "down", "ready"]);
  await world.clock.advance(secondMs);
  assert.deepEqual(states(), ["down", "down", "down"]);
});

test("assignments: the complete set of the node first, then what changed, chained", async (t) => {
  const tasks = [task("t1", "n1"), task("t2", "n1", "failed"), task("t3", "n2"), task("t4", "n1", "pending")];
  const world = await swarm(t, undefined, { tasks });
  const { id } = await open(world, agent1);
  const stream = reader(world.dispatcher.assignments(agent1, id, new AbortController().signal));
  const complete = await stream.next();
  assert.equal(summary(complete), "complete >1 t1=running t2=running");
  const change = complete.changes[0];
  assert(change?.kind === "update-task" && change.task.Spec.ContainerSpec?.Image === "bb:1");

  assert(await stream.silent());
  await edit(world.store, "t4", { Status: { ...running, State: "assigned" } });
  assert.equal(summary(await stream.next()), "incremental 1>2 t4=running");
  await edit(world.store, "t1", { DesiredState: "shutdown" });
  assert.equal(summary(await stream.next()), "incremental 2>3 t1=shutdown");
  await world.store.update((tx) => tx.delete("tasks", "t2"));
  assert.equal(summary(await stream.next()), "incremental 3>4 -t2");
  await edit(world.store, "t3", { DesiredState: "shutdown" });
  await world.dispatcher.updateTaskStatus(agent1, id, [{ taskId: "t4", status: running }]);
  assert(await stream.silent());
});

test("what happens while the reader is busy goes into one message, each task once, at most 100 in one", async (t) => {
  const world = await swarm(t);
  const { id } = await open(world, agent1);
  const stream = reader(world.dispatcher.assignments(agent1, id, new AbortController().signal));
  assert.equal(summary(await stream.next()), "complete >1");
  await world.store.update((tx) => {
    for (let number = 0; number < 150; number++) tx.create("tasks", task(`t${number}`, "n1"));
    tx.create("tasks", task("short-lived", "n1"));
  });
  await edit(world.store, "t0", { DesiredState: "shutdown" });
  await world.store.update((tx) => tx.delete("tasks", "short-lived"));
  const first = await stream.next();
  const second = await stream.next();
  assert.equal(first.changes.length, 100);
  assert.equal(second.changes.length, 50);
  assert.equal(second.appliesTo, first.resultsIn);
  const ids = [...first.changes, ...second.changes].map((change) => {
    assert(change.kind === "update-task");
    return change.task.ID;
  });
  assert.equal(new Set(ids).size, 150);
  assert(await stream.silent());
});

test("a commit is on its way to the agent without any time passing", async (t) => {
  const world = await swarm(t);
  const { id } = await open(world, agent1);
  const stream = reader(world.dispatcher.assignments(agent1, id, new AbortController().signal));
  await stream.next();
  const next = stream.next();
  const before = world.clock.now();
  await world.store.update((tx) => tx.create("tasks", task("t1", "n1")));
  assert.equal(summary(await next), "incremental 1>2 t1=running");
  assert.equal(world.clock.now(), before);
});

test("statuses: only forward, only news, only of own tasks, and gone tasks are passed over", async (t) => {
  const world = await swarm(t, undefined, { tasks: [task("t1", "n1"), task("t3", "n2")] });
  const { id } = await open(world, agent1);
  const commits = world.commits();
  await world.dispatcher.updateTaskStatus(agent1, id, [
    { taskId: "t1", status: running },
    { taskId: "gone", status: running },
  ]);
  const { Status } = world.store.view.get("tasks", "t1")!;
  const appliedAt = new Date(world.clock.now()).toISOString();
  assert.deepEqual(Status, { ...running, AppliedBy: "manager1", AppliedAt: appliedAt });
  assert.equal(world.commits(), commits + 1);

  await world.clock.advance(1);
  await world.dispatcher.updateTaskStatus(agent1, id, [{ taskId: "t1", status: running }]);
  await world.dispatcher.updateTaskStatus(agent1, id, [{ taskId: "t1", status: { ...running, State: "starting" } }]);
  assert.equal(world.commits(), commits + 1);

  const news = { ...running, ContainerStatus: { ContainerID: "c1", PID: 7 } };
  await world.dispatcher.updateTaskStatus(agent1, id, [{ taskId: "t1", status: news }]);
  assert.equal(world.store.view.get("tasks", "t1")?.Status.ContainerStatus?.PID, 7);

  const failed = { ...running, State: "failed" as const, Err: "task: non-zero exit (3)" };
  await assert.rejects(
    world.dispatcher.updateTaskStatus(agent1, id, [
      { taskId: "t1", status: failed },
      { taskId: "t3", status: failed },
    ]),
    { code: "PermissionDenied" },
  );
  assert.equal(world.store.view.get("tasks", "t1")?.Status.State, "running");
  assert.equal(world.store.view.get("tasks", "t3")?.Status.State, "assigned");
});

test("tasks of a node that has been down for a day are orphaned; those of one that came back are not", async (t) => {
  const nodes = [node("n1", "down"), node("n2", "ready")];
  const tasks = [task("t1", "n1", "running"), task("t2", "n1", "failed"), task("t3", "n2", "running")];
  const world = await swarm(t, nodes, { tasks });
  await world.clock.advance(dayMs - secondMs);
  assert.equal(world.store.view.get("nodes", "n2")?.Status.State, "down");
  assert.equal(world.store.view.get("tasks", "t1")?.Status.State, "running");
  await open(world, agent2);
  await world.clock.advance(2 * secondMs);
  assert.equal(world.store.view.get("tasks", "t1")?.Status.State, "orphaned");
  assert.equal(world.store.view.get("tasks", "t2")?.Status.State, "failed");
  await world.clock.advance(dayMs - 4 * secondMs);
  assert.equal(world.store.view.get("tasks", "t3")?.Status.State, "running");
});

test("a removed node's streams end and it cannot come back", async (t) => {
  const world = await swarm(t);
  const { id, session } = await open(world, agent1);
  const stream = reader(world.dispatcher.assignments(agent1, id, new AbortController().signal));
  await stream.next();
  await world.store.update((tx) =>
    tx.put("cluster", { ...tx.cluster()!, RemovedNodes: { n1: "2027-01-01T00:00:00Z" } }),
  );
  await assert.rejects(session.step(), { code: "PermissionDenied" });
  await assert.rejects(stream.step(), { code: "PermissionDenied" });
  await assert.rejects(open(world, agent1), { code: "PermissionDenied" });
  await assert.rejects(open(world, caller("stranger")), { code: "NotFound", message: "node not found" });
});

test("stop ends every stream with Unavailable, refuses later calls and leaves no timer", async (t) => {
  const world = await swarm(t);
  const { id, session } = await open(world, agent1);
  const stream = reader(world.dispatcher.assignments(agent1, id, new AbortController().signal));
  await stream.next();
  const waiting = stream.step();
  world.dispatcher.stop();
  await assert.rejects(waiting, { code: "Unavailable" });
  await assert.rejects(session.step(), { code: "Unavailable" });
  await assert.rejects(world.dispatcher.heartbeat(agent1, id), { code: "Unavailable" });
  await assert.rejects(open(world, agent1), { code: "Unavailable" });
  assert.equal(world.clock.timers, 0);
});

test("an agent that goes away ends its streams without an error, and its node stays ready until the grace is over", async (t) => {
  const world = await swarm(t);
  const { gone, session } = await open(world, agent1);
  const waiting = session.step();
  gone.abort();
  assert.equal((await waiting).done, true);
  await world.clock.advance(14 * secondMs);
  assert.equal(world.store.view.get("nodes", "n1")?.Status.State, "ready");
  await world.clock.advance(2 * secondMs);
  assert.equal(world.store.view.get("nodes", "n1")?.Status.State, "down");
});

test("the manager's own node is not ready from its start until its agent registers", async (t) => {
  const ready = (ID: string) => ({ ...node(ID, "ready"), SessionManager: "manager1" });
  const { store, dispatcher } = await swarm(t, [ready("manager1"), ready("n1")]);
  await settled();
  const states = () => [...store.view.all("nodes")].map(({ ID, Status }) => `${ID} ${Status.State}`);
  assert.deepEqual(states(), ["manager1 unknown", "n1 ready"]);
  const session = reader(
    dispatcher.session(caller("manager1"), { description, sessionId: "" }, new AbortController().signal),
  );
  await session.next();
  assert.deepEqual(states(), ["manager1 ready", "n1 ready"]);
});
