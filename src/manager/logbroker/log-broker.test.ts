import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { AsyncQueue } from "../../lib/queue.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Node, Task } from "../../model/types.ts";
import type { TaskSelector } from "../../rpc/peers.ts";
import type { Caller, LogMessage, LogOptions, LogSubscription } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import type { Draft } from "../../store/view.ts";
import { LogBroker } from "./log-broker.ts";
import { readLogs } from "./reader.ts";

const once: LogOptions = { streams: ["stdout", "stderr"], follow: false, tail: undefined, since: "" };
const follow: LogOptions = { ...once, follow: true, tail: 5 };
const web = { serviceIds: ["web"], taskIds: [] };

function task(id: string, nodeId: string): Draft<Task> {
  return {
    ID: id,
    ServiceID: "web",
    Slot: 1,
    NodeID: nodeId,
    SpecVersion: { Index: 1 },
    Status: { Timestamp: "", State: nodeId ? "running" : "pending" },
    DesiredState: "running",
  };
}

function node(id: string): Draft<Node> {
  return { ID: id, Spec: {}, Status: { State: "ready" }, Role: "worker", SessionManager: "m1" };
}

function caller(nodeId: string): Caller {
  return { nodeId, role: "worker", clusterId: "c", address: "", certificate: "" };
}

async function broker(t: { after(run: () => void): void }, tasks: Draft<Task>[]) {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) => {
    for (const id of ["n1", "n2"]) tx.create("nodes", node(id));
    for (const draft of tasks) tx.create("tasks", draft);
  });
  const logBroker = new LogBroker({ store, clock, random: seededRandom(1), log: silentLogger });
  logBroker.start();
  t.after(() => logBroker.stop());
  /** As a client of this manager, the only one, reads. */
  const logs = (selector: TaskSelector, options: LogOptions, signal: AbortSignal) =>
    readLogs(
      {
        nodeId: "m1",
        store,
        clock,
        log: silentLogger,
        selector,
        options,
        ask: (_, request, asking) => logBroker.logs(request, asking),
        isReachable: () => false,
      },
      signal,
    );
  return { store, clock, logBroker, logs };
}

function line(nodeId: string, taskId: string, second: number, text = `${taskId} ${second}`): LogMessage {
  return {
    context: { serviceId: "web", nodeId, taskId },
    timestamp: `2026-01-01T00:00:${String(second).padStart(2, "0")}.5Z`,
    stream: "stdout",
    data: Buffer.from(text),
    attributes: {},
  };
}

/** An agent's standing stream. */
function listen(logBroker: LogBroker, nodeId: string) {
  const gone = new AbortController();
  const heard: LogSubscription[] = [];
  const ended = (async () => {
    for await (const subscription of logBroker.listenSubscriptions(caller(nodeId), gone.signal))
      heard.push(subscription);
  })();
  ended.catch(() => undefined); // looked at by the tests that expect it
  return { heard, ended, hangUp: () => gone.abort() };
}

/** A client that reads. */
function read(stream: AsyncIterable<LogMessage>) {
  const lines: string[] = [];
  const ended = (async () => {
    for await (const message of stream) lines.push(Buffer.from(message.data).toString());
    return "ended" as const;
  })();
  ended.catch(() => undefined); // looked at by the tests that expect it
  return { lines, ended };
}

function publisher(logBroker: LogBroker, nodeId: string, subscriptionId: string) {
  const queue = new AsyncQueue<readonly LogMessage[]>(1000);
  const ended = logBroker.publishLogs(caller(nodeId), subscriptionId, queue);
  ended.catch(() => undefined);
  return {
    ended,
    say: (...messages: LogMessage[]) => queue.push(messages),
    close: () => queue.close(),
    fail: () => queue.fail(new Error("reset")),
  };
}

const never = new AbortController().signal;

test("lines of all nodes with tasks of the service, and the end when each has said its own", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n2")]);
  const [one, two] = [listen(logBroker, "n1"), listen(logBroker, "n2")];
  await settled();
  const client = read(logs(web, once, never));
  await settled();
  const subscription = one.heard[0]!;
  assert.deepEqual(subscription.selector, { serviceIds: ["web"], taskIds: [], nodeIds: [] });
  assert.deepEqual(subscription.options, once);
  assert.equal(two.heard[0]?.id, subscription.id);
  const [p1, p2] = [publisher(logBroker, "n1", subscription.id), publisher(logBroker, "n2", subscription.id)];
  p1.say(line("n1", "a", 1), line("n1", "a", 2));
  p1.close();
  await p1.ended;
  await settled();
  assert.deepEqual(client.lines, ["a 1", "a 2"]);
  p2.say(line("n2", "b", 1));
  p2.close();
  assert.equal(await client.ended, "ended");
  assert.deepEqual(client.lines, ["a 1", "a 2", "b 1"]);
  await settled();
  assert.equal(one.heard.length, 1, "a node that is done is not told to close");
  await assert.rejects(publisher(logBroker, "n1", subscription.id).ended, {
    code: "NotFound",
    message: "unknown subscription ID",
  });
});

test("a service without tasks ends at once, and a task alone asks its node only", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n2")]);
  assert.equal(await read(logs({ serviceIds: ["none"], taskIds: [] }, once, never)).ended, "ended");
  const [one, two] = [listen(logBroker, "n1"), listen(logBroker, "n2")];
  await settled();
  read(logs({ serviceIds: [], taskIds: ["b"] }, once, never));
  await settled();
  assert.equal(one.heard.length, 0);
  assert.deepEqual(two.heard[0]?.selector.taskIds, ["b"]);
});

test("nodes that cannot be reached and tasks without a node are a warning after the lines, never a hang", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n2"), task("c", "")]);
  const one = listen(logBroker, "n1");
  await settled();
  const client = read(logs(web, once, never));
  await settled();
  const publishing = publisher(logBroker, "n1", one.heard[0]!.id);
  publishing.say(line("n1", "a", 1));
  publishing.close();
  await assert.rejects(client.ended, {
    code: "Unknown",
    message:
      "warning: incomplete log stream. some logs could not be retrieved for the following reasons: " +
      "task c has not been scheduled, node n2 is not available",
  });
  assert.deepEqual(client.lines, ["a 1"]);
});

for (const [how, lose] of [
  ["whose agent hangs up", async (_: Store, agent: ReturnType<typeof listen>) => agent.hangUp()],
  [
    "that goes down",
    async (store: Store) => {
      await store.update((tx) => tx.put("nodes", { ...tx.get("nodes", "n1")!, Status: { State: "down" } }));
    },
  ],
] as const) {
  test(`a node ${how} does not hold the reader up`, async (t) => {
    const { store, logBroker, logs } = await broker(t, [task("a", "n1")]);
    const one = listen(logBroker, "n1");
    await settled();
    const client = read(logs(web, once, never));
    await settled();
    await lose(store, one);
    await one.ended;
    await assert.rejects(client.ended, { code: "Unknown", message: /node n1 disconnected unexpectedly$/ });
  });
}

test("an agent that listens but never answers is given up; one that is slow to say its first line is not", async (t) => {
  const { clock, logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n2")]);
  const one = listen(logBroker, "n1");
  listen(logBroker, "n2");
  await settled();
  const client = read(logs(web, once, never));
  await settled();
  const slow = publisher(logBroker, "n1", one.heard[0]!.id);
  await clock.advance(60_000);
  slow.say(line("n1", "a", 1));
  slow.close();
  await assert.rejects(client.ended, { code: "Unknown", message: /following reasons: node n2 is not available$/ });
  assert.deepEqual(client.lines, ["a 1"]);
  assert.equal(clock.timers, 0);
});

test("a publisher that breaks off is a warning", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1")]);
  const one = listen(logBroker, "n1");
  await settled();
  const client = read(logs(web, once, never));
  await settled();
  const publishing = publisher(logBroker, "n1", one.heard[0]!.id);
  publishing.fail();
  await assert.rejects(publishing.ended, { message: "reset" });
  await assert.rejects(client.ended, { code: "Unknown" });
});

test("following stays open, reaches nodes that get tasks later, and ends when the client leaves", async (t) => {
  const { store, logBroker, logs } = await broker(t, [task("a", "n1")]);
  const [one, two] = [listen(logBroker, "n1"), listen(logBroker, "n2")];
  await settled();
  const client = new AbortController();
  const reading = read(logs(web, follow, client.signal));
  await settled();
  const { id } = one.heard[0]!;
  const p1 = publisher(logBroker, "n1", id);
  p1.say(line("n1", "a", 1));
  await settled();
  assert.equal(two.heard.length, 0);
  await store.update((tx) => tx.create("tasks", task("later", "")));
  await store.update((tx) => tx.put("tasks", { ...tx.get("tasks", "later")!, NodeID: "n2" }));
  await settled();
  publisher(logBroker, "n2", two.heard[0]!.id).say(line("n2", "later", 2));
  await settled();
  assert.deepEqual(reading.lines, ["a 1", "later 2"]);
  assert.deepEqual(
    [one, two].map(({ heard }) => heard[0]!.options.tail),
    [5, undefined],
    "what a task writes that began later is new from its first line on",
  );

  client.abort();
  assert.equal(await reading.ended, "ended");
  await p1.ended;
  await settled();
  assert.deepEqual(
    one.heard.map(({ close }) => close),
    [false, true],
  );
  assert.equal(two.heard.at(-1)?.close, true);
});

test("an agent that reconnects publishes anew, and no line is read twice", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n1")]);
  const before = listen(logBroker, "n1");
  await settled();
  const reading = read(logs(web, follow, never));
  await settled();
  const { id } = before.heard[0]!;
  const first = publisher(logBroker, "n1", id);
  first.say(line("n1", "a", 1), line("n1", "a", 3), line("n1", "b", 2));
  await settled();
  before.hangUp();
  await before.ended;
  const after = listen(logBroker, "n1");
  await settled();
  const asked = after.heard[0]!;
  assert.deepEqual(asked.options, { ...follow, tail: undefined, since: line("n1", "b", 2).timestamp });
  assert.notEqual(asked.id, id, "what the agent believes to have said under that one does not count");
  await assert.rejects(publisher(logBroker, "n1", id).ended, { code: "NotFound" });
  const second = publisher(logBroker, "n1", asked.id);
  await first.ended;
  second.say(
    line("n1", "b", 2),
    line("n1", "a", 3),
    line("n1", "a", 4),
    line("n1", "a", 4, "same time"),
    line("n1", "b", 5),
  );
  await settled();
  assert.deepEqual(reading.lines, ["a 1", "a 3", "b 2", "a 4", "same time", "b 5"]);
});

test("times without trailing zeros compare as times", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1")]);
  const agent = listen(logBroker, "n1");
  await settled();
  const reading = read(logs(web, follow, never));
  await settled();
  const { id } = agent.heard[0]!;
  const at = (fraction: string) => ({ ...line("n1", "a", 1, fraction), timestamp: `2026-01-01T00:00:01${fraction}Z` });
  publisher(logBroker, "n1", id).say(at(".5"));
  await settled();
  publisher(logBroker, "n1", id).say(at(""), at(".49"), at(".5"), at(".51"));
  await settled();
  assert.deepEqual(reading.lines, [".5", ".51"]);
});

test("a client that does not read stops its publishers at the buffer's limit, and loses nothing", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1")]);
  const agent = listen(logBroker, "n1");
  await settled();
  const iterator = logs(web, once, never)[Symbol.asyncIterator]();
  const firstLine = iterator.next();
  await settled();
  let offered = 0;
  const batches = 100;
  const big = "x".repeat(64 * 1024);
  async function* many() {
    for (; offered < batches; offered++) yield [line("n1", "a", offered % 60, big)];
  }
  const publishing = logBroker.publishLogs(caller("n1"), agent.heard[0]!.id, many());
  await firstLine;
  await settled();
  assert(offered < 50, `${offered} batches were taken from a client that does not read`);
  let count = 1;
  while (!(await iterator.next()).done) count++;
  await publishing;
  assert.equal(count, batches);
});

test("a client that leaves a full buffer frees its publisher", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1")]);
  const agent = listen(logBroker, "n1");
  await settled();
  const client = new AbortController();
  const iterator = logs(web, follow, client.signal)[Symbol.asyncIterator]();
  const firstLine = iterator.next();
  await settled();
  async function* endless() {
    for (;;) yield [line("n1", "a", 1, "x".repeat(64 * 1024))];
  }
  const publishing = logBroker.publishLogs(caller("n1"), agent.heard[0]!.id, endless());
  await firstLine;
  client.abort();
  await publishing;
  await iterator.return(undefined);
});

test("a node speaks only of its own tasks, and only of those that were asked for", async (t) => {
  const { store, logBroker, logs } = await broker(t, [task("a", "n1"), task("b", "n2")]);
  await store.update((tx) => tx.create("tasks", { ...task("other", "n1"), ServiceID: "db" }));
  const agent = listen(logBroker, "n1");
  await settled();
  const reading = read(logs(web, follow, never));
  await settled();
  const { id } = agent.heard[0]!;
  for (const foreign of [line("n2", "b", 1), line("n1", "b", 1), line("n1", "other", 1)]) {
    const publishing = publisher(logBroker, "n1", id);
    publishing.say(foreign);
    await assert.rejects(publishing.ended, { code: "PermissionDenied" });
  }
  assert.deepEqual(reading.lines, []);
});

test("stop ends readers and agents with Unavailable", async (t) => {
  const { logBroker, logs } = await broker(t, [task("a", "n1")]);
  const agent = listen(logBroker, "n1");
  await settled();
  const reading = read(logs(web, follow, never));
  await settled();
  logBroker.stop();
  await assert.rejects(agent.ended, { code: "Unavailable" });
  await assert.rejects(reading.ended, { code: "Unavailable" });
  await assert.rejects(read(logs(web, follow, never)).ended, { code: "Unavailable" });
});
