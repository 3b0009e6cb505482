import assert from "node:assert/strict";
import { test } from "node:test";
import { filtersOf, openFixture, plainSpec } from "./fixture.test.ts";

const started = "2026-01-01T00:00:01.000Z";

test("a task is shown in the Engine's form", async () => {
  const { call, create, addTask, store } = await openFixture();
  await store.update((tx) =>
    tx.create("networks", {
      ID: "hostnetid",
      Name: "host",
      Labels: { "com.docker.swarm.predefined": "true" },
      Driver: "host",
      Predefined: true,
    }),
  );
  const TaskTemplate = { ContainerSpec: { Image: "bb:1" }, Networks: [{ Target: "host" }] };
  const ServiceID = await create({ Name: "web", TaskTemplate });
  const task = await addTask({
    ID: "task1",
    ServiceID,
    Slot: 2,
    NodeID: "node1",
    Status: {
      Timestamp: started,
      State: "running",
      Message: "started",
      ContainerStatus: { ContainerID: "c1", PID: 7 },
      AppliedBy: "self",
      AppliedAt: started,
    },
  });
  const network = store.view.network("hostnetid")!;
  const { status, body } = await call("GET", "/tasks/task1");
  assert.equal(status, 200);
  // Text against text: the order of members counts too.
  assert.equal(
    JSON.stringify(body),
    JSON.stringify({
      ID: "task1",
      Version: task.Version,
      CreatedAt: task.CreatedAt,
      UpdatedAt: task.UpdatedAt,
      Labels: {},
      Spec: { ContainerSpec: { Image: "bb:1" }, Networks: [{ Target: "hostnetid" }] },
      ServiceID,
      Slot: 2,
      NodeID: "node1",
      Status: {
        Timestamp: started,
        State: "running",
        Message: "started",
        ContainerStatus: { ContainerID: "c1", PID: 7, ExitCode: 0 },
        PortStatus: {},
      },
      DesiredState: "running",
      NetworksAttachments: [
        {
          Network: {
            ID: "hostnetid",
            Version: network.Version,
            CreatedAt: network.CreatedAt,
            UpdatedAt: network.UpdatedAt,
            Spec: {
              Name: "host",
              Labels: { "com.docker.swarm.predefined": "true" },
              DriverConfiguration: { Name: "host" },
              Scope: "swarm",
            },
            DriverState: { Name: "host" },
            IPAMOptions: { Driver: {} },
          },
        },
      ],
    }),
  );
});

test("a global task has no slot, a task without a node no node, and a failed one says why", async () => {
  const { call, create, addTask } = await openFixture();
  const ServiceID = await create(plainSpec("agent", { Mode: { Global: {} } }));
  const Status = { Timestamp: started, State: "failed", Err: "task: non-zero exit (1)" } as const;
  await addTask({ ID: "task1", ServiceID, Slot: 0, Status, DesiredState: "shutdown" });
  const { body } = await call("GET", "/tasks/task1");
  assert.ok(!("Slot" in body) && !("NodeID" in body) && !("NetworksAttachments" in body));
  assert.deepEqual(body.Status, {
    Timestamp: started,
    State: "failed",
    Err: "task: non-zero exit (1)",
    PortStatus: {},
  });
});

test("tasks are found by id, name and prefix, and missed in Swarm's words", async () => {
  const { call, create, addTask } = await openFixture();
  const ServiceID = await create(plainSpec("web"));
  await addTask({ ID: "abc1", ServiceID });
  await addTask({ ID: "abc2", ServiceID, Slot: 2 });
  for (const name of ["abc1", "web.1.abc1"]) assert.equal((await call("GET", `/tasks/${name}`)).body.ID, "abc1");
  assert.deepEqual(await call("GET", "/tasks/abc"), {
    status: 400,
    body: { message: "task abc is ambiguous (2 matches found)" },
  });
  assert.deepEqual(await call("GET", "/tasks/nope"), { status: 404, body: { message: "task nope not found" } });
});

test("the list has all tasks, history too, and filters by all that Swarm filters by", async () => {
  const { call, create, addTask, addNode } = await openFixture();
  const web = await create(plainSpec("web", { Labels: { tier: "front" } }));
  const db = await create(plainSpec("db"));
  await addNode({ ID: "node1", Description: { Hostname: "alpha" } });
  await addNode({ ID: "node2", Description: { Hostname: "beta" } });
  await addTask({ ID: "w1", ServiceID: web, NodeID: "node1", DesiredState: "shutdown" });
  await addTask({ ID: "w2", ServiceID: web, NodeID: "node2" });
  await addTask({ ID: "d1", ServiceID: db, NodeID: "node2" });
  const ids = async (filters: Record<string, string[]>) => {
    const { status, body } = await call("GET", `/tasks?${filtersOf(filters)}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.map((task: { ID: string }) => task.ID).sort();
  };
  assert.deepEqual(await ids({}), ["d1", "w1", "w2"]);
  for (const name of ["web", web, web.slice(0, 6)]) assert.deepEqual(await ids({ service: [name] }), ["w1", "w2"]);
  assert.deepEqual(await ids({ service: ["web", "db"] }), ["d1", "w1", "w2"]);
  for (const name of ["beta", "node2"]) assert.deepEqual(await ids({ node: [name] }), ["d1", "w2"]);
  assert.deepEqual(await ids({ node: ["beta"], service: ["web"] }), ["w2"]);
  assert.deepEqual(await ids({ id: ["w"] }), ["w1", "w2"]);
  assert.deepEqual(await ids({ name: ["web.1.w1"] }), ["w1"]);
  assert.deepEqual(await ids({ name: ["web"] }), ["w1", "w2"]);
  assert.deepEqual(await ids({ label: ["tier=front"] }), ["w1", "w2"]);
  assert.deepEqual(await ids({ "desired-state": ["running"] }), ["d1", "w2"]);
  assert.deepEqual(await ids({ "desired-state": ["shutdown", "accepted"] }), ["w1"]);
  assert.deepEqual(await ids({ runtime: ["container"] }), ["d1", "w1", "w2"]);
  assert.deepEqual(await ids({ runtime: ["plugin"] }), []);

  const refused = async (filters: Record<string, string[]>) => call("GET", `/tasks?${filtersOf(filters)}`);
  assert.deepEqual(await refused({ "desired-state": ["foo"] }), {
    status: 400,
    body: { message: "Invalid desired-state filter: 'foo'" },
  });
  assert.deepEqual(await refused({ service: ["x"] }), { status: 404, body: { message: "service x not found" } });
  assert.deepEqual(await refused({ node: ["x"] }), { status: 404, body: { message: "node x not found" } });
});

test("_up-to-date: tasks that the service's spec would make again, and those that its change does not touch", async () => {
  const { call, create, addTask, addNode, stored } = await openFixture();
  const image = (Image: string, Placement?: object) => ({
    TaskTemplate: { ContainerSpec: { Image }, ...(Placement && { Placement }) },
  });
  const ServiceID = await create(plainSpec("web", image("bb:1")));
  const update = async (more: object) => {
    const { Index: version } = stored(ServiceID).service.Version;
    const answer = await call("POST", `/services/web/update?version=${version}`, { body: plainSpec("web", more) });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  };
  const fresh = async () => {
    const { body } = await call("GET", `/tasks?${filtersOf({ "_up-to-date": ["true"], service: ["web"] })}`);
    return body.map((task: { ID: string }) => task.ID).sort();
  };
  await addNode({ ID: "node1", Spec: { Labels: { disk: "ssd" }, Role: "worker", Availability: "active" } });
  await addNode({ ID: "node2" });
  await addTask({ ID: "one", ServiceID, NodeID: "node1" });
  await addTask({ ID: "two", ServiceID, NodeID: "node2" });
  assert.deepEqual(await fresh(), ["one", "two"]);
  await update({ ...image("bb:1"), Labels: { only: "the service's" }, Mode: { Replicated: { Replicas: 2 } } });
  assert.deepEqual(await fresh(), ["one", "two"]);
  await update(image("bb:1", { Constraints: ["node.labels.disk==ssd"] }));
  assert.deepEqual(await fresh(), ["one"]);
  await update(image("bb:2"));
  assert.deepEqual(await fresh(), []);
  await addTask({ ID: "new", ServiceID, NodeID: "node2", SpecVersion: stored(ServiceID).service.SpecVersion });
  assert.deepEqual(await fresh(), ["new"]);
});

test("tasks of a removed service are shown as long as their spec is there", async () => {
  const { call, create, addTask, store } = await openFixture();
  const ServiceID = await create(plainSpec("web"));
  await addTask({ ID: "t1", ServiceID });
  await call("DELETE", "/services/web");
  assert.equal((await call("GET", "/tasks")).body.length, 1);
  assert.deepEqual((await call("GET", `/tasks?${filtersOf({ "_up-to-date": ["true"] })}`)).body, []);
  await store.update((tx) => tx.delete("specs", `${ServiceID}.1`));
  assert.deepEqual((await call("GET", "/tasks")).body, []);
  assert.equal((await call("GET", "/tasks/t1")).status, 404);
});
