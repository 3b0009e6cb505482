/** One reader of logs, several managers: each with a broker of its own, all on one store. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { AsyncQueue } from "../../lib/queue.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Node, Task } from "../../model/types.ts";
import type { LogsRequest } from "../../rpc/peers.ts";
import type { Caller, LogMessage, LogOptions, LogSubscription } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import type { Draft } from "../../store/view.ts";
import { LogBroker } from "./log-broker.ts";
import { readLogs } from "./reader.ts";

const managers = ["m1", "m2", "m3"];
const once: LogOptions = { streams: ["stdout", "stderr"], follow: false, tail: undefined, since: "" };
const follow: LogOptions = { ...once, follow: true, tail: 2 };

class World {
  readonly clock = new FakeClock();
  readonly store: Store;
  readonly unreachable = new Set<string>();
  readonly #brokers = new Map<string, LogBroker>();
  /** Breaks the present answers of a manager, from the side of the one that asks. */
  readonly #breaks = new Map<string, AbortController>();
  readonly asked: { readonly manager: string; readonly nodeIds: readonly string[] }[] = [];

  constructor(store: Store) {
    this.store = store;
    for (const id of managers) {
      const broker = new LogBroker({ store, clock: this.clock, random: seededRandom(1), log: silentLogger });
      broker.start();
      this.#brokers.set(id, broker);
    }
  }

  /** Each node's id, and the manager of its session; each has one task of the service, named like it. */
  static async create(t: { after(run: () => void): void }, nodes: Readonly<Record<string, string>>): Promise<World> {
    const store = await Store.open(new MemoryBackend(), new FakeClock());
    const world = new World(store);
    t.after(() => {
      for (const broker of world.#brokers.values()) broker.stop();
    });
    await store.update((tx) => {
      for (const [id, SessionManager] of Object.entries(nodes)) {
        tx.create("nodes", {
          ID: id,
          Spec: {},
          Status: { State: "ready" },
          Role: "worker",
          SessionManager,
        } as Draft<Node>);
        tx.create("tasks", taskOn(id));
      }
    });
    return world;
  }

  broker(manager: string): LogBroker {
    return this.#brokers.get(manager)!;
  }

  async move(nodeId: string, SessionManager: string): Promise<void> {
    await this.store.update((tx) => tx.put("nodes", { ...tx.get("nodes", nodeId)!, SessionManager }));
    await settled();
  }

  break(manager: string): void {
    this.#breaks.get(manager)?.abort(new ShoalError("Unavailable", "connection lost"));
    this.#breaks.delete(manager);
  }

  read(options: LogOptions, signal = new AbortController().signal) {
    const lines: string[] = [];
    const stream = readLogs(
      {
        nodeId: "m1",
        store: this.store,
        clock: this.clock,
        log: silentLogger,
        selector: { serviceIds: ["web"], taskIds: [] },
        options,
        ask: (manager, request, asking) => this.#ask(manager, request, asking),
        isReachable: (manager) => !this.unreachable.has(manager),
      },
      signal,
    );
    const ended = (async () => {
      for await (const message of stream) lines.push(Buffer.from(message.data).toString());
      return "ended" as const;
    })();
    ended.catch(() => undefined); // looked at by the tests that expect it
    return { lines, ended };
  }

  async *#ask(manager: string, request: LogsRequest, signal: AbortSignal): AsyncGenerator<LogMessage, void, void> {
    this.asked.push({ manager, nodeIds: request.nodeIds });
    const broken = this.#breaks.get(manager) ?? new AbortController();
    this.#breaks.set(manager, broken);
    const either = AbortSignal.any([signal, broken.signal]);
    yield* this.broker(manager).logs(request, either);
    either.throwIfAborted();
  }
}

function taskOn(nodeId: string): Draft<Task> {
  return {
    ID: `t-${nodeId}`,
    ServiceID: "web",
    Slot: 1,
    NodeID: nodeId,
    SpecVersion: { Index: 1 },
    Status: { Timestamp: "", State: "running" },
    DesiredState: "running",
  };
}

const at = (second: number) => `2026-01-01T00:00:${String(second).padStart(2, "0")}.5Z`;

/** An agent with its session at one manager: hears of subscriptions, and publishes on the last one. */
class Agent {
  readonly heard: LogSubscription[] = [];
  readonly #broker: LogBroker;
  readonly #caller: Caller;
  readonly #gone = new AbortController();
  #queue: AsyncQueue<readonly LogMessage[]> | undefined;

  constructor(world: World, nodeId: string, manager: string) {
    this.#broker = world.broker(manager);
    this.#caller = { nodeId, role: "worker", clusterId: "c", address: "", certificate: "" };
    void this.#listen().catch(() => undefined); // it ends with the manager
  }

  async #listen(): Promise<void> {
    for await (const heard of this.#broker.listenSubscriptions(this.#caller, this.#gone.signal)) {
      this.heard.push(heard);
      this.#queue?.close();
      if (heard.close) continue;
      this.#queue = new AsyncQueue(100);
      void this.#broker.publishLogs(this.#caller, heard.id, this.#queue).catch(() => undefined); // or nobody asks any more
    }
  }

  async says(...seconds: number[]): Promise<void> {
    const { nodeId } = this.#caller;
    const context = { serviceId: "web", nodeId, taskId: `t-${nodeId}` };
    for (const second of seconds) {
      const data = Buffer.from(`${nodeId} ${second}`);
      this.#queue?.push([{ context, timestamp: at(second), stream: "stdout", data, attributes: {} }]);
    }
    await settled();
  }

  async cannotRead(why: string): Promise<void> {
    const { nodeId } = this.#caller;
    const context = { serviceId: "web", nodeId, taskId: `t-${nodeId}` };
    const data = Buffer.from(why);
    this.#queue?.push([{ context, timestamp: "", stream: "stderr", data, attributes: {}, unreadable: true }]);
    await settled();
  }

  async ends(): Promise<void> {
    this.#queue?.close();
    await settled();
  }

  async leaves(): Promise<void> {
    this.#gone.abort();
    await settled();
  }
}

test("the nodes of all managers are asked, each through its own, and the end comes after all of them", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2", n3: "m2", n4: "m3" });
  const agents = [
    new Agent(world, "n1", "m1"),
    new Agent(world, "n2", "m2"),
    new Agent(world, "n3", "m2"),
    new Agent(world, "n4", "m3"),
  ];
  await settled();
  const { lines, ended } = world.read(once);
  await settled();
  assert.deepEqual(world.asked, [
    { manager: "m1", nodeIds: ["n1"] },
    { manager: "m2", nodeIds: ["n2", "n3"] },
    { manager: "m3", nodeIds: ["n4"] },
  ]);
  for (const agent of agents) await agent.says(1, 2);
  for (const agent of agents) await agent.ends();
  assert.equal(await ended, "ended");
  assert.deepEqual(
    lines.sort(),
    ["n1", "n2", "n3", "n4"].flatMap((id) => [`${id} 1`, `${id} 2`]),
  );
  assert.equal(world.clock.timers, 0);
});

test("an answer that breaks off is asked for again, from the last line that has come", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2" });
  const [one, two] = [new Agent(world, "n1", "m1"), new Agent(world, "n2", "m2")];
  await settled();
  for (const options of [follow, once]) {
    const client = new AbortController();
    const { lines, ended } = world.read(options, client.signal);
    await settled();
    await one.says(1);
    await two.says(1, 2, 3);
    world.break("m2");
    await settled();
    await world.clock.advance(1000);
    assert.deepEqual(two.heard.at(-1)?.options, { ...options, tail: undefined, since: at(3) });
    await two.says(3, 4);
    await one.says(5);
    assert.deepEqual(lines, ["n1 1", "n2 1", "n2 2", "n2 3", "n2 4", "n1 5"]);
    if (options.follow) client.abort();
    else for (const agent of [one, two]) await agent.ends();
    assert.equal(await ended, "ended");
    await settled();
  }
});

test("a node that moves to another manager goes on there; one that comes back, too", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2" });
  const before = new Agent(world, "n2", "m2");
  await settled();
  const { lines } = world.read(follow);
  await settled();
  assert.deepEqual(before.heard[0]?.options, follow);
  await before.says(1, 2);
  await before.leaves();
  const there = new Agent(world, "n2", "m3");
  await world.move("n2", "m3");
  assert.deepEqual(there.heard[0]?.options, { ...follow, tail: undefined, since: at(2) });
  await there.says(2, 3, 4, 5, 6);
  await there.leaves();
  const back = new Agent(world, "n2", "m2");
  await world.move("n2", "m2");
  assert.equal(back.heard.length, 1, "what has been asked of that manager goes on");
  await back.says(2, 3, 4, 5, 6, 7);
  await back.leaves();
  const near = new Agent(world, "n2", "m1");
  await world.move("n2", "m1");
  await near.says(7, 8);
  assert.deepEqual(
    lines,
    [1, 2, 3, 4, 5, 6, 7, 8].map((second) => `n2 ${second}`),
  );
});

test("a task that had said nothing before its node moved loses no line, and shows no more than was asked for", async (t) => {
  const world = await World.create(t, { n2: "m2" });
  const before = new Agent(world, "n2", "m2");
  await settled();
  const askedAt = world.clock.now();
  const { lines } = world.read(follow);
  await settled();
  await before.leaves();
  await world.clock.advance(60_000);
  const there = new Agent(world, "n2", "m3");
  await world.move("n2", "m3");
  const { tail, since } = there.heard[0]!.options;
  assert.equal(tail, undefined);
  assert.ok(Date.parse(since) <= askedAt && Date.parse(since) > askedAt - 5000, since);
  await there.says(40);
  assert.deepEqual(lines, ["n2 40"]);
});

test("a manager that can't be reached any more: a reader that does not follow is told, one that does waits for it", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2" });
  const [one, two] = [new Agent(world, "n1", "m1"), new Agent(world, "n2", "m2")];
  await settled();
  const short = world.read(once);
  await settled();
  await one.says(1);
  await one.ends();
  await two.says(1);
  world.unreachable.add("m2");
  await world.clock.advance(2000);
  await assert.rejects(short.ended, { code: "Unknown", message: /following reasons: node n2 is not available$/ });
  assert.deepEqual(short.lines, ["n1 1", "n2 1"]);
  const long = world.read(follow);
  await world.clock.advance(10_000);
  world.unreachable.clear();
  await world.clock.advance(1000);
  await two.says(1, 2);
  assert.deepEqual(long.lines, ["n2 1", "n2 2"]);
});

test("a manager whose answers keep breaking off is given up by a reader that does not follow", async (t) => {
  const world = await World.create(t, { n2: "m2" });
  new Agent(world, "n2", "m2");
  await settled();
  const { ended } = world.read(once);
  for (let times = 0; times < 3; times++) {
    await settled();
    world.break("m2");
    await world.clock.advance(1000);
  }
  await assert.rejects(ended, { code: "Unknown", message: /node n2 is not available$/ });
  assert.equal(world.asked.length, 3);
});

const noReading = "configured logging driver does not support reading";

test("a log that can't be read is told after the lines of the others", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2" });
  const agents = [new Agent(world, "n1", "m1"), new Agent(world, "n2", "m2")];
  await settled();
  const { lines, ended } = world.read(once);
  await settled();
  await agents[1]!.cannotRead(noReading);
  await agents[0]!.says(1);
  for (const agent of agents) await agent.ends();
  await assert.rejects(ended, {
    code: "Unknown",
    message:
      "warning: incomplete log stream. some logs could not be retrieved for the following reasons: " +
      `the log of task t-n2 can't be read: ${noReading}`,
  });
  assert.deepEqual(lines, ["n1 1"]);
});

test("following ends with that reason once no task's log can be read", async (t) => {
  const world = await World.create(t, { n1: "m1", n2: "m2" });
  const agents = [new Agent(world, "n1", "m1"), new Agent(world, "n2", "m2")];
  await settled();
  const { lines, ended } = world.read(follow);
  await settled();
  await agents[1]!.cannotRead(noReading);
  await agents[0]!.says(1);
  await world.clock.advance(5_000);
  assert.deepEqual(lines, ["n1 1"], "it goes on: one log can be read");
  await agents[0]!.cannotRead(noReading);
  await assert.rejects(ended, { code: "Unknown", message: /t-n2 can't be read: .*, the log of task t-n1 can't be/ });
  assert.equal(world.clock.timers, 0);
});
