import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../../engine/fake-engine.ts";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import { taskName } from "../../model/task-name.ts";
import type { AssignedTask, AttachedNetwork } from "../../model/types.ts";
import type { NetworkPlane } from "../../network/plane.ts";
import { fakeTask } from "../fake-manager.ts";
import { DockerExecutor } from "./docker.ts";
import { createBody } from "./docker-create.ts";

const signal = new AbortController().signal;
const quiet = () => undefined;

async function setUp(options: { readonly operations?: number; readonly plane?: NetworkPlane } = {}) {
  const engine = new FakeEngine();
  engine.images.add("bb:1");
  const clock = new FakeClock();
  const executor = new DockerExecutor({
    engine,
    nodeId: "node1",
    clock,
    random: seededRandom(1),
    log: silentLogger,
    preferOfflineImage: true,
    ...options,
  });
  const changed: string[] = [];
  const problems: (string | undefined)[] = [];
  const start = async () => {
    executor.start({ ready: quiet, changed: (id) => changed.push(id), problem: (text) => problems.push(text) });
    await settled();
  };
  const up = async (task: AssignedTask) => {
    await executor.prepare(task, signal, quiet);
    await executor.run(task, signal);
    await executor.inspect(task.ID);
  };
  return { engine, clock, executor, changed, problems, start, up };
}

test("a task costs a create, a start and one inspection", async () => {
  const { engine, executor, start, up } = await setUp();
  await start();
  engine.calls.length = 0;
  await up(fakeTask("t1"));
  await settled();
  assert.deepEqual(engine.calls, ["image bb:1", "create web.1.t1", "start container1", "inspect container1"]);
  assert.deepEqual(executor.observe("t1"), {
    kind: "running",
    containerId: "container1",
    detail: {
      pid: 42,
      health: "none",
      ports: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 32768, PublishMode: "host" }] },
    },
  });
  await executor.halt("t1", 1.5e9);
  assert.equal(engine.calls.at(-1), "stop container1 2");
  assert.equal(executor.observe("t1")?.kind, "exited");
  await executor.remove("t1");
  assert.deepEqual(executor.observe("t1"), { kind: "absent" });
  assert.deepEqual(executor.taskIds(), []);
  await executor.stop();
});

test("nothing is known before the first look, then everything that is ours", async () => {
  const { engine, executor, start } = await setUp();
  for (const [id, NodeID] of [
    ["mine", "node1"],
    ["theirs", "node2"],
  ] as const) {
    const task = fakeTask(id, { NodeID });
    await engine.createContainer(taskName(task), createBody(task));
  }
  assert.equal(executor.observe("mine"), undefined);
  assert.deepEqual(executor.taskIds(), []);
  await start();
  assert.deepEqual(executor.taskIds(), ["mine"]);
  assert.deepEqual(executor.observe("mine"), { kind: "created", containerId: "container1" });
  await executor.removeAll();
  assert.deepEqual([...engine.containers.keys()], ["container2"]);
  await executor.stop();
});

test("a name that is taken by the task's own container is adopted; by another it is the task's error", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  engine.quiet = true; // the answer of the first create was lost, and so were its events
  const task = fakeTask("t1");
  await engine.createContainer("web.1.t1", createBody(task));
  await executor.prepare(task, signal, quiet);
  assert.deepEqual(executor.observe("t1"), { kind: "created", containerId: "container1" });

  await engine.createContainer("web.1.t2", { Image: "bb:1", Labels: {} });
  await assert.rejects(executor.prepare(fakeTask("t2"), signal, quiet), { code: "AlreadyExists" });
  await executor.stop();
});

test("how a container ends: 0 needs no question, another code is asked for its reason", async () => {
  const { engine, executor, start, up } = await setUp();
  await start();
  for (const id of ["zero", "three", "removed"])
    await up(fakeTask(id, { ServiceAnnotations: { Name: id, Labels: {} } }));
  engine.calls.length = 0;
  engine.exit("container1", 0);
  engine.exit("container2", 3, "why");
  engine.exit("container3", 137);
  await engine.removeContainer("container3");
  await settled();
  assert.deepEqual(executor.observe("zero"), { kind: "exited", containerId: "container1", exit: { code: 0 } });
  assert.deepEqual(executor.observe("three"), { kind: "exited", containerId: "container2", exit: undefined });
  await executor.inspect("three");
  assert.deepEqual(executor.observe("three"), {
    kind: "exited",
    containerId: "container2",
    exit: { code: 3, reason: "why" },
  });
  assert.deepEqual(executor.observe("removed"), { kind: "absent", exit: { code: 137 } });
  assert.deepEqual(engine.calls, ["remove container3", "inspect container2"]);
  await executor.stop();
});

test("health comes by events, also while the container is being looked at", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  const task = fakeTask("t1", { Spec: { ContainerSpec: { Image: "bb:1", Healthcheck: { Test: ["CMD", "true"] } } } });
  await executor.prepare(task, signal, quiet);
  await executor.run(task, signal);
  let open = () => {};
  engine.gates.set("inspect", new Promise((resolve) => (open = resolve)));
  const looking = executor.inspect("t1");
  await settled();
  engine.setHealth("container1", "healthy");
  await settled();
  open();
  await looking;
  const health = () => {
    const seen = executor.observe("t1");
    return seen?.kind === "running" ? seen.detail?.health : seen?.kind;
  };
  assert.equal(health(), "healthy");
  engine.setHealth("container1", "unhealthy");
  await settled();
  assert.equal(health(), "unhealthy");
  await executor.stop();
});

test("an answer that comes after the events does not undo them", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  const task = fakeTask("t1");
  await executor.prepare(task, signal, quiet);
  const id = "container1";
  const start1 = engine.startContainer.bind(engine);
  engine.startContainer = async (which) => {
    await start1(which);
    engine.exit(id, 3);
    await settled(); // the events of its end are faster than the answer
  };
  await executor.run(task, signal);
  assert.equal(executor.observe("t1")?.kind, "exited");
  await executor.stop();
});

test("a list that was asked for before an event does not undo it", async () => {
  const { engine, clock, executor, start, up } = await setUp();
  await start();
  await up(fakeTask("t1"));
  let open = () => {};
  engine.gates.set("list", new Promise((resolve) => (open = resolve)));
  engine.stop(true);
  engine.down = false;
  await clock.advance(2000); // the stream stands again, the list is being answered
  engine.exit("container1", 0);
  await executor.prepare(fakeTask("t2"), signal, quiet);
  open();
  await settled();
  assert.equal(executor.observe("t1")?.kind, "exited");
  assert.equal(executor.observe("t2")?.kind, "created");
  await executor.stop();
});

test("an Engine that restarts: its containers have failed, also those that it stopped well; survivors run on", async () => {
  const { engine, clock, executor, start, up, changed } = await setUp();
  await start();
  await up(fakeTask("t1"));
  engine.stop();
  await clock.advance(1500);
  engine.down = false;
  changed.length = 0;
  await clock.advance(1000);
  assert.deepEqual(changed, ["t1"]);
  await executor.inspect("t1");
  assert.deepEqual(executor.observe("t1"), {
    kind: "exited",
    containerId: "container1",
    exit: { code: 0, reason: "the Docker Engine was stopped" },
  });

  await up(fakeTask("t2"));
  engine.stop(true);
  await clock.advance(1500);
  engine.down = false;
  await clock.advance(1000);
  await executor.inspect("t2");
  assert.equal(executor.observe("t2")?.kind, "running");
  await executor.stop();
});

test("stopped from outside with 0: finished, unless it was the Engine on its way out", async () => {
  const { engine, clock, executor, start, up } = await setUp();
  await start();
  await up(fakeTask("t1"));
  await up(fakeTask("t2", { Slot: 2 }));
  engine.terminate("container1");
  await settled();
  await executor.inspect("t1");
  const seen = executor.observe("t1");
  assert.deepEqual(seen?.kind === "exited" && seen.exit, { code: 0, reason: undefined });

  engine.closing = true;
  engine.terminate("container2");
  await settled();
  await assert.rejects(executor.inspect("t2"), { code: "Unavailable" });
  engine.stop();
  await clock.advance(1000);
  Object.assign(engine, { closing: false, down: false });
  await clock.advance(1000);
  await executor.inspect("t2");
  const end = executor.observe("t2");
  assert.deepEqual(end?.kind === "exited" && end.exit, { code: 0, reason: "the Docker Engine was stopped" });
  await executor.stop();
});

test("an outage is told after two seconds, and its end too; a shorter one is nobody's business", async () => {
  const { engine, clock, executor, start, problems } = await setUp();
  await start();
  engine.stop();
  await clock.advance(1000);
  engine.down = false;
  await clock.advance(2000);
  assert.deepEqual(problems, []);
  engine.stop();
  await clock.advance(3000);
  assert.deepEqual(problems, ["Cannot connect to the Docker Engine at unix:///fake.sock"]);
  engine.down = false;
  await clock.advance(2000);
  assert.deepEqual(problems.slice(1), [undefined]);
  await executor.stop();
  assert.equal(clock.timers, 0);
});

test("no more creates and starts at once than allowed; a task that is given up leaves the queue", async () => {
  const { engine, executor, start } = await setUp({ operations: 5 });
  await start();
  let open = () => {};
  engine.gates.set("create", new Promise((resolve) => (open = resolve)));
  const controllers = Array.from({ length: 7 }, () => new AbortController());
  const tasks = controllers.map((controller, index) => {
    const task = fakeTask(`t${index}`, { Slot: index + 1 });
    return executor.prepare(task, controller.signal, quiet);
  });
  await settled();
  assert.equal(engine.calls.filter((call) => call.startsWith("create")).length, 5);
  controllers[6]?.abort(new Error("given up"));
  await assert.rejects(tasks[6] ?? Promise.resolve(), /given up/);
  open();
  await Promise.all(tasks.slice(0, 6));
  assert.equal(engine.containers.size, 6);
  await executor.stop();
});

const attached = (Name: string, Predefined = false, Driver = "overlay"): AttachedNetwork => ({
  Network: {
    ID: `id-${Name}`,
    Version: { Index: 1 },
    CreatedAt: "",
    UpdatedAt: "",
    Labels: {},
    Name,
    Driver,
    Predefined,
  },
  Addresses: Predefined ? [] : ["10.0.1.5/24"],
  Aliases: ["alias"],
});

/** A data plane whose networks have the names of the swarm's. */
function fakePlane(): NetworkPlane & { failure: Error | undefined } {
  return {
    failure: undefined,
    describe: async () => ({ address: "192.0.2.1" }),
    apply: async () => {},
    async attach(task) {
      if (this.failure) throw this.failure;
      const ours = task.Networks.filter(({ Network }) => !Network.Predefined && Network.Driver === "overlay");
      const networks = ours.map(({ Network }) => ({
        engineNetwork: Network.Name,
        driverOptions: { "shoal.task": task.ID },
      }));
      return { networks, nameserver: "10.0.1.1" };
    },
    drained: async () => {},
  };
}

test("networks of the swarm: one with the create, the others before each start", async () => {
  const plane = fakePlane();
  const { engine, executor, start } = await setUp({ plane });
  await start();
  engine.calls.length = 0;
  const task = fakeTask("t1", { Networks: [attached("bridge", true), attached("front"), attached("back")] });
  plane.failure = new ShoalError("Unavailable", "the network is not there yet");
  await assert.rejects(executor.prepare(task, signal, quiet), { code: "Unavailable" });
  plane.failure = undefined;
  await executor.prepare(task, signal, quiet);
  const container = engine.containers.get("container1");
  assert.deepEqual([...(container?.networks ?? [])], [["front", { DriverOpts: { "shoal.task": "t1" } }]]);
  assert.deepEqual(container?.body.HostConfig?.Dns, ["10.0.1.1"]);
  await executor.run(task, signal);
  assert.deepEqual([...(container?.networks.keys() ?? [])], ["front", "back", "bridge"]);
  assert.deepEqual(engine.calls, [
    "image bb:1",
    "create web.1.t1",
    "connect back container1",
    "connect bridge container1",
    "start container1",
  ]);
  await executor.stop();
});

test("a node without a data plane rejects a task with a network of the swarm, before anything is done", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  engine.calls.length = 0;
  await assert.rejects(executor.prepare(fakeTask("t1", { Networks: [attached("front")] }), signal, quiet), {
    code: "FailedPrecondition",
    message: "network front: this node has no data plane for networks of the swarm",
  });
  assert.deepEqual(engine.calls, []);
  await executor.stop();
});

test("host-mode ports that the data plane has bound are shown as they were asked for", async () => {
  const { engine, executor, start } = await setUp({ plane: fakePlane() });
  await start();
  const Ports = [
    { PublishMode: "host", TargetPort: 81, PublishedPort: 8081, Protocol: "tcp" },
    { PublishMode: "host", TargetPort: 80, PublishedPort: 0, Protocol: "tcp" },
  ] as const;
  const task = fakeTask("t1", { Networks: [attached("ingress")], Endpoint: { Ports: [...Ports] } });
  await executor.prepare(task, signal, quiet);
  await executor.run(task, signal);
  await executor.inspect("t1");
  const seen = executor.observe("t1");
  assert.deepEqual(
    seen?.kind === "running" && seen.detail?.ports?.Ports?.map((port) => [port.TargetPort, port.PublishedPort]),
    [
      [81, 8081],
      [80, 32768], // the Engine's own word counts where it has one
    ],
  );
  assert.equal(engine.containers.size, 1);
  await executor.stop();
});

test("other networks of the swarm are made on the Engine, once, and go with their last container", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  const lan = attached("lan", false, "macvlan");
  const Spec = { ...lan.Network.Spec, ConfigFrom: "config" } as NonNullable<typeof lan.Network.Spec>;
  const Networks = [attached("bridge", true), { ...lan, Network: { ...lan.Network, Spec } }];
  const tasks = [1, 2].map((Slot) => fakeTask(`t${Slot}`, { Slot, Networks }));
  for (const task of tasks) {
    await executor.prepare(task, signal, quiet);
    await executor.run(task, signal);
  }
  for (const { body, networks } of engine.containers.values()) {
    assert.equal(body.HostConfig?.NetworkMode, "bridge");
    assert.deepEqual([...networks.keys()], ["lan"]);
  }
  const [made, ...more] = await engine.listNetworks([]);
  assert.deepEqual(more, []);
  assert.deepEqual(made?.Labels, { "shoal.swarm-network": "id-lan" });
  await executor.remove("t1");
  assert.equal((await engine.listNetworks([])).length, 1, "one is on it");
  await executor.remove("t2");
  assert.deepEqual(await engine.listNetworks([]), []);
  engine.calls.length = 0;
  await executor.remove("t2");
  await executor.remove("t2");
  assert.deepEqual(engine.calls, ["list-networks"], "there are none: the Engine is not asked again");
  await executor.stop();
});

function templated(env: string): AssignedTask {
  const task = fakeTask("t1");
  const ContainerSpec = { ...task.Spec.ContainerSpec, Hostname: "h-{{.Task.Slot}}", Env: [`A=${env}`] };
  return { ...task, Spec: { ...task.Spec, ContainerSpec } };
}

test("templates are expanded with what the node says of itself", async () => {
  const { engine, executor, start, up } = await setUp();
  await start();
  await up(templated("{{.Service.Name}} on {{.Node.Hostname}} as {{.Task.Name}}"));
  const [container] = [...engine.containers.values()];
  const { Name } = await engine.info();
  assert.deepEqual(container?.body.Env, [`A=web on ${Name} as web.1.t1`]);
  assert.equal(container?.body.Hostname, "h-1");
  await executor.stop();
});

test("a template that fails on the node rejects its task, before anything is done", async () => {
  const { engine, executor, start } = await setUp();
  await start();
  await executor.describe();
  engine.calls.length = 0;
  await assert.rejects(executor.prepare(templated("{{index .Node.Hostname 99}}"), signal, quiet), {
    code: "InvalidArgument",
    message:
      'expanding env failed: expanding env "A={{index .Node.Hostname 99}}": template: expansion:1:2: executing ' +
      '"expansion" at <index .Node.Hostname 99>: error calling index: index out of range: 99',
  });
  assert.deepEqual(engine.calls, []);
  await executor.stop();
});
