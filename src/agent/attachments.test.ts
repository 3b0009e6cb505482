import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../engine/fake-engine.ts";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { AssignedTask } from "../model/types.ts";
import type { NetworkPlane } from "../network/plane.ts";
import type { AttachRequest } from "../rpc/services.ts";
import { Agent } from "./agent.ts";
import { FakeExecutor } from "./executor/fake-executor.ts";
import { DockerUserContainers } from "./executor/user-containers.ts";
import { FakeManager, fakeIdentity, fakeTask } from "./fake-manager.ts";
import { MemoryTaskDatabase } from "./task-database.ts";

const signal = new AbortController().signal;
const request = { network: "front", aliases: ["db"], address: "" };

const plane: NetworkPlane = {
  describe: async () => ({ address: "192.0.2.1" }),
  apply: async () => {},
  attach: async ({ ID }) => ({
    networks: [{ engineNetwork: "front", driverOptions: { "shoal.task": ID } }],
    nameserver: "10.0.1.1",
  }),
  drained: async () => {},
};

/** A task for a user's container, as a manager assigns it. */
function attachmentTask(id: string, change: Partial<AssignedTask> = {}): AssignedTask {
  const Network = {
    ID: "net1",
    Version: { Index: 1 },
    CreatedAt: "",
    UpdatedAt: "",
    Labels: {},
    Name: "front",
    Driver: "overlay",
    Predefined: false,
  };
  return fakeTask(id, {
    ServiceID: "",
    Spec: { NetworkAttachmentSpec: { ContainerID: "asked" } },
    Networks: [{ Network, Addresses: ["10.0.1.7/24"], Aliases: [] }],
    ...change,
  });
}

/** A node whose manager makes a task for whatever it is asked to attach. */
async function setUp({
  manager = new FakeManager(),
  engine = new FakeEngine(),
  taskDatabase = new MemoryTaskDatabase(),
} = {}) {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const log = silentLogger;
  engine.images.add("bb:1");
  const asked: AttachRequest[] = [];
  manager.attach = async (wanted) => {
    asked.push(wanted);
    const taskId = `a${asked.length}`;
    manager.update(attachmentTask(taskId));
    await settled(); // the assignment is faster than the answer
    return { taskId };
  };
  const led: object[] = [];
  const agent = new Agent({
    identity: fakeIdentity,
    dialer: manager,
    managers: ["10.0.0.1:2377"],
    executor: new FakeExecutor(),
    userContainers: new DockerUserContainers({
      engine,
      clock,
      random,
      log,
      names: {
        lead: async (naming) => void led.push(naming),
        leave: async ({ processId }) => void led.push({ left: processId }),
      },
    }),
    plane,
    taskDatabase,
    certificates: {
      tlsInfo: () => ({}),
      renewAt: () => Number.MAX_SAFE_INTEGER,
      renew: () => assert.fail("no renewal"),
    },
    clock,
    random,
    log,
  });
  agent.start();
  await settled();
  const { attachments } = agent;
  assert.ok(attachments);
  /** A user's container with the task's address. */
  const create = (taskId: string) => {
    const EndpointsConfig = { front: { DriverOpts: { "shoal.task": taskId } } };
    return engine.createContainer(`of-${taskId}`, { Image: "bb:1", NetworkingConfig: { EndpointsConfig } });
  };
  const state = (taskId: string) => manager.statuses.get(taskId)?.State;
  return { agent, attachments, asked, clock, create, engine, led, manager, state, taskDatabase };
}

test("from the address to the container's removal", async () => {
  const { agent, attachments, asked, create, engine, manager, state } = await setUp();
  assert.equal(attachments.any, false);
  const made = await attachments.attach(request, signal);
  assert.deepEqual(made, {
    taskId: "a1",
    network: { engineNetwork: "front", driverOptions: { "shoal.task": "a1" } },
    nameserver: "10.0.1.1",
  });
  assert.equal(asked[0]?.network, "front");
  assert.match(asked[0]?.containerId ?? "", /^[0-9a-z]{25}$/);
  assert.equal(state("a1"), undefined, "not running before its container is there");
  const id = await create("a1");
  await attachments.bind("a1", id);
  await settled();
  assert.equal(state("a1"), "running");
  assert.equal(manager.statuses.get("a1")?.ContainerStatus?.ContainerID, id);
  assert.equal(attachments.taskOn("front", id), "a1");
  assert.equal(attachments.taskOn("net1", id), "a1");
  engine.disconnected("front", id); // it was stopped: it keeps its address
  await settled();
  assert.deepEqual(manager.detached, []);
  await engine.removeContainer(id);
  await settled();
  assert.deepEqual(manager.detached, ["a1"]);
  assert.equal(attachments.any, false);
  await agent.stop();
});

test("a container that was made elsewhere looks up names at the swarm's server, also after its next start", async () => {
  const { agent, attachments, engine, led } = await setUp();
  const id = await engine.createContainer("box", { Image: "bb:1", HostConfig: { Dns: ["192.0.2.1"] } });
  await engine.startContainer(id);
  await attachments.attach({ ...request, containerId: id }, signal);
  await engine.connectNetwork("front", id, { DriverOpts: { "shoal.task": "a1" } });
  await attachments.bind("a1", id);
  const naming = {
    processId: 42,
    resolvConf: `/containers/${id}/resolv.conf`,
    nameserver: "10.0.1.1",
    address: "10.0.1.7",
    asksEngine: false,
  };
  assert.deepEqual(led, [naming]);
  await engine.stopContainer(id, 0);
  await engine.startContainer(id);
  await settled();
  assert.deepEqual(led, [naming, naming]);
  await engine.disconnectNetwork("front", id);
  await settled();
  assert.deepEqual(led.splice(0).slice(2), [{ left: 42 }]);
  const EndpointsConfig = { front: { DriverOpts: { "shoal.task": "a2" } } };
  const body = { Image: "bb:1", HostConfig: { Dns: ["10.0.1.1"] }, NetworkingConfig: { EndpointsConfig } };
  await attachments.attach(request, signal);
  const made = await engine.createContainer("made", body);
  await attachments.bind("a2", made);
  await engine.startContainer(made);
  await settled();
  assert.deepEqual(led, [], "one that was made for it needs no help");
  await agent.stop();
});

test("a container that is disconnected gives its address back", async () => {
  const { agent, attachments, create, engine, manager } = await setUp();
  await attachments.attach(request, signal);
  const id = await create("a1");
  await attachments.bind("a1", id);
  await engine.disconnectNetwork("front", id);
  await attachments.look(id);
  assert.deepEqual(manager.detached, ["a1"]);
  await agent.stop();
});

test("a change that comes when a look is just over is looked at", async () => {
  for (let turns = 0; turns < 40; turns++) {
    const { agent, attachments, create, engine, manager } = await setUp();
    await attachments.attach(request, signal);
    const id = await create("a1");
    await attachments.bind("a1", id);
    const looking = attachments.look(id);
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    engine.containers.delete(id);
    await attachments.look(id);
    assert.deepEqual(manager.detached, ["a1"], `${turns} turns`);
    await looking;
    await agent.stop();
  }
});

test("an Engine that can't tell of a container just now is asked again", async () => {
  const { agent, attachments, clock, create, engine, manager } = await setUp();
  await attachments.attach(request, signal);
  const id = await create("a1");
  await attachments.bind("a1", id);
  const { inspectContainer } = engine;
  engine.inspectContainer = () => Promise.reject(new ShoalError("Unavailable", "no answer within 30 s"));
  await engine.removeContainer(id);
  await attachments.look(id);
  assert.deepEqual(manager.detached, []);
  engine.inspectContainer = inspectContainer;
  await clock.advance(60_000);
  assert.deepEqual(manager.detached, ["a1"]);
  await agent.stop();
});

test("nothing comes of it: the address goes back, unless there is a container after all", async () => {
  const { agent, attachments, create, manager, state } = await setUp();
  await attachments.attach(request, signal);
  await attachments.release("a1");
  assert.deepEqual(manager.detached, ["a1"]);
  await attachments.attach(request, signal);
  const id = await create("a2"); // the answer to its create was lost
  await attachments.release("a2");
  await settled();
  assert.deepEqual(manager.detached, ["a1"]);
  assert.equal(manager.statuses.get("a2")?.ContainerStatus?.ContainerID, id);
  assert.equal(state("a2"), "running");
  await agent.stop();
});

test("what a manager refuses is the caller's; one that does not answer is given up, and its task with it", async () => {
  const { agent, attachments, clock, manager } = await setUp();
  manager.attach = () => Promise.reject(new ShoalError("PermissionDenied", "network front not manually attachable"));
  await assert.rejects(attachments.attach(request, signal), { code: "PermissionDenied" });
  assert.equal(attachments.any, false);
  // The task never comes.
  manager.attach = async () => ({ taskId: "late" });
  const failed = assert.rejects(attachments.attach(request, signal), { code: "DeadlineExceeded" });
  await clock.advance(20_000);
  await failed;
  assert.deepEqual(manager.detached, ["late"]);
  manager.update(attachmentTask("late"));
  await settled();
  assert.deepEqual(manager.detached, ["late", "late"], "nobody makes a container for it");
  await agent.stop();
});

test("without a session the next one is waited for; with that an address goes back", async () => {
  const { agent, attachments, clock, create, engine, manager, state } = await setUp();
  await attachments.attach(request, signal);
  const id = await create("a1");
  await attachments.bind("a1", id);
  await settled();
  manager.fail.session = new ShoalError("Unavailable", "gone");
  manager.disconnect();
  await settled();
  let answered = false;
  const waiting = attachments.attach(request, signal).then(() => {
    answered = true;
  });
  await settled();
  assert.equal(answered, false);
  await engine.removeContainer(id);
  await settled();
  assert.deepEqual(manager.detached, []);
  manager.fail.session = undefined;
  await clock.advance(15_000);
  await waiting;
  assert.equal(state("a1"), "complete");
  manager.fail.session = new ShoalError("Unavailable", "gone");
  manager.disconnect();
  await settled();
  const failed = assert.rejects(attachments.attach(request, signal), { code: "Unavailable" });
  await clock.advance(20_000);
  await failed;
  await agent.stop();
});

test("a task that the managers end: its container leaves the network", async () => {
  const { agent, attachments, create, engine, manager, state } = await setUp();
  for (const taskId of ["a1", "a2"]) {
    await attachments.attach(request, signal);
    await attachments.bind(taskId, await create(taskId));
  }
  await settled();
  manager.update(attachmentTask("a1", { DesiredState: "shutdown" }));
  manager.remove("a2");
  await settled();
  for (const { networks } of engine.containers.values()) assert.equal(networks.size, 0);
  assert.equal(state("a1"), "shutdown");
  assert.equal(attachments.any, true);
  manager.remove("a1");
  await settled();
  assert.equal(attachments.any, false);
  await agent.stop();
});

test("a daemon that was away: containers keep their addresses, those of removed ones go back", async () => {
  const first = await setUp();
  const { attachments, create, engine, manager, taskDatabase } = first;
  const ids: string[] = [];
  for (const taskId of ["a1", "a2", "a3", "a4"]) {
    await attachments.attach(request, signal);
    if (taskId === "a4") break; // its container was never made
    const id = await create(taskId);
    ids.push(id);
    if (taskId !== "a3") await attachments.bind(taskId, id); // the daemon died before it knew
  }
  await settled();
  await first.agent.stop();
  await engine.removeContainer(ids[0] ?? "");
  manager.statuses.clear();
  const { agent, state } = await setUp({ engine, manager, taskDatabase });
  assert.deepEqual(manager.detached.toSorted(), ["a1", "a4"]);
  assert.equal(state("a2"), "running");
  assert.equal(state("a3"), "running");
  assert.equal(manager.statuses.get("a3")?.ContainerStatus?.ContainerID, ids[2]);
  await agent.stop();
});
