import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { defaultIngressSpec } from "../model/networks.ts";
import type { ServiceSpec } from "../model/types.ts";
import { filtersOf, openFixture, plainSpec } from "./fixture.test.ts";

const prefix = (code: string) => `rpc error: code = ${code} desc = `;

test("a created service comes back as it was sent, member for member", async () => {
  const { call } = await openFixture();
  const spec = {
    Labels: { z: "1", a: "2" },
    TaskTemplate: {
      ForceUpdate: 0,
      ContainerSpec: { Args: [], Image: "bb:1", Env: ["B=2", "A=1"], Healthcheck: { Test: ["NONE"] } },
      Resources: { Limits: {}, Reservations: { MemoryBytes: 4194304 } },
    },
    Mode: { Replicated: { Replicas: 3 } },
    Name: "web",
    EndpointSpec: { Ports: [{ TargetPort: 80, PublishMode: "host", Protocol: "tcp" }] },
  };
  const created = await call("POST", "/services/create", { body: spec });
  assert.equal(created.status, 201);
  assert.deepEqual(Object.keys(created.body), ["ID", "Warnings"]);
  const { status, body } = await call("GET", "/services/web");
  assert.equal(status, 200);
  assert.equal(JSON.stringify(body.Spec), JSON.stringify(spec));
  assert.deepEqual(Object.keys(body), ["ID", "Version", "CreatedAt", "UpdatedAt", "Spec", "Endpoint"]);
  assert.deepEqual(body.Endpoint, { Spec: {} });
  assert.ok(body.Version.Index > 0);
});

test("a service without a name gets one, and no mode means one replica", async () => {
  const { call } = await openFixture();
  const { body } = await call("POST", "/services/create", {
    body: { TaskTemplate: { ContainerSpec: { Image: "bb" } } },
  });
  const { Spec } = (await call("GET", `/services/${body.ID}`)).body;
  assert.match(Spec.Name, /^[a-z]+_[a-z]+$/);
  assert.deepEqual(Spec.Mode, { Replicated: { Replicas: 1 } });
});

test("services are found by id, name and prefix of an id, and missed in Swarm's words", async () => {
  const { call, create } = await openFixture();
  const id = await create(plainSpec("web"));
  for (const name of [id, "web", id.slice(0, 6)]) assert.equal((await call("GET", `/services/${name}`)).body.ID, id);
  assert.deepEqual(await call("GET", "/services/nope"), { status: 404, body: { message: "service nope not found" } });
  assert.deepEqual(await call("DELETE", "/services/nope"), {
    status: 404,
    body: { message: "service nope not found" },
  });
});

test("names are unique, whatever their case", async () => {
  const { call, create } = await openFixture();
  await create(plainSpec("web"));
  for (const name of ["web", "Web"]) {
    const text = `name conflicts with an existing object: service ${name} already exists`;
    const answer = await call("POST", "/services/create", { body: plainSpec(name) });
    assert.deepEqual(answer, { status: 409, body: { message: prefix("AlreadyExists") + text } });
  }
});

test("two creates of one name at once: exactly one wins", async () => {
  const { call, store } = await openFixture();
  const both = [1, 2].map(() => call("POST", "/services/create", { body: plainSpec("web") }));
  const statuses = (await Promise.all(both)).map(({ status }) => status);
  assert.deepEqual(statuses.sort(), [201, 409]);
  assert.equal(store.view.count("services"), 1);
  assert.equal(store.view.count("specs"), 1);
});

test("bad specs are refused in Swarm's words, and nothing is stored", async () => {
  const { call, store } = await openFixture();
  const web = plainSpec("web");
  const container = (more: object) => ({ Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1", ...more } } });
  const cases: [body: unknown, status: number, message: string][] = [
    [null, 400, "mismatched Runtime and *Spec fields"],
    [{ ...web, Name: "y_" }, 400, `${prefix("InvalidArgument")}name must be valid as a DNS name component`],
    [{ ...web, Name: "a".repeat(64) }, 400, `${prefix("InvalidArgument")}name must be 63 characters or fewer`],
    [container({ Image: "" }), 400, `${prefix("InvalidArgument")}ContainerSpec: image reference must be provided`],
    [container({ Mounts: [{ Type: "image", Target: "/x" }] }), 400, 'invalid MountType: "image"'],
    [
      { ...web, TaskTemplate: { ...web.TaskTemplate, Placement: { Constraints: ["a"] } } },
      500,
      `${prefix("Unknown")}constraint expected one operator from ==, !=`,
    ],
    [
      { ...web, EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 80 }] } },
      400,
      `${prefix("InvalidArgument")}EndpointSpec: port published with ingress mode can't be used with dnsrr mode`,
    ],
    [
      { ...web, EndpointSpec: { Ports: [{ TargetPort: 80 }] } },
      400,
      `${prefix("FailedPrecondition")}service needs ingress network, but no ingress network is present`,
    ],
    [
      { Name: "web", TaskTemplate: { Runtime: "plugin", PluginSpec: {} } },
      501,
      "plugin services are not supported yet",
    ],
    [
      container({ Privileges: { CredentialSpec: { File: "spec.json" } } }),
      501,
      "credential specs are for Windows, which is not supported",
    ],
    [container({ Isolation: "hyperv" }), 501, "isolation hyperv is for Windows, which is not supported"],
    [
      container({ Secrets: [{ SecretID: "s", SecretName: "s", File: { Name: "s" } }] }),
      400,
      `${prefix("InvalidArgument")}secret not found: s`,
    ],
    [
      container({ Env: ["NODE={{.Node.Foo}}"] }),
      400,
      'rpc error: code = InvalidArgument desc = expanding env failed: expanding env "NODE={{.Node.Foo}}": template: ' +
        'expansion:1:7: executing "expansion" at <.Node.Foo>: can\'t evaluate field Foo in type struct { ID string; ' +
        "Hostname string; Platform template.Platform }",
    ],
    [
      container({ Hostname: '{{env "HOME"}}' }),
      400,
      "rpc error: code = InvalidArgument desc = expanding hostname failed: template: expansion:1: " +
        'function "env" not defined',
    ],
    [
      container({ Mounts: [{ Type: "cluster", Target: "/x" }] }),
      501,
      "cluster volumes (CSI) are not supported; use a volume or bind mount",
    ],
  ];
  for (const [body, status, message] of cases) {
    assert.deepEqual(await call("POST", "/services/create", { body }), { status, body: { message } });
  }
  assert.equal(store.view.count("services") + store.view.count("specs"), 0);
});

test("insertDefaults fills in what Swarm fills in, and only there", async () => {
  const { call, create } = await openFixture();
  await create(plainSpec("web", { UpdateConfig: { Delay: 7 } }));
  const { Spec } = (await call("GET", "/services/web?insertDefaults=true")).body;
  const update = { Parallelism: 1, FailureAction: "pause", Monitor: 5e9, MaxFailureRatio: 0, Order: "stop-first" };
  assert.deepEqual(Spec, {
    Name: "web",
    TaskTemplate: {
      ContainerSpec: { Image: "bb:1", StopGracePeriod: 10e9, DNSConfig: {} },
      Resources: {},
      RestartPolicy: { Condition: "any", Delay: 5e9, MaxAttempts: 0 },
      Placement: {},
    },
    Mode: { Replicated: { Replicas: 1 } },
    UpdateConfig: { ...update, Delay: 7, Parallelism: 0 },
    RollbackConfig: update,
  });
  assert.equal((await call("GET", "/services/web")).body.Spec.RollbackConfig, undefined);
  const bad = await call("GET", "/services/web?insertDefaults=foo");
  const message = 'invalid value for insertDefaults: foo: strconv.ParseBool: parsing "foo": invalid syntax';
  assert.deepEqual(bad, { status: 400, body: { message } });
});

test("the list filters by id, label, mode, name and runtime", async () => {
  const { call, create } = await openFixture();
  const web = await create(plainSpec("web", { Labels: { tier: "front" } }));
  await create(plainSpec("web-agent", { Mode: { Global: {} }, Labels: { tier: "back" } }));
  await create(plainSpec("db"));
  const names = async (filters: Record<string, string[]>) => {
    const { body } = await call("GET", `/services?${filtersOf(filters)}`);
    return body.map((service: { Spec: ServiceSpec }) => service.Spec.Name).sort();
  };
  assert.deepEqual(await names({}), ["db", "web", "web-agent"]);
  assert.deepEqual(await names({ name: ["web"] }), ["web", "web-agent"]);
  assert.deepEqual(await names({ id: [web.slice(0, 8)] }), ["web"]);
  assert.deepEqual(await names({ label: ["tier"] }), ["web", "web-agent"]);
  assert.deepEqual(await names({ label: ["tier=back"] }), ["web-agent"]);
  assert.deepEqual(await names({ mode: ["global"] }), ["web-agent"]);
  assert.deepEqual(await names({ mode: ["globa"] }), []);
  assert.deepEqual(await names({ runtime: ["plugin"] }), []);
  assert.equal((await call("GET", `/services?${filtersOf({ foo: ["x"] })}`)).status, 400);
});

test("status=true counts running and desired tasks, from API 1.41 on", async () => {
  const { call, create, addTask } = await openFixture();
  const web = await create(plainSpec("web", { Mode: { Replicated: { Replicas: 3 } } }));
  const agent = await create(plainSpec("agent", { Mode: { Global: {} } }));
  const running = { Status: { Timestamp: "", State: "running" } } as const;
  await addTask({ ID: "t1", ServiceID: web, ...running });
  await addTask({ ID: "t2", ServiceID: web, ...running, DesiredState: "shutdown" });
  await addTask({ ID: "t3", ServiceID: agent, Slot: 0, ...running });
  await addTask({ ID: "t4", ServiceID: agent, Slot: 0, DesiredState: "shutdown" });
  const list = async (version: readonly [number, number]) => {
    const { body } = await call("GET", "/services?status=true", { version });
    return Object.fromEntries(body.map((one: { ID: string; ServiceStatus?: object }) => [one.ID, one.ServiceStatus]));
  };
  assert.deepEqual(await list([1, 41]), {
    [web]: { RunningTasks: 2, DesiredTasks: 3, CompletedTasks: 0 },
    [agent]: { RunningTasks: 1, DesiredTasks: 1, CompletedTasks: 0 },
  });
  assert.deepEqual(await list([1, 40]), { [web]: undefined, [agent]: undefined });
});

test("an update makes a new revision, remembers the one before and clears the update status", async () => {
  const { call, create, stored, store } = await openFixture();
  const id = await create(plainSpec("web"));
  await store.update((tx) => tx.put("services", { ...tx.service(id)!, UpdateStatus: { State: "paused" } }));
  const version = stored(id).service.Version.Index;
  const body = plainSpec("web", { TaskTemplate: { ContainerSpec: { Image: "bb:2" } } });
  const answer = await call("POST", `/services/web/update?version=${version}`, { body });
  assert.deepEqual(answer, { status: 200, body: { Warnings: null } });
  const { service, revisions } = stored(id);
  assert.deepEqual(
    [service.SpecVersion, service.PreviousSpecVersion, service.UpdateStatus],
    [{ Index: 2 }, { Index: 1 }, undefined],
  );
  assert.deepEqual(
    revisions.map(({ Revision }) => Revision),
    [1, 2],
  );
  const shown = (await call("GET", "/services/web")).body;
  assert.equal(shown.Spec.TaskTemplate.ContainerSpec.Image, "bb:2");
  assert.equal(shown.PreviousSpec.TaskTemplate.ContainerSpec.Image, "bb:1");
  assert.ok(shown.Version.Index > version);
});

test("an update that changes nothing bumps the version and makes no revision; ForceUpdate does", async () => {
  const { call, create, stored } = await openFixture();
  const id = await create(plainSpec("web"));
  const before = stored(id).service.Version.Index;
  await call("POST", `/services/web/update?version=${before}`, { body: plainSpec("web") });
  let now = stored(id);
  assert.ok(now.service.Version.Index > before);
  assert.deepEqual([now.service.SpecVersion, now.revisions.length], [{ Index: 1 }, 1]);
  // As with Swarm there is a way back now, though to the same spec.
  assert.deepEqual(now.service.PreviousSpecVersion, { Index: 1 });
  const forced = plainSpec("web", { TaskTemplate: { ContainerSpec: { Image: "bb:1" }, ForceUpdate: 1 } });
  await call("POST", `/services/web/update?version=${now.service.Version.Index}`, { body: forced });
  now = stored(id);
  assert.deepEqual([now.service.SpecVersion, now.revisions.length], [{ Index: 2 }, 2]);
});

test("updates are refused in Swarm's words", async () => {
  const { call, create, stored } = await openFixture();
  const id = await create(plainSpec("web"));
  const { Index: version } = stored(id).service.Version;
  const web = plainSpec("web");
  const outOfSequence = `${prefix("Unknown")}update out of sequence`;
  const cases: [target: string, body: unknown, status: number, message: string][] = [
    ["web/update", web, 400, "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"],
    ["nope/update?version=1", web, 404, "service nope not found"],
    [`web/update?version=${version + 1}`, web, 500, outOfSequence],
    ["web/update?version=0", web, 500, outOfSequence],
    [
      `web/update?version=${version}`,
      plainSpec("other"),
      501,
      `${prefix("Unimplemented")}renaming services is not supported`,
    ],
    [
      `web/update?version=${version}`,
      plainSpec("web", { Mode: { Global: {} } }),
      501,
      `${prefix("Unimplemented")}service mode change is not allowed`,
    ],
    [
      `web/update?version=${version}&rollback=previous`,
      web,
      400,
      `${prefix("FailedPrecondition")}service ${id} does not have a previous spec`,
    ],
    [`web/update?version=${version}&rollback=foo`, web, 400, "unrecognized rollback option foo"],
    [`web/update?version=${version}&registryAuthFrom=foo`, web, 400, "invalid registryAuthFrom 'foo'"],
    [`web/update?version=${version}&registryAuthFrom=previous-spec`, web, 400, "service does not have a previous spec"],
  ];
  for (const [target, body, status, message] of cases) {
    assert.deepEqual(await call("POST", `/services/${target}`, { body }), { status, body: { message } }, target);
  }
  assert.equal(stored(id).service.Version.Index, version);
});

test("of two updates with one version exactly one wins", async () => {
  const { call, create, stored } = await openFixture();
  const id = await create(plainSpec("web"));
  const { Index: version } = stored(id).service.Version;
  const both = ["a", "b"].map((label) =>
    call("POST", `/services/web/update?version=${version}`, { body: plainSpec("web", { Labels: { label } }) }),
  );
  assert.deepEqual((await Promise.all(both)).map(({ status }) => status).sort(), [200, 500]);
  assert.equal(stored(id).revisions.length, 2);
});

test("rolling back twice returns, each time as a revision of its own", async () => {
  const { call, create, stored } = await openFixture();
  const id = await create(plainSpec("web", { Labels: { n: "1" } }));
  const update = async (query: string, spec: ServiceSpec) => {
    const { Index: version } = stored(id).service.Version;
    const answer = await call("POST", `/services/web/update?version=${version}${query}`, { body: spec });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return (await call("GET", "/services/web")).body;
  };
  await update("", plainSpec("web", { Labels: { n: "2" } }));
  const back = await update("&rollback=previous", plainSpec("web", { Labels: { n: "2" } }));
  assert.deepEqual([back.Spec.Labels.n, back.PreviousSpec.Labels.n], ["1", "2"]);
  assert.equal(back.UpdateStatus.State, "rollback_started");
  assert.equal(back.UpdateStatus.Message, "manually requested rollback");
  const forth = await update("&rollback=previous", plainSpec("web", { Labels: { n: "1" } }));
  assert.deepEqual([forth.Spec.Labels.n, forth.PreviousSpec.Labels.n], ["2", "1"]);
  assert.deepEqual(stored(id).service.SpecVersion, { Index: 4 });
});

test("registry credentials stay with the service until others come, and are never shown", async () => {
  const { call, create, stored } = await openFixture();
  const headers = { "x-registry-auth": "Zmlyc3Q=" };
  const { body } = await call("POST", "/services/create", { body: plainSpec("web"), headers });
  const id: string = body.ID;
  const auths = () => stored(id).revisions.map(({ PullOptions }) => PullOptions?.RegistryAuth);
  const update = (query: string, label: string, more: object = {}) => {
    const { Index: version } = stored(id).service.Version;
    return call("POST", `/services/web/update?version=${version}${query}`, {
      body: plainSpec("web", { Labels: { label } }),
      ...more,
    });
  };
  await update("", "a");
  await update("", "a", { headers: { "x-registry-auth": "c2Vjb25k" } });
  await update("&registryAuthFrom=previous-spec", "b");
  assert.deepEqual(auths(), ["Zmlyc3Q=", "Zmlyc3Q=", "c2Vjb25k", "Zmlyc3Q="]);
  assert.doesNotMatch(JSON.stringify((await call("GET", "/services/web")).body), /Zmlyc3Q|c2Vjb25k/);
  const without = await create(plainSpec("db"));
  assert.equal(stored(without).revisions[0]?.PullOptions, undefined);
});

test("deleting removes the service at once and leaves its tasks to the orchestrator", async () => {
  const { call, create, addTask, store } = await openFixture();
  const id = await create(plainSpec("web"));
  await addTask({ ID: "t1", ServiceID: id });
  assert.deepEqual(await call("DELETE", "/services/web"), { status: 200, body: undefined });
  assert.equal((await call("GET", `/services/${id}`)).status, 404);
  assert.ok(store.view.get("tasks", "t1"));
  await create(plainSpec("web"));
});

test("members that are younger than the request's version are dropped", async () => {
  const { call } = await openFixture();
  const body = {
    Name: "web",
    TaskTemplate: {
      ContainerSpec: {
        Image: "bb:1",
        OomScoreAdj: 5,
        CapabilityAdd: ["CAP_NET_ADMIN"],
        Healthcheck: { Test: ["CMD", "true"], StartInterval: 1e9 },
        Privileges: { NoNewPrivileges: true },
      },
    },
  };
  await call("POST", "/services/create", { body, version: [1, 41] });
  const { ContainerSpec } = (await call("GET", "/services/web")).body.Spec.TaskTemplate;
  assert.deepEqual(ContainerSpec, {
    Image: "bb:1",
    CapabilityAdd: ["CAP_NET_ADMIN"],
    Healthcheck: { Test: ["CMD", "true"] },
    Privileges: {},
  });
});

test("networks are stored by id, at either place; one of the Engine's own is refused with a reason", async () => {
  const directory = await mkdtemp(join(tmpdir(), "shoal-services-"));
  const engineSocket = join(directory, "engine.sock");
  const engine = createServer((request, response) => {
    const found = request.url === "/networks/mynet";
    response.writeHead(found ? 200 : 404, { "Content-Type": "application/json" });
    response.end(JSON.stringify(found ? { Name: "mynet", Scope: "local" } : { message: "not found" }));
  });
  await new Promise<void>((resolve) => engine.listen(engineSocket, resolve));
  try {
    const { call, store } = await openFixture({ engineSocket });
    await store.update((tx) => {
      tx.create("networks", { ID: "hostnetid", Name: "host", Labels: {}, Driver: "host", Predefined: true });
      const overlay = { Labels: {}, Driver: "overlay", Predefined: false };
      tx.create("networks", { ID: "ingressid", Name: "ingress", ...overlay, Spec: defaultIngressSpec });
      tx.create("networks", { ID: "goneid", Name: "gone", ...overlay, Removed: true });
    });
    const on = (Target: string): ServiceSpec => ({
      Name: "web",
      TaskTemplate: { ContainerSpec: { Image: "bb:1" }, Networks: [{ Target }] },
    });
    const refusals: [target: string, status: number, message: string][] = [
      [
        "mynet",
        403,
        "The network mynet cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
      ],
      ["nonet", 404, "network nonet not found"],
      ["gone", 404, "network gone not found"],
      ["goneid", 404, "network goneid not found"],
      [
        "ingress",
        400,
        `${prefix("InvalidArgument")}Service cannot be explicitly attached to the ingress network "ingress"`,
      ],
    ];
    for (const [target, status, message] of refusals) {
      assert.deepEqual(await call("POST", "/services/create", { body: on(target) }), { status, body: { message } });
    }
    await call("POST", "/services/create", { body: on("host") });
    await call("POST", "/services/create", { body: { ...plainSpec("old"), Networks: [{ Target: "host" }] } });
    for (const name of ["web", "old"]) {
      const { Spec } = (await call("GET", `/services/${name}`)).body;
      assert.deepEqual(Spec.TaskTemplate.Networks, [{ Target: "hostnetid" }]);
      assert.equal(Spec.Networks, undefined);
    }
  } finally {
    engine.close();
    await rm(directory, { recursive: true });
  }
});

test("a list's status leaves out what a node that is down last said of its tasks", async () => {
  const { call, addNode, addTask } = await openFixture();
  const ID = (await call("POST", "/services/create", { body: plainSpec("web") })).body.ID;
  await addNode({ ID: "up" });
  await addNode({ ID: "gone", Status: { State: "down" } });
  const Status = { State: "running", Timestamp: "2026-01-02T03:04:05Z" } as const;
  await addTask({ ID: "t1", ServiceID: ID, Slot: 1, NodeID: "gone", Status, DesiredState: "shutdown" });
  await addTask({ ID: "t2", ServiceID: ID, Slot: 1, NodeID: "up", Status, DesiredState: "running" });
  const [web] = (await call("GET", "/services?status=true")).body;
  assert.deepEqual(web.ServiceStatus, { RunningTasks: 1, DesiredTasks: 1, CompletedTasks: 0 });
});
