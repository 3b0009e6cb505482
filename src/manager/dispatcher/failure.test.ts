/** Stories of nodes, managers and networks that fail, told with several dispatchers on one store and a fake clock. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Caller, CallerConnection } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { takeLead } from "../../store/replica.ts";
import { type Fence, Store } from "../../store/store.ts";
import { Dispatcher } from "./dispatcher.ts";

const secondMs = 1000;
const managerIds = ["m1", "m2", "m3"];
type Test = { after(run: () => void): void };

/** A connection of a node as its manager sees it. */
class Line implements CallerConnection {
  readonly #abort = new AbortController();
  readonly closed = this.#abort.signal;
  answers = true;
  pings = 0;
  /** Answers that have come, but that nobody has read yet. */
  held: (() => void)[] | undefined;

  /** What else has come. */
  bytes = 0;

  bytesRead(): number {
    return this.bytes;
  }

  ping(onAnswer: () => void): void {
    this.pings++;
    if (this.held) this.held.push(onAnswer);
    else if (this.answers) onAnswer();
  }

  close(): void {
    this.#abort.abort();
  }
}

/** An agent that talks to one manager at a time. */
class Agent {
  readonly id: string;
  readonly #world: World;
  line = new Line();
  #manager: string | undefined;
  #sessionId = "";
  /** How the last session ended. */
  ended: unknown;

  constructor(world: World, id: string) {
    this.#world = world;
    this.id = id;
  }

  get caller(): Caller {
    return {
      nodeId: this.id,
      role: "worker",
      clusterId: "c",
      address: "10.0.0.7",
      certificate: "",
      connection: this.line,
    };
  }

  /** Opens a session over a new connection; what it had before stays as it is. */
  async register(manager: string, alive = new AbortController().signal): Promise<void> {
    this.line = new Line();
    const request = { description: { Hostname: this.id }, sessionId: "" };
    const messages = this.#world.dispatcher(manager).session(this.caller, request, alive);
    const first = await messages.next();
    assert(!first.done);
    this.#manager = manager;
    this.#sessionId = first.value.sessionId;
    this.ended = undefined;
    void this.#listen(messages, this.#sessionId);
  }

  async beat(): Promise<void> {
    assert(this.#manager);
    await this.#world.dispatcher(this.#manager).heartbeat(this.caller, this.#sessionId);
  }

  async rest(): Promise<void> {
    assert(this.#manager);
    await this.#world.dispatcher(this.#manager).rest(this.caller, this.#sessionId);
  }

  async #listen(messages: AsyncGenerator<unknown>, sessionId: string): Promise<void> {
    try {
      for await (const _ of messages);
    } catch (error) {
      if (this.#sessionId === sessionId) this.ended = error;
    }
  }
}

class World {
  readonly clock = new FakeClock();
  readonly store: Store;
  readonly #backend: FailingBackend;
  readonly #dispatchers = new Map<string, Dispatcher>();
  readonly #leads = new Map<string, { fence: Fence | undefined; tell: () => void }>();

  constructor(store: Store, backend: FailingBackend) {
    this.store = store;
    this.#backend = backend;
  }

  dispatcher(manager: string): Dispatcher {
    return this.#dispatchers.get(manager)!;
  }

  async start(manager: string): Promise<void> {
    const lead = this.#leads.get(manager) ?? { fence: undefined, tell: () => {} };
    this.#leads.set(manager, lead);
    const peers = () =>
      [...this.store.view.all("nodes")]
        .filter(({ ManagerStatus: status }) => status)
        .map(({ ID: nodeId }) => ({ nodeId, address: `${nodeId}:2377`, weight: 1 }));
    const dispatcher = new Dispatcher({
      nodeId: manager,
      store: this.store,
      clock: this.clock,
      random: seededRandom(1),
      log: silentLogger,
      managers: peers,
      election: {
        get fence() {
          return lead.fence;
        },
        watch(listener) {
          lead.tell = () => listener(lead.fence);
          return () => {};
        },
      },
    });
    this.#dispatchers.set(manager, dispatcher);
    await dispatcher.start();
  }

  /** The manager's process dies: nothing of it runs on, and nobody has been told. */
  kill(manager: string): void {
    this.dispatcher(manager).stop();
    this.#leads.get(manager)!.fence = undefined;
  }

  async lead(manager: string): Promise<void> {
    for (const lead of this.#leads.values()) lead.fence = undefined;
    const lead = this.#leads.get(manager)!;
    lead.fence = await takeLead(this.store, manager);
    for (const { tell } of this.#leads.values()) tell();
  }

  /** What the leader writes of a manager. */
  async reachability(manager: string, Reachability: "reachable" | "unreachable"): Promise<void> {
    await this.store.update((tx) => {
      const node = tx.get("nodes", manager)!;
      tx.put("nodes", { ...node, ManagerStatus: { ...node.ManagerStatus, Reachability } });
    });
  }

  set quorum(there: boolean) {
    this.#backend.quorum = there;
  }

  status(id: string) {
    const { Status, SessionManager } = this.store.view.get("nodes", id)!;
    return `${Status.State} ${SessionManager ?? "-"}`;
  }

  message(id: string) {
    return this.store.view.get("nodes", id)!.Status.Message;
  }
}

class FailingBackend extends MemoryBackend {
  quorum = true;

  override async currentRevision(): Promise<number> {
    if (!this.quorum) throw new Error("no quorum");
    return super.currentRevision();
  }

  override async commit(batch: Parameters<MemoryBackend["commit"]>[0]) {
    if (!this.quorum) throw new Error("no quorum");
    return super.commit(batch);
  }
}

/** Managers that all run, the first of them leading, and nodes that have never been seen. */
async function world(t: Test, managers: number, nodes: readonly string[]): Promise<World> {
  const backend = new FailingBackend();
  const made = new World(await Store.open(backend, new FakeClock()), backend);
  const ids = managerIds.slice(0, managers);
  await made.store.update((tx) => {
    tx.create("cluster", {
      ID: "c",
      Spec: { Dispatcher: { HeartbeatPeriod: 5e9 } },
      RootCA: { Certificate: "ROOT", Key: "", JoinTokens: { Worker: "", Manager: "" } },
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      RemovedNodes: {},
    });
    for (const ID of ids) {
      const ManagerStatus = { Reachability: "reachable" as const, Addr: `${ID}:2377` };
      tx.create("nodes", { ID, Spec: { Role: "manager" }, Status: { State: "down" }, Role: "manager", ManagerStatus });
    }
    for (const ID of nodes) {
      tx.create("nodes", { ID, Spec: { Role: "worker" }, Status: { State: "unknown" }, Role: "worker" });
    }
  });
  for (const id of ids) await made.start(id);
  t.after(() => {
    for (const id of ids) made.dispatcher(id).stop();
    assert.equal(made.clock.timers, 0);
  });
  await made.lead("m1");
  return made;
}

/** Time passes in which the agents do what living agents do. */
async function live(made: World, forMs: number, ...agents: Agent[]): Promise<void> {
  for (let leftMs = forMs; leftMs > 0; leftMs -= 5 * secondMs) {
    for (const agent of agents) await agent.beat();
    await made.clock.advance(Math.min(leftMs, 5 * secondMs));
  }
}

test("a host that is cut off is down within five seconds, and not before its third ping", async (t) => {
  const made = await world(t, 1, ["n1", "n2"]);
  const [cut, well] = [new Agent(made, "n1"), new Agent(made, "n2")];
  await cut.register("m1");
  await well.register("m1");
  await live(made, 60 * secondMs, cut, well);
  cut.line.answers = false;
  await made.clock.advance(2.9 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(2 * secondMs);
  assert.equal(made.status("n1"), "down m1");
  assert.equal(made.message("n1"), "the node does not answer");
  assert.match(String(cut.ended), /node must disconnect/);
  assert.equal(made.status("n2"), "ready m1");
  await cut.register("m1");
  assert.equal(made.status("n1"), "ready m1");
  await live(made, 60 * secondMs, cut, well);
  assert.equal(made.status("n1"), "ready m1");
});

test("an agent is pinged before its session's first message comes, and then each second", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  assert.equal(agent.line.pings, 1);
  await made.clock.advance(10 * secondMs);
  assert.equal(agent.line.pings, 11);
});

test("a short outage is none: a ping that is answered late is an answer", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  for (let round = 0; round < 5; round++) {
    await agent.beat();
    agent.line.held = [];
    await made.clock.advance(2.5 * secondMs);
    for (const answer of agent.line.held) answer();
    agent.line.held = undefined;
    await made.clock.advance(2 * secondMs);
  }
  assert.equal(made.status("n1"), "ready m1");
});

test("a node that is too busy to answer, but still speaks, is alive", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  agent.line.held = [];
  for (let second = 0; second < 10; second++) {
    agent.line.bytes += 100;
    await made.clock.advance(secondMs);
  }
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(4 * secondMs);
  assert.equal(made.status("n1"), "down m1");
});

test("a process that died is down within three seconds", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  agent.line.close();
  await made.clock.advance(2 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(secondMs);
  assert.equal(made.status("n1"), "down m1");
  assert.equal(made.message("n1"), "the node's connection was closed");
});

test("an agent that stops in order has its heartbeats' grace to be back", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await agent.rest();
  agent.line.close();
  await made.clock.advance(12 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(5 * secondMs);
  assert.equal(made.status("n1"), "down m1");
  assert.equal(made.message("n1"), "heartbeat failure");

  await agent.register("m1");
  agent.line.close();
  await made.clock.advance(3 * secondMs);
  assert.equal(made.status("n1"), "down m1", "that it has rested once says nothing of its next session");
});

test("an agent that is back in time, here or elsewhere, was never gone", async (t) => {
  const made = await world(t, 3, ["n1", "n2"]);
  const [here, elsewhere] = [new Agent(made, "n1"), new Agent(made, "n2")];
  await here.register("m2");
  await elsewhere.register("m2");
  here.line.close();
  elsewhere.line.close();
  await made.clock.advance(2.4 * secondMs);
  await here.register("m2");
  await elsewhere.register("m3");
  const seen = new Set<string>();
  made.store.watch(() => {
    for (const id of ["n1", "n2"]) seen.add(made.status(id));
  });
  await live(made, 60 * secondMs, here, elsewhere);
  assert.equal(made.status("n1"), "ready m2");
  assert.equal(made.status("n2"), "ready m3");
  assert.deepEqual([...seen], []);
});

test("a node whose registration is being written is not taken for dead meanwhile", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  agent.line.close();
  await made.clock.advance(2.4 * secondMs);
  const commit = MemoryBackend.prototype.commit;
  const gate = Promise.withResolvers<void>();
  t.after(() => gate.resolve());
  FailingBackend.prototype.commit = async function (batch) {
    FailingBackend.prototype.commit = commit;
    await gate.promise;
    return commit.call(this, batch);
  };
  // Something else is slow, and the registration waits behind it.
  const slow = made.store.update((tx) => tx.put("cluster", tx.cluster()!));
  await settled();
  const registered = agent.register("m1");
  await made.clock.advance(5 * secondMs);
  gate.resolve();
  await Promise.all([slow, registered]);
  await settled();
  assert.equal(made.status("n1"), "ready m1");
  await live(made, 20 * secondMs, agent);
  assert.equal(made.status("n1"), "ready m1");
});

test("a stock agent that only beats is down after three periods; one that pings but does not beat as well", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await agent.beat();
  await made.clock.advance(13 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(4 * secondMs);
  assert.equal(made.status("n1"), "down m1");
  assert.equal(made.message("n1"), "heartbeat failure");
});

test("the only manager restarts: its nodes stay ready, and those that are not back after a grace are down", async (t) => {
  const made = await world(t, 1, ["n1", "n2"]);
  const [back, dead] = [new Agent(made, "n1"), new Agent(made, "n2")];
  await back.register("m1");
  await dead.register("m1");
  made.kill("m1");
  await made.clock.advance(60 * secondMs);
  await made.start("m1");
  await made.lead("m1");
  assert.equal(made.status("n1"), "ready m1");
  // The latest that an agent may be: it noticed by a heartbeat, and then paused for as long as agents do.
  await made.clock.advance((5.5 + 8) * secondMs);
  await back.register("m1");
  assert.equal(made.status("n2"), "ready m1");
  await live(made, secondMs, back);
  assert.equal(made.status("n1"), "ready m1");
  assert.equal(made.status("n2"), "down m1");
});

test("the leader dies: nodes that move are never taken for dead, the one that died with it is down soon", async (t) => {
  const made = await world(t, 3, ["n1", "n2", "n3"]);
  const [moves, stays, dies] = ["n1", "n2", "n3"].map((id) => new Agent(made, id)) as [Agent, Agent, Agent];
  await moves.register("m1");
  await stays.register("m2");
  await dies.register("m1");
  await live(made, 30 * secondMs, moves, stays, dies);
  const states = new Set<string>();
  made.store.watch(() => states.add(made.status("n1")).add(made.status("n2")));
  made.kill("m1");
  await made.clock.advance(1.5 * secondMs);
  await made.lead("m2");
  await made.reachability("m1", "unreachable");
  await made.clock.advance(secondMs);
  await moves.register("m3");
  await made.clock.advance(0.4 * secondMs);
  assert.equal(made.status("n3"), "ready m1");
  await made.clock.advance(0.2 * secondMs);
  assert.equal(made.status("n3"), "down m1");
  await live(made, 60 * secondMs, moves, stays);
  assert.deepEqual([made.status("n1"), made.status("n2")], ["ready m3", "ready m2"]);
  assert.deepEqual(
    [...states].filter((state) => !state.startsWith("ready")),
    [],
  );
});

/** Manager m2 starts anew; 3 s later m1, which had the node and the lead, dies, and m2 leads after an election. */
async function leadsSoonAfterItsStart(made: World, meanwhile: () => void): Promise<void> {
  made.kill("m2");
  await made.start("m2");
  meanwhile();
  await made.clock.advance(3 * secondMs);
  made.kill("m1");
  await made.clock.advance(1.5 * secondMs);
  await made.lead("m2");
  await made.reachability("m1", "unreachable");
}

test("the manager of a swarm that begins has kept nobody waiting; one that finds other nodes cannot know", async (t) => {
  assert.equal((await world(t, 1, [])).dispatcher("m1").inServiceMs, 60 * secondMs);
  assert.equal((await world(t, 1, ["n1"])).dispatcher("m1").inServiceMs, 0);
});

test("a manager that has just started and leads knows from the others that agents had managers all the time", async (t) => {
  const made = await world(t, 3, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await live(made, 60 * secondMs, agent);
  await leadsSoonAfterItsStart(made, () => {
    assert.equal(made.dispatcher("m1").inServiceMs, 60 * secondMs);
    made.dispatcher("m2").heardInService(made.dispatcher("m1").inServiceMs);
    assert.equal(made.dispatcher("m2").inServiceMs, 60 * secondMs);
  });
  assert.equal(made.dispatcher("m2").inServiceMs, 64.5 * secondMs);
  await made.clock.advance(1.4 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(0.2 * secondMs);
  assert.equal(made.status("n1"), "down m1");
});

test("a new leader that hears only then that agents had managers all the time waits no longer than it needs to", async (t) => {
  const made = await world(t, 3, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await live(made, 60 * secondMs, agent);
  await leadsSoonAfterItsStart(made, () => {});
  await made.clock.advance(secondMs);
  made.dispatcher("m2").heardInService(made.dispatcher("m3").inServiceMs);
  await made.clock.advance(1.4 * secondMs);
  made.dispatcher("m2").heardInService(made.dispatcher("m3").inServiceMs + secondMs);
  assert.equal(made.status("n1"), "ready m1");
  await made.clock.advance(0.2 * secondMs);
  assert.equal(made.status("n1"), "down m1");
});

test("when all managers have just started, the nodes of one that died get the whole grace", async (t) => {
  const made = await world(t, 3, ["n1", "n2"]);
  const [back, dead] = [new Agent(made, "n1"), new Agent(made, "n2")];
  await back.register("m1");
  await dead.register("m1");
  await live(made, 60 * secondMs, back, dead);
  for (const id of managerIds) made.kill(id);
  for (const id of managerIds) assert.equal(made.dispatcher(id).inServiceMs, 0);
  await made.clock.advance(60 * secondMs);
  await made.start("m1");
  await made.start("m3");
  await leadsSoonAfterItsStart(made, () => {
    for (const id of managerIds) made.dispatcher("m2").heardInService(made.dispatcher(id).inServiceMs);
  });
  // The latest that an agent may be is two managers that do not answer, and the longest pause.
  await made.clock.advance((12 - 4.5) * secondMs);
  assert.equal(made.status("n2"), "ready m1");
  await back.register("m3");
  await live(made, 1.1 * secondMs, back);
  assert.equal(made.status("n1"), "ready m3");
  assert.equal(made.status("n2"), "down m1");
});

test("a manager that was out of touch does not know for how long there was none, until it hears it", async (t) => {
  const made = await world(t, 3, []);
  await made.clock.advance(60 * secondMs);
  const hear = (ms: number) => made.dispatcher("m2").heardInService(ms);
  made.quorum = false;
  await made.clock.advance(8 * secondMs);
  hear(100 * secondMs);
  assert.equal(made.dispatcher("m2").inServiceMs, 0);
  await made.clock.advance(60 * secondMs);
  made.quorum = true;
  await made.clock.advance(2 * secondMs);
  assert.ok(made.dispatcher("m2").inServiceMs <= 2 * secondMs);
  hear(130 * secondMs);
  hear(10 * secondMs);
  await made.clock.advance(secondMs);
  assert.equal(made.dispatcher("m2").inServiceMs, 131 * secondMs);
  // It sleeps through the next time.
  made.clock.stall(40 * secondMs);
  await made.clock.advance(secondMs);
  assert.ok(made.dispatcher("m2").inServiceMs <= 2 * secondMs);
});

test("another manager dies: the leader takes over its nodes, and gives them back when it returns in time", async (t) => {
  const made = await world(t, 3, ["n1", "n2"]);
  const [one, two] = [new Agent(made, "n1"), new Agent(made, "n2")];
  await one.register("m2");
  await two.register("m2");
  await live(made, 30 * secondMs, one, two);
  await made.reachability("m2", "unreachable"); // a network that was slow for a moment
  await live(made, 1.4 * secondMs, one, two);
  await made.reachability("m2", "reachable");
  await live(made, 30 * secondMs, one, two);
  assert.deepEqual([made.status("n1"), made.status("n2")], ["ready m2", "ready m2"]);
  made.kill("m2");
  await made.reachability("m2", "unreachable");
  await made.clock.advance(secondMs);
  await two.register("m1");
  assert.deepEqual([made.status("n1"), made.status("n2")], ["ready m2", "ready m1"]);
  await live(made, 0.6 * secondMs, two);
  assert.deepEqual([made.status("n1"), made.status("n2")], ["down m2", "ready m1"]);
});

test("only the leader takes over, and nothing is written under a lead that was lost", async (t) => {
  const made = await world(t, 3, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await live(made, 30 * secondMs, agent);
  made.kill("m1");
  await made.reachability("m1", "unreachable");
  await made.clock.advance(60 * secondMs);
  assert.equal(made.status("n1"), "ready m1", "nobody leads");
  await made.lead("m2");
  await made.clock.advance(1.4 * secondMs);
  await takeLead(made.store, "m3"); // m2 has not heard of it
  await made.clock.advance(5 * secondMs);
  assert.equal(made.status("n1"), "ready m1");
});

test("the verdict of a manager that the node has left does not count", async (t) => {
  const made = await world(t, 2, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  const left = agent.line;
  await agent.register("m2");
  assert.equal(made.status("n1"), "ready m2");
  left.close();
  await live(made, 60 * secondMs, agent);
  assert.equal(made.status("n1"), "ready m2");
});

test("a session that another manager has taken over ends, and its heartbeats are refused", async (t) => {
  const made = await world(t, 2, ["n1"]);
  const [before, after] = [new Agent(made, "n1"), new Agent(made, "n1")];
  await before.register("m1");
  await after.register("m2");
  await settled();
  assert.match(String(before.ended), /session invalid/);
  await assert.rejects(before.beat(), { code: "NotFound" });
  await after.beat();
});

test("a node that the leader took for dead though its manager has it comes back by registering anew", async (t) => {
  const made = await world(t, 3, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m2");
  await live(made, 20 * secondMs, agent);
  await made.reachability("m2", "unreachable");
  await made.clock.advance(4 * secondMs);
  assert.equal(made.status("n1"), "down m2");
  assert.match(String(agent.ended), /node must disconnect/);
  await made.reachability("m2", "reachable");
  await agent.register("m2");
  await live(made, 20 * secondMs, agent);
  assert.equal(made.status("n1"), "ready m2");
});

test("a manager without a quorum for longer than an election lets its agents go; then it takes them again", async (t) => {
  const made = await world(t, 3, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m2");
  made.quorum = false;
  await made.clock.advance(3 * secondMs);
  await agent.beat();
  await made.clock.advance(4 * secondMs);
  assert.match(String(agent.ended), /out of touch/);
  await assert.rejects(agent.register("m2"), { code: "Unavailable" });
  made.quorum = true;
  await made.clock.advance(2 * secondMs);
  await agent.register("m2");
  await live(made, 20 * secondMs, agent);
  assert.equal(made.status("n1"), "ready m2");
});

test("a manager that was held up itself takes nobody for dead before it has read what came meanwhile", async (t) => {
  const made = await world(t, 1, ["n1"]);
  const agent = new Agent(made, "n1");
  await agent.register("m1");
  await agent.beat();
  // 40 s in which nothing of this process runs: its timers come late, all at once, and the answers after them.
  agent.line.held = [];
  made.clock.stall(40 * secondMs);
  await made.clock.advance(0.5 * secondMs);
  for (const answer of agent.line.held) answer();
  agent.line.held = undefined;
  await agent.beat();
  await live(made, 20 * secondMs, agent);
  assert.equal(made.status("n1"), "ready m1");
});

test("a crowded manager gets the least weight, which agents hear of with their next message", async (t) => {
  const ids = Array.from({ length: 16 }, (_, index) => `n${index}`);
  const made = await world(t, 2, ids);
  for (const id of ids) await new Agent(made, id).register("m1");
  const request = { description: {}, sessionId: "" };
  const late = new Agent(made, "n0");
  const messages = made.dispatcher("m2").session(late.caller, request, new AbortController().signal);
  const first = await messages.next();
  assert.deepEqual(
    (first.value ?? assert.fail()).managers.map(({ nodeId, weight }) => [nodeId, weight]),
    [
      ["m1", 1],
      ["m2", 10],
    ],
  );
  await messages.return();
});
