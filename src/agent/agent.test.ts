import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { LogMessage, LogSubscription, NodeIdentity } from "../rpc/services.ts";
import { Agent } from "./agent.ts";
import { FakeExecutor } from "./executor/fake-executor.ts";
import { FakeManager, fakeIdentity, fakeTask } from "./fake-manager.ts";
import type { Certificates } from "./renewal.ts";
import { MemoryTaskDatabase } from "./task-database.ts";

const never = Number.MAX_SAFE_INTEGER;

function setUp({ executor = new FakeExecutor(), taskDatabase = new MemoryTaskDatabase() } = {}) {
  const clock = new FakeClock();
  const manager = new FakeManager();
  const identities: NodeIdentity[] = [];
  const renewal = {
    at: never,
    count: 0,
    fail: undefined as Error | undefined,
    chain: undefined as string | undefined,
    gate: undefined as PromiseWithResolvers<void> | undefined,
  };
  const disk = { gate: undefined as PromiseWithResolvers<void> | undefined };
  const certificates: Certificates = {
    tlsInfo: (identity) => ({ TrustRoot: identity.rootCA, CertIssuerSubject: identity.chain }),
    renewAt: () => renewal.at,
    renew: async (_, identity) => {
      renewal.count++;
      if (renewal.fail) throw renewal.fail;
      renewal.at = never;
      await renewal.gate?.promise;
      return { ...identity, chain: renewal.chain ?? identity.chain, key: `key${renewal.count}` };
    },
  };
  const agent = new Agent({
    identity: fakeIdentity,
    dialer: manager,
    managers: ["10.0.0.1:2377"],
    executor,
    taskDatabase,
    certificates,
    clock,
    random: seededRandom(1),
    log: silentLogger,
    onIdentity: (identity) => {
      identities.push(identity);
      return disk.gate?.promise;
    },
  });
  return { agent, clock, disk, executor, identities, manager, renewal, taskDatabase };
}

test("a stop tells the manager that the tasks go on; leaving the swarm does not", async () => {
  const { agent, manager } = await started(setUp());
  const answer = Promise.withResolvers<void>();
  manager.restGate = answer.promise;
  const stopped = agent.stop();
  await settled();
  assert.equal(manager.rests, 1);
  assert.ok(manager.connected, "the session ends after that");
  answer.resolve();
  await stopped;
  assert.ok(!manager.connected);

  const other = await started(setUp());
  await other.agent.leave();
  assert.equal(other.manager.rests, 0);

  const silent = await started(setUp());
  silent.manager.restGate = new Promise(() => undefined);
  const late = silent.agent.stop();
  await silent.clock.advance(1_000);
  await late;

  const stock = await started(setUp());
  stock.manager.fail.rest = new ShoalError("Unimplemented", "unknown service");
  await stock.agent.stop();
  assert.equal(stock.manager.rests, 1);
});

async function started(set: ReturnType<typeof setUp>): Promise<ReturnType<typeof setUp>> {
  set.agent.start();
  await settled();
  return set;
}

const state = (manager: FakeManager, id: string) => manager.statuses.get(id)?.State;

test("session, heartbeats in the period that the manager names, assignments, statuses", async () => {
  const { agent, clock, manager, executor } = setUp();
  manager.set(fakeTask("t1"));
  agent.start();
  await settled();
  assert.deepEqual(manager.sessions, [{ sessionId: "", hostname: "host1" }]);
  assert.equal(state(manager, "t1"), "running");
  assert.equal(manager.heartbeats, 1);
  await clock.advance(5000);
  assert.equal(manager.heartbeats, 2);
  manager.periodMs = 1000;
  await clock.advance(5000);
  await clock.advance(1000);
  assert.equal(manager.heartbeats, 4);
  assert.equal(agent.report().manager, "10.0.0.1:2377");
  await agent.stop();
  assert.equal(clock.timers, 0);
  assert.equal(executor.observations.get("t1")?.kind, "running", "tasks outlive the agent");
});

test("an update stops a task, REMOVE removes it and forgets it", async () => {
  const { agent, manager, executor, taskDatabase } = await started(setUp());
  manager.update(fakeTask("t1"));
  await settled();
  manager.update(fakeTask("t1", { DesiredState: "shutdown" }));
  await settled();
  assert.equal(state(manager, "t1"), "shutdown");
  assert.equal(executor.observations.get("t1")?.kind, "exited");
  manager.remove("t1");
  await settled();
  assert.equal(executor.observations.size, 0);
  assert.equal(taskDatabase.load().length, 0);
  assert.equal(agent.report().tasks, 0);
  await agent.stop();
});

test("a COMPLETE set is the whole truth: what is not in it is stopped and removed, the rest is left alone", async () => {
  const { agent, clock, manager, executor } = await started(setUp());
  manager.update(fakeTask("keep"));
  manager.update(fakeTask("drop"));
  executor.show("stray", { kind: "running", containerId: "c-stray" });
  await settled();
  assert.equal(executor.observations.has("stray"), false, "a container that nobody knows goes too");
  executor.calls.length = 0;
  manager.set(fakeTask("keep"));
  manager.disconnect();
  await clock.advance(1000);
  assert.equal(executor.observations.get("keep")?.kind, "running");
  assert.equal(executor.observations.has("drop"), false);
  assert.deepEqual(executor.calls, ["halt drop", "remove drop"]);
  await agent.stop();
});

test("a restarted daemon pulls nothing for a task before a manager has sent its credentials again", async () => {
  const taskDatabase = new MemoryTaskDatabase();
  const task = fakeTask("t1", { RegistryAuth: "c2VjcmV0" });
  taskDatabase.put({ task, status: { ...task.Status, State: "preparing", Message: "preparing" } });
  const { agent, clock, executor, manager } = setUp({ taskDatabase });
  manager.fail.session = new ShoalError("Unavailable", "no leader");
  agent.start();
  await clock.advance(20_000);
  assert.deepEqual(executor.calls, []);
  const [record] = taskDatabase.load();
  assert.equal(record?.status.Err, "waiting for a manager to send the credentials of the registry again");
  manager.set(task);
  manager.fail.session = undefined;
  await clock.advance(8000);
  assert.deepEqual([state(manager, "t1"), manager.statuses.get("t1")?.Err], ["running", undefined]);
  await agent.stop();
});

test("without a COMPLETE set nothing is removed, and known tasks are looked after", async () => {
  const taskDatabase = new MemoryTaskDatabase();
  const task = fakeTask("t1");
  taskDatabase.put({ task, status: { ...task.Status, State: "running", Message: "started" } });
  const executor = new FakeExecutor();
  executor.observations.set("t1", { kind: "running", containerId: "c-t1" });
  executor.observations.set("stray", { kind: "running", containerId: "c-stray" });
  const { agent, clock, manager } = setUp({ executor, taskDatabase });
  manager.fail.session = new ShoalError("Unavailable", "no leader");
  agent.start();
  await clock.advance(60_000);
  assert.equal(executor.observations.size, 2);
  executor.exit("t1", { code: 1 });
  await settled();
  assert.equal(taskDatabase.load()[0]?.status.State, "failed");
  manager.set(task);
  manager.fail.session = undefined;
  await clock.advance(8000);
  assert.equal(state(manager, "t1"), "failed");
  assert.deepEqual([...executor.observations.keys()], ["t1"], "now the stray is known to be one");
  await agent.stop();
});

test("a restarted agent adopts what runs, without a step", async () => {
  const executor = new FakeExecutor();
  executor.observations.set("t1", { kind: "running", containerId: "c-t1" });
  executor.observations.set("t2", { kind: "created", containerId: "c-t2" });
  const { agent, manager } = setUp({ executor });
  const task = fakeTask("t1");
  manager.set({ ...task, Status: { ...task.Status, State: "running" } }, fakeTask("t2"), fakeTask("t3"));
  await started({ agent } as ReturnType<typeof setUp>);
  assert.deepEqual(executor.calls.toSorted(), [
    "inspect t1",
    "inspect t2",
    "inspect t3",
    "prepare t3",
    "run t2",
    "run t3",
  ]);
  assert.equal(state(manager, "t2"), "running");
  await agent.stop();
});

test("a long outage of the Engine ends the session until it is over, a short one doesn't", async () => {
  const { agent, clock, manager, executor } = await started(setUp());
  manager.update(fakeTask("t1"));
  await settled();
  executor.problem("Cannot connect to the Docker Engine");
  await clock.advance(7000);
  executor.problem(undefined);
  await clock.advance(60_000);
  assert.equal(manager.sessions.length, 1);
  executor.problem("Cannot connect to the Docker Engine");
  await clock.advance(7900);
  assert.equal(manager.connected, true);
  await clock.advance(200);
  assert.equal(manager.connected, false);
  assert.match(agent.report().lastError ?? "", /Cannot connect to the Docker Engine/);
  await clock.advance(600_000);
  assert.equal(manager.dialled.length, 1);
  assert.equal(executor.observations.get("t1")?.kind, "running", "nobody has said that it is to go");
  executor.problem(undefined);
  await settled();
  assert.equal(manager.connected, true);
  assert.equal(state(manager, "t1"), "running");
  executor.problem("Cannot connect to the Docker Engine");
  await clock.advance(60_000);
  await agent.stop();
  assert.equal(clock.timers, 0);
});

test("nothing is done before it is known what there is", async () => {
  const executor = new FakeExecutor(false);
  executor.observations.set("t1", { kind: "running", containerId: "c-t1" });
  const { agent, manager } = setUp({ executor });
  manager.set(fakeTask("t1"));
  agent.start();
  await settled();
  assert.deepEqual(executor.calls, []);
  executor.becomeReady();
  await settled();
  assert.deepEqual(executor.calls, ["inspect t1"]);
  await agent.stop();
});

test("an incremental set that doesn't follow the last one: the set is asked for again, in the same session", async () => {
  const { agent, clock, manager } = await started(setUp());
  manager.set(fakeTask("t1"));
  manager.skip();
  await clock.advance(200);
  assert.equal(state(manager, "t1"), "running");
  assert.equal(manager.dialled.length, 1);
  await agent.stop();
});

test("a task that comes back while it is cleared away starts anew", async () => {
  const { agent, manager, executor } = await started(setUp());
  manager.update(fakeTask("t1"));
  await settled();
  let open = () => {};
  executor.gates.halt = new Promise((resolve) => (open = resolve));
  manager.remove("t1");
  await settled();
  manager.update(fakeTask("t1"));
  await settled();
  executor.gates.halt = undefined;
  open();
  await settled();
  assert.deepEqual(executor.calls.slice(3), ["halt t1", "remove t1", "prepare t1", "run t1", "inspect t1"]);
  await agent.stop();
});

test("any failing part closes the connection; delays grow to 8 s; the session id is kept; statuses are told again", async () => {
  const { agent, clock, manager } = setUp();
  manager.set(fakeTask("t1"));
  agent.start();
  await settled();
  manager.reports.length = 0;
  manager.fail.heartbeat = new ShoalError("Unavailable", "connection lost");
  await clock.advance(5000);
  manager.fail.session = new ShoalError("Unavailable", "connection refused");
  manager.fail.heartbeat = undefined;
  manager.dialled.length = 0;
  await clock.advance(120_000);
  assert.ok(
    manager.dialled.length >= 15 && manager.dialled.length < 120,
    `${manager.dialled.length} tries in 2 minutes`,
  );
  manager.fail.session = undefined;
  await clock.advance(8000);
  assert.equal(manager.sessions.at(-1)?.sessionId, "session1");
  assert.ok(manager.reports.flat().some(({ taskId, status }) => taskId === "t1" && status.State === "running"));
  await agent.stop();
});

test("an unknown session id is not tried twice", async () => {
  const { agent, clock, manager } = await started(setUp());
  manager.fail.heartbeat = new ShoalError("InvalidArgument", "session invalid");
  await clock.advance(5000);
  manager.fail.heartbeat = undefined;
  await clock.advance(8000);
  assert.deepEqual(
    manager.sessions.map(({ sessionId }) => sessionId),
    ["", ""],
  );
  await agent.stop();
});

test("the managers of the session replace the list, and one that fails is left for another", async () => {
  const { agent, clock, manager } = setUp();
  manager.managers = [
    { nodeId: "m1", address: "one:2377", weight: 1 },
    { nodeId: "m2", address: "two:2377", weight: 1 },
  ];
  agent.start();
  await settled();
  manager.fail.session = new ShoalError("Unavailable", "connection refused");
  manager.disconnect();
  manager.dialled.length = 0;
  await clock.advance(20_000);
  assert.deepEqual(new Set(manager.dialled), new Set(["one:2377", "two:2377"]));
  const [first, second] = manager.dialled;
  assert.notEqual(first, second);
  await agent.stop();
});

test("a changed description is told in a new session, without a delay", async () => {
  const { agent, clock, manager, executor } = await started(setUp());
  await clock.advance(40_000);
  assert.equal(manager.sessions.length, 1);
  executor.description = { Hostname: "renamed" };
  await clock.advance(20_000);
  assert.deepEqual(manager.sessions[1], { sessionId: "session1", hostname: "renamed" });
  await agent.stop();
});

test("renewal at its time, and after a request of the manager; a failed one is tried again", async () => {
  const { agent, clock, manager, identities, renewal } = setUp();
  renewal.at = clock.now() + 3_600_000;
  renewal.fail = new ShoalError("Unavailable", "no leader");
  agent.start();
  await clock.advance(3_600_000);
  assert.equal(renewal.count, 1);
  renewal.fail = undefined;
  await clock.advance(60_000);
  assert.equal(identities.at(-1)?.key, "key2");
  assert.equal(manager.sessions.length, 1, "a renewal alone does not end the session");
  manager.node = { Certificate: { State: "rotate", Role: "worker", CSR: "", Certificate: "" } };
  manager.sendSession();
  await clock.advance(500);
  assert.equal(renewal.count, 3);
  await agent.stop();
});

test("a new root is taken over, and told in a new session at once", async () => {
  const { agent, clock, manager, identities } = await started(setUp());
  manager.rootCA = "new root";
  manager.sendSession();
  await settled();
  await clock.advance(0);
  assert.equal(identities.at(-1)?.rootCA, "new root");
  const told = { sessionId: "session1", hostname: "host1" };
  assert.deepEqual(manager.sessions, [{ sessionId: "", hostname: "host1" }, told]);
  await clock.advance(3_600_000);
  assert.equal(manager.sessions.length, 2);
  await agent.stop();
});

test("a certificate of another issuer is told at once, and a renewal under way does not undo a new root", async () => {
  const { agent, clock, manager, identities, renewal } = setUp();
  renewal.at = clock.now() + 60_000;
  renewal.chain = "chain of another issuer";
  renewal.gate = Promise.withResolvers<void>();
  agent.start();
  await clock.advance(60_000);
  manager.rootCA = "new root";
  manager.sendSession();
  await clock.advance(0);
  renewal.gate.resolve();
  await clock.advance(0);
  const { rootCA, chain } = identities.at(-1)!;
  assert.deepEqual([rootCA, chain], ["new root", "chain of another issuer"]);
  assert.equal(manager.sessions.length, 3);
  await agent.stop();
});

test("a certificate of another issuer is told to nobody before it is on the disk, in no other session either", async () => {
  const { agent, clock, disk, manager, renewal } = setUp();
  renewal.at = clock.now() + 60_000;
  renewal.chain = "chain of another issuer";
  disk.gate = Promise.withResolvers<void>();
  agent.start();
  await clock.advance(60_000);
  assert.equal(renewal.count, 1);
  assert.equal(manager.sessions.length, 1);
  manager.disconnect();
  await clock.advance(60_000);
  assert.equal(manager.sessions.length, 1);
  disk.gate.resolve();
  await clock.advance(10_000);
  assert.equal(manager.sessions.length, 2);
  await agent.stop();
});

test("leave removes everything", async () => {
  const { agent, manager, executor, taskDatabase } = await started(setUp());
  manager.update(fakeTask("t1"));
  await settled();
  await agent.leave();
  assert.equal(executor.calls.at(-1), "removeAll");
  assert.equal(taskDatabase.load().length, 0);
});

const subscription = (change: Partial<LogSubscription> = {}): LogSubscription => ({
  id: "sub1",
  close: false,
  selector: { serviceIds: ["service1"], nodeIds: [], taskIds: [] },
  options: { streams: ["stdout", "stderr"], follow: false, tail: undefined, since: "" },
  ...change,
});

const line = (text: string, second: number): LogMessage => ({
  context: { serviceId: "service1", nodeId: "node1", taskId: "t1" },
  timestamp: `2026-01-01T00:00:0${second}.000000000Z`,
  stream: "stdout",
  data: Buffer.from(text),
  attributes: {},
});

const texts = (manager: FakeManager) => manager.published.get("sub1")?.map(({ data }) => Buffer.from(data).toString());

test("logs: the lines of matching tasks; a following subscription takes in new tasks, and ends by a close", async () => {
  const { agent, manager, executor } = await started(setUp());
  executor.logLines = [line("one", 1)];
  manager.update(fakeTask("t1"));
  manager.update(fakeTask("other", { ServiceID: "service2" }));
  await settled();
  const options = { ...subscription().options, follow: true, tail: 0 };
  manager.subscribe(subscription({ options }));
  await settled();
  assert.deepEqual(texts(manager), ["one"]);
  manager.update(fakeTask("t2"));
  await settled();
  assert.deepEqual(texts(manager), ["one", "one"]);
  assert.deepEqual(
    executor.logCalls.map(({ tail }) => tail),
    [0, undefined],
  );
  manager.subscribe(subscription({ close: true }));
  await settled();
  manager.update(fakeTask("t3"));
  await settled();
  assert.deepEqual(texts(manager), ["one", "one"]);
  await agent.stop();
});

test("logs: what the stream of a broken session had not got rid of is told again", async () => {
  const { agent, clock, manager, executor } = await started(setUp());
  const options = { ...subscription().options, follow: true };
  executor.logLines = [line("one", 1)];
  manager.set(fakeTask("t1"));
  manager.update(fakeTask("t1"));
  manager.subscribe(subscription({ options }));
  await settled();
  assert.deepEqual(texts(manager), ["one"]);
  const stuck = Promise.withResolvers<void>();
  manager.publishGate = stuck.promise;
  const lineOf = (taskId: string, second: number) => {
    const said = line(taskId, second);
    return { ...said, context: { ...said.context, taskId } };
  };
  for (const [second, taskId] of ["t2", "t3"].entries()) {
    executor.logLines = [lineOf(taskId, second)];
    manager.update(fakeTask(taskId));
    await settled();
  }
  manager.disconnect();
  manager.publishGate = Promise.resolve();
  executor.logCalls.length = 0;
  executor.logLines = [];
  await clock.advance(1000);
  manager.subscribe(subscription({ options }));
  await settled();
  assert.deepEqual(
    executor.logCalls.map(({ since }) => since),
    ["2026-01-01T00:00:01.000000000Z", "", ""],
  );
  stuck.resolve();
  await agent.stop();
});

test("logs: a subscription that comes again with a new session goes on after its last line", async () => {
  const { agent, clock, manager, executor } = setUp();
  manager.set(fakeTask("t1"));
  agent.start();
  await settled();
  executor.logLines = [line("one", 1), line("two", 2)];
  const options = { ...subscription().options, follow: true, tail: 5 };
  manager.subscribe(subscription({ options }));
  await settled();
  manager.disconnect();
  await clock.advance(1000);
  executor.logLines = [line("two", 2), line("three", 3)]; // the Engine's `since` includes its time
  manager.subscribe(subscription({ options }));
  await settled();
  assert.deepEqual(texts(manager), ["one", "two", "three"]);
  assert.deepEqual(
    executor.logCalls.map(({ since, tail }) => [since, tail]),
    [
      ["", 5],
      ["2026-01-01T00:00:02.000000000Z", undefined],
    ],
  );
  await agent.stop();
});

test("logs: a log that can't be read says why, once, and does not keep the others", async () => {
  const { agent, manager, executor } = await started(setUp());
  executor.logLines = [line("one", 1)];
  executor.logFailures.set("t2", new ShoalError("Unimplemented", "configured logging driver does not support reading"));
  executor.logFailures.set("t3", new ShoalError("NotFound", "No such container: x"));
  for (const id of ["t1", "t2", "t3"]) manager.update(fakeTask(id));
  await settled();
  manager.subscribe(subscription());
  await settled();
  const said = manager.published.get("sub1") ?? [];
  assert.deepEqual(
    said.map(({ context, data, unreadable }) => [context.taskId, Buffer.from(data).toString(), unreadable]).sort(),
    [
      ["t1", "one", undefined],
      ["t2", "configured logging driver does not support reading", true],
    ],
  );
  await agent.stop();
});
