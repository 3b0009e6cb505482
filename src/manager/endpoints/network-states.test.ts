import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import fc from "fast-check";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { NetworksMessage } from "../../model/network-state.ts";
import type { Caller } from "../../rpc/services.ts";
import type { Store } from "../../store/store.ts";
import { Session } from "../dispatcher/session.ts";
import { contentsOf, makeNetwork, makeNode, makeService, makeTask, NodeModel, setTask } from "./harness.ts";
import { NetworkIndex } from "./network-index.ts";
import { NetworkStates, type WithdrawalPeer } from "./network-states.ts";
import { openStore, perform, steps } from "./steps-fixture.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

const never = new AbortController().signal;
const nobody = () => undefined;

function callerOf(nodeId: string): Caller {
  return { nodeId, role: "worker", clusterId: "c", address: "", certificate: "" };
}

/** A manager's part, with a session for each node that has one; `session` ends it. */
class Part {
  readonly states: NetworkStates;
  readonly sessions = new Map<string, Session>();
  readonly peers: WithdrawalPeer[] = [];

  constructor(store: Store, clock: FakeClock, nodeIds: readonly string[]) {
    for (const id of nodeIds) this.sessions.set(id, new Session(`session-${id}`, id, store.view, () => []));
    this.states = new NetworkStates({
      store,
      clock,
      random: seededRandom(1),
      log: silentLogger,
      session: ({ nodeId }, sessionId) => {
        const session = this.sessions.get(nodeId);
        if (!session || session.id !== sessionId) throw new ShoalError("NotFound", "node not registered");
        return session;
      },
      peers: () => this.peers,
    });
    this.states.start();
    cleanups.push(() => this.states.stop());
  }

  end(nodeId: string): void {
    this.sessions.get(nodeId)?.end(new ShoalError("Aborted", "node must disconnect"));
    this.sessions.delete(nodeId);
  }
}

/** A node. The message after those that it was told to read, it takes when it comes. */
class Reader {
  readonly nodeId: string;
  readonly model = new NodeModel();
  readonly received: NetworksMessage[] = [];
  acknowledges = true;
  failure: unknown;
  readonly #part: Part;
  readonly #clock: FakeClock;
  readonly #messages: AsyncGenerator<NetworksMessage, void, void>;
  readonly #end = new AbortController();
  #next: Promise<void> | undefined;
  #taken = 0;
  #ended = false;

  constructor(part: Part, clock: FakeClock, nodeId: string, number: number) {
    this.#part = part;
    this.#clock = clock;
    this.nodeId = nodeId;
    const address = `192.168.0.${number}`;
    const { signal } = this.#end;
    this.#messages = part.states.networks(callerOf(nodeId), `session-${nodeId}`, { address }, signal);
    cleanups.push(() => this.stop());
  }

  /** Takes messages until there is none for a while. */
  async read(): Promise<void> {
    for (let taken = -1; taken < this.#taken && !this.#ended; ) {
      taken = this.#taken;
      this.#next ??= this.#take().finally(() => {
        this.#next = undefined;
        this.#taken++;
      });
      await this.#clock.advance(10);
    }
  }

  async #take(): Promise<void> {
    try {
      const { value, done } = await this.#messages.next();
      if (done) this.#ended = true;
      if (!value) return;
      this.model.apply(value);
      this.received.push(value);
      if (this.acknowledges) await this.acknowledge();
    } catch (error) {
      this.failure = error;
      this.#ended = true;
    }
  }

  async acknowledge(): Promise<void> {
    await this.#part.states.applied(callerOf(this.nodeId), `session-${this.nodeId}`, this.model.revision);
  }

  async stop(): Promise<void> {
    this.#end.abort();
    await settled();
    await this.#next;
    await this.#messages.return();
  }

  leadsTo(taskId: string): boolean {
    return [...this.model.networks.values()].some(({ endpoints }) => endpoints.get(taskId)?.active);
  }
}

test("whatever is written and whenever it reads, a node knows exactly its networks", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      const clock = new FakeClock();
      const store = await openStore(clock);
      const nodeIds = ["n0", "n1", "n2"];
      await store.update((tx) => {
        for (const id of nodeIds) makeNode(tx, id, undefined);
      });
      const part = new Part(store, clock, nodeIds);
      const readers = new Map(nodeIds.map((id, index) => [id, new Reader(part, clock, id, index + 1)]));
      for (const reader of readers.values()) await reader.read();
      for (const step of sequence) {
        if (step.kind === "read") await readers.get(step.node)!.read();
        if (step.kind !== "commit") continue;
        await store.update((tx) => {
          for (const write of step.writes) perform(tx, write);
        });
      }
      const index = new NetworkIndex(store.view, nobody, nobody);
      for (const [nodeId, reader] of readers) {
        await reader.read();
        assert.equal(reader.failure, undefined);
        assert.deepEqual(reader.model.contents(), contentsOf(index, nodeId));
        if (index.key && index.takesPart(nodeId, "enc")) assert.equal(reader.model.key, index.key.revision);
        await reader.stop();
      }
      part.states.stop();
    }),
    { numRuns: 300 },
  );
});

/** Two nodes of one manager and one of another, all on a network with a task each. */
async function threeNodes() {
  const clock = new FakeClock();
  const store = await openStore(clock);
  await store.update((tx) => {
    makeNetwork(tx, "a", 1);
    makeNetwork(tx, "b", 2);
    for (const [index, id] of ["n0", "n1", "n2", "other"].entries()) makeNode(tx, id, index + 1);
    makeService(tx, "web", 5, ["a"], { aliases: ["www"] });
    const running = { Status: { Timestamp: "", State: "running" as const } };
    for (const number of [0, 1, 2]) makeTask(tx, `t${number}`, "web", `n${number}`, ["a"], running);
    makeTask(tx, "elsewhere", "web", "other", ["b"], running);
  });
  const near = new Part(store, clock, ["n0", "n1", "other"]);
  const far = new Part(store, clock, ["n2"]);
  near.peers.push(far.states);
  const readers = ["n0", "n1", "other"].map((id, index) => new Reader(near, clock, id, [1, 2, 4][index]!));
  readers.push(new Reader(far, clock, "n2", 3));
  for (const reader of readers) await reader.read();
  const [n0, n1, other, n2] = readers as [Reader, Reader, Reader, Reader];
  const withdraw = (...taskIds: string[]) => {
    let state: "waiting" | "done" = "waiting";
    const done = near.states
      .withdraw(callerOf("n0"), "session-n0", taskIds, never)
      .finally(() => (state = "done"))
      .then(() => undefined);
    return { done, state: () => state };
  };
  return { clock, store, near, far, n0, n1, n2, other, withdraw };
}

test("a withdrawal is answered once the kernels of all nodes are so far, whichever manager they are with", async () => {
  const { clock, n0, n1, n2, other, withdraw } = await threeNodes();
  const before = other.model.messages;
  for (const reader of [n0, n1, n2]) {
    reader.acknowledges = false;
    assert.equal(reader.leadsTo("t0"), true);
  }
  const withdrawal = withdraw("t0");
  for (const reader of [n0, n1, n2]) {
    await reader.read();
    assert.equal(reader.leadsTo("t0"), false, "it runs as far as the store knows, and nobody is led to it");
    assert.equal(reader.leadsTo("t1"), true);
  }
  await n0.acknowledge();
  await n1.acknowledge();
  await clock.advance(100);
  assert.equal(withdrawal.state(), "waiting", "for the other manager's node");
  await n2.acknowledge();
  await withdrawal.done;
  await other.read();
  assert.equal(other.model.messages, before, "a node that does not take part hears nothing, and is not waited for");
});

test("a task that the store calls stopped is withdrawn when that has been applied", async () => {
  const { store, clock, n0, n1, n2, withdraw } = await threeNodes();
  for (const reader of [n0, n1, n2]) reader.acknowledges = false;
  await store.update((tx) => setTask(tx, "t0", { DesiredState: "shutdown" }));
  for (const reader of [n0, n1, n2]) await reader.read();
  assert.equal(n1.leadsTo("t0"), false);
  const early = withdraw("t0");
  await clock.advance(100);
  assert.equal(early.state(), "waiting");
  for (const reader of [n0, n1, n2]) await reader.acknowledge();
  await early.done;
  const start = clock.now();
  await withdraw("t0").done;
  assert.equal(clock.now(), start, "all is done already");
});

test("a node that hangs is waited for in limits, and one whose session ends not at all", async () => {
  const { clock, near, n0, n1, n2, withdraw } = await threeNodes();
  n1.acknowledges = false;
  const start = clock.now();
  const first = withdraw("t0");
  for (const reader of [n0, n2]) await reader.read();
  await clock.advance(1_000);
  assert.equal(first.state(), "waiting");
  await clock.advance(1_000);
  await first.done;
  assert(clock.now() - start < 2_500);

  const second = withdraw("t0");
  await clock.advance(100);
  near.end("n1");
  await second.done;
  await n1.read();
  assert.match(String(n1.failure), /must disconnect/);
});

test("another manager that fails does not hold up a withdrawal", async () => {
  const { near, n0, n1, withdraw } = await threeNodes();
  near.peers.splice(0, 1, { withdrawTasks: () => Promise.reject(new ShoalError("Unavailable", "gone")) });
  const withdrawal = withdraw("t0");
  for (const reader of [n0, n1]) await reader.read();
  await withdrawal.done;
});

test("a withdrawn task that is not stopped after all is led to again", async () => {
  const { clock, n0, n1, n2, withdraw } = await threeNodes();
  const withdrawal = withdraw("t0");
  for (const reader of [n0, n1, n2]) await reader.read();
  await withdrawal.done;
  await clock.advance(30_000);
  await n1.read();
  assert.equal(n1.leadsTo("t0"), false, "it may still be stopping");
  await clock.advance(30_000);
  for (const reader of [n0, n1, n2]) {
    await reader.read();
    assert.equal(reader.leadsTo("t0"), true);
  }
});

test("a node can withdraw its own tasks only", async () => {
  const { clock, n1, withdraw } = await threeNodes();
  const start = clock.now();
  await withdraw("t1", "elsewhere").done;
  await n1.read();
  assert.equal(n1.leadsTo("t1"), true);
  assert(clock.now() - start <= 100);
});

test("a task that has ended or is gone for the managers is withdrawn when the nodes know", async () => {
  const { store, clock, n0, n1, n2, withdraw } = await threeNodes();
  const readers = [n0, n1, n2];
  await store.update((tx) => setTask(tx, "t0", { Status: { Timestamp: "", State: "orphaned" } }));
  const ended = withdraw("t0");
  for (const reader of readers) reader.acknowledges = false;
  await clock.advance(10);
  assert.equal(ended.state(), "waiting");
  for (const reader of readers) await reader.read();
  for (const reader of readers) await reader.acknowledge();
  await ended.done;
  await store.update((tx) => tx.delete("tasks", "t0"));
  await withdraw("t0").done;

  await store.update((tx) => makeTask(tx, "t9", "web", "n0", ["a"], { Status: { Timestamp: "", State: "running" } }));
  for (const reader of readers) await reader.read();
  assert.equal(n1.leadsTo("t9"), true);
  await store.update((tx) => tx.delete("tasks", "t9"));
  const gone = withdraw("t9");
  await clock.advance(100);
  assert.equal(gone.state(), "waiting");
  for (const reader of readers) await reader.read();
  for (const reader of readers) await reader.acknowledge();
  await gone.done;
  assert.equal(n1.leadsTo("t9"), false);
});

test("a task is withdrawn also at a manager that has not heard of it yet", async () => {
  const { store, clock, far, n2 } = await threeNodes();
  const asked = far.states.withdrawTasks(["late"], 40_000);
  await clock.advance(10);
  await asked;
  await store.update((tx) => makeTask(tx, "late", "web", "n1", ["a"], { Status: { Timestamp: "", State: "running" } }));
  await n2.read();
  assert.equal([...n2.model.networks.values()][0]?.endpoints.has("late"), true);
  assert.equal(n2.leadsTo("late"), false);
});

test("a node's data path is written when it is news, and refused when it is nonsense", async () => {
  const { store, near } = await threeNodes();
  const ask = async (dataPath: { address: string; publicKey?: string }) => {
    const messages = near.states.networks(callerOf("n0"), "session-n0", dataPath, never);
    await messages.next();
    await messages.return();
    return store.view.revision;
  };
  const revision = store.view.revision;
  assert.equal(await ask({ address: "192.168.0.1" }), revision);
  const publicKey = Buffer.alloc(32, 7).toString("base64");
  assert.equal(await ask({ address: "192.168.0.9", publicKey }), revision + 1);
  assert.deepEqual(store.view.get("nodes", "n0")?.DataPath, { address: "192.168.0.9", publicKey });
  await assert.rejects(ask({ address: "nowhere" }), { code: "InvalidArgument" });
  await assert.rejects(ask({ address: "10.0.0.1", publicKey: "short" }), { code: "InvalidArgument" });
});

test("only a session of this manager is served, and a second stream ends the first", async () => {
  const { near, n0 } = await threeNodes();
  const open = (sessionId: string) =>
    near.states.networks(callerOf("n0"), sessionId, { address: "192.168.0.1" }, never);
  await assert.rejects(open("another").next(), { code: "NotFound" });
  await assert.rejects(near.states.applied(callerOf("stranger"), "session-n0", 1), { code: "NotFound" });
  const second = open("session-n0");
  const { value } = await second.next();
  assert.equal(value?.type, "complete");
  await n0.read();
  assert.match(String(n0.failure), /anew/);
  await second.return();
});

test("what comes in a row goes together, what comes alone at once, and a node that does not read costs no more", async () => {
  const { store, clock, n0, n1 } = await threeNodes();
  const before = n1.received.length;
  const stopped = new Reader(new Part(store, clock, ["n2"]), clock, "n2", 3);
  await stopped.read();
  const readBefore = stopped.received.length;
  await store.update((tx) => setTask(tx, "t0", { DesiredState: "shutdown" }));
  await clock.advance(0);
  await n1.read();
  assert.equal(n1.received.length, before + 1, "at once");
  assert.equal(n1.received.at(-1)?.revision, store.view.revision);
  for (let count = 0; count < 100; count++) {
    await store.update((tx) => makeTask(tx, `x${count}`, "web", "n0", ["a"]));
    await clock.advance(0.1);
  }
  await n1.read();
  await n0.read();
  assert.equal(n1.received.at(-1)?.revision, store.view.revision);
  assert.deepEqual(n1.model.contents(), n0.model.contents());
  for (let count = 0; count < 500; count++) {
    await store.update((tx) => setTask(tx, `x${count % 100}`, { DesiredState: count % 2 ? "running" : "shutdown" }));
  }
  await stopped.read();
  const late = stopped.received.slice(readBefore);
  assert(late.length <= 2, `${late.length} messages for 601 commits`);
  assert.equal(late.reduce((sum, { changes }) => sum + changes.length, 0) <= 102, true);
});

test("a node that leaves a network and is back before it was told of it knows all the same", async () => {
  const { store, clock, n0, n1, n2 } = await threeNodes();
  const end = (id: string) => store.update((tx) => setTask(tx, id, { Status: { Timestamp: "", State: "failed" } }));
  const begin = (id: string, nodeId: string) => store.update((tx) => makeTask(tx, id, "web", nodeId, ["a"]));
  // The first of these is taken at once; the others come while it is, and are gathered.
  await begin("t3", "n2");
  await end("t1");
  await end("t0");
  await begin("t4", "n2");
  await begin("t5", "n1");
  await begin("t6", "n0");
  await clock.advance(10);
  for (const reader of [n0, n1, n2]) await reader.read();
  assert.deepEqual(n1.model.contents(), n2.model.contents());
  assert.deepEqual(n0.model.contents(), n2.model.contents());
  const { endpoints } = n1.model.networks.get("a")!;
  assert.deepEqual([...endpoints.keys()].sort(), ["t2", "t3", "t4", "t5", "t6"]);
});

test("a node that leaves a network is waited for until it has left", async () => {
  const { store, clock, n0, n1, n2, withdraw } = await threeNodes();
  n1.acknowledges = false;
  await store.update((tx) => setTask(tx, "t1", { Status: { Timestamp: "", State: "failed" } }));
  for (const reader of [n0, n1, n2]) await reader.read();
  assert.deepEqual([...n1.model.networks], [], "told so, and that is all that is known");
  const withdrawal = withdraw("t0");
  for (const reader of [n0, n2]) await reader.read();
  await clock.advance(100);
  assert.equal(withdrawal.state(), "waiting");
  await n1.acknowledge();
  await withdrawal.done;
});

test("a node whose stream breaks in a session that goes on is waited for until it is there again", async () => {
  const { clock, near, n0, n1, n2, withdraw } = await threeNodes();
  n1.acknowledges = false;
  const withdrawal = withdraw("t0");
  for (const reader of [n0, n1, n2]) await reader.read();
  await n1.stop();
  await clock.advance(100);
  assert.equal(withdrawal.state(), "waiting");
  const again = new Reader(near, clock, "n1", 2);
  await again.read();
  assert.equal(again.leadsTo("t0"), false);
  await withdrawal.done;
});
