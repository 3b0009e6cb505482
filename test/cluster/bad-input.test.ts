/**
 * Bad input, through the whole chain on a real Engine: what the API refuses leaves nothing behind, in memory or on the
 * disk; what only the node can find out ends a task, or keeps it waiting, with a text that says why. The texts are
 * stock Swarm's, and the Engine's own.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { eventually } from "../../src/playground/wait.ts";
import { Api, type ServiceView, serviceOf, type TaskStatusView } from "./api.ts";
import { freshNode, image, settleMs, testPlayground } from "./harness.ts";

const playground = testPlayground("bad", "10.84.0");
const node = playground.layout.node(1);
const api = new Api(node.socket);
const engine = new Api(node.engineSocket);
const initBody = { ListenAddr: "0.0.0.0:2377", AdvertiseAddr: node.address };

before(async () => {
  await freshNode(playground);
});

after(async () => {
  await playground.down();
});

interface Refusal {
  readonly method?: string;
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  readonly message: string | RegExp;
}

const invalid = "rpc error: code = InvalidArgument desc = ";
const goDecoder = "json: cannot unmarshal ";

/** Asks them all; fails with all answers that are not as they should be. */
async function assertRefused(...refusals: readonly Refusal[]): Promise<void> {
  const wrong: string[] = [];
  for (const { method = "POST", path, body, status, message } of refusals) {
    const answer = await api.ask(method, path, body);
    const fits = typeof message === "string" ? answer.message === message : message.test(answer.message);
    if (answer.status === status && fits) continue;
    const asked = typeof body === "string" ? body : JSON.stringify(body);
    wrong.push(`${method} ${path} ${asked}: ${answer.status} ${answer.message}\n  should be ${status} ${message}`);
  }
  assert.equal(wrong.join("\n"), "");
}

/** A program that listens on a port of the node, as any other process there may. */
async function listenOnNode(port: number): Promise<AsyncDisposable> {
  const script = `require("net").createServer().listen(${port}, "0.0.0.0", () => console.log("listening"))`;
  const child = spawn("nsenter", [`--net=/run/netns/${node.namespace}`, process.execPath, "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("close", () => reject(new Error(`nothing listens on port ${port} of the node`)));
  });
  return {
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Nothing of a swarm is on the node. */
async function assertNoSwarm(): Promise<void> {
  const { Swarm } = await api.get<{ Swarm: { LocalNodeState: string; Error: string } }>("/info");
  assert.deepEqual([Swarm.LocalNodeState, Swarm.Error], ["inactive", ""]);
  const directory = `${node.dataDir}/shoal`;
  assert.deepEqual(existsSync(directory) ? readdirSync(directory, { recursive: true }) : [], []);
}

test("an init that cannot be done says why, and leaves nothing", async () => {
  const path = "/swarm/init";
  const notListening = /^manager stopped: failed to listen on remote API address: /;
  const refusals: Refusal[] = [
    { path, body: "{", status: 400, message: /JSON/ },
    { path, body: "", status: 400, message: /JSON/ },
    { path, body: [], status: 400, message: `${goDecoder}array into Go value of type swarm.InitRequest` },
    { path, body: { ...initBody, ListenAddr: "nowhere0" }, status: 400, message: /^listen address must be an IP/ },
    { path, body: { ...initBody, ListenAddr: "10.1.2.3:2377" }, status: 500, message: notListening },
    { path, body: { ...initBody, AdvertiseAddr: "0.0.0.0" }, status: 400, message: /non-zero IP address/ },
    { path, body: { ...initBody, Spec: { Name: "x" } }, status: 400, message: 'swarm spec must be named "default"' },
    { path: "/swarm/leave", status: 503, message: "This node is not part of a swarm" },
    { path: "/services/create", body: {}, status: 503, message: /^This node is not a swarm manager\./ },
  ];
  await assertRefused(...refusals);
  await assertNoSwarm();
  {
    await using _taken = await listenOnNode(2377);
    await assertRefused({ path, body: initBody, status: 500, message: notListening });
    await assertNoSwarm();
  }
  await api.post(path, initBody);
});

function spec(name: string, container: object = {}, more: object = {}, task: object = {}) {
  return {
    Name: name,
    TaskTemplate: {
      ContainerSpec: { Image: image, StopGracePeriod: 1_000_000_000, ...container },
      RestartPolicy: { Condition: "none" },
      ...task,
    },
    ...more,
  };
}

/** Everything that a bad request must not change. */
async function everything(): Promise<Record<string, unknown>> {
  const tasks = await api.tasks();
  return {
    services: await api.get("/services"),
    tasks: tasks.map(({ ID, DesiredState, Status }) => [ID, DesiredState, Status.State]).sort(),
    nodes: (await api.get<{ Version: object; Spec: object }[]>("/nodes")).map(({ Version, Spec }) => [Version, Spec]),
    swarm: await api.get("/swarm"),
    containers: (await engine.containers()).map(({ Id, State }) => [Id, State]).sort(),
  };
}

async function taskOfService(service: string, wanted: (task: TaskStatusView) => boolean): Promise<TaskStatusView> {
  let tasks: TaskStatusView[] = [];
  return eventually(
    {
      what: `a task of ${service} as it should be`,
      limitMs: settleMs,
      details: () => tasks.map(({ Status, DesiredState }) => JSON.stringify({ DesiredState, Status })).join("\n"),
    },
    async () => {
      tasks = await api.tasks(service);
      return tasks.find(wanted);
    },
  );
}

test("what the API refuses changes nothing, in memory or on the disk", async () => {
  await api.post("/services/create", spec("web"));
  await taskOfService("web", ({ Status }) => Status.State === "running");
  const [web] = await api.services();
  const [self] = await api.get<{ ID: string; Version: { Index: number }; Spec: object }[]>("/nodes");
  const { Version: swarmVersion } = await api.get<{ Version: { Index: number } }>("/swarm");
  assert.ok(web && self);

  const before = await everything();
  await assertRefused(
    ...badServices(),
    ...badUpdates(web),
    ...badNodes(self.ID, self.Version.Index, self.Spec),
    ...badSwarms(swarmVersion.Index),
    ...badQuestions(web.ID),
  );
  assert.deepEqual(await everything(), before);
  await playground.kill("node-1", "daemon");
  await playground.start("node-1");
  await taskOfService("web", ({ Status }) => Status.State === "running");
  const { nodes: _, ...after } = await everything(); // the node has registered again
  const { nodes: __, ...wanted } = before;
  assert.deepEqual(after, wanted);
});

function badServices(): Refusal[] {
  const path = "/services/create";
  const refused = (body: unknown, status: number, message: string | RegExp): Refusal => ({
    path,
    body,
    status,
    message,
  });
  const dns = `${invalid}name must be valid as a DNS name component`;
  const limits = (Limits: object) => spec("x", {}, {}, { Resources: { Limits } });
  const constraint = (text: string) => spec("x", {}, {}, { Placement: { Constraints: [text] } });
  const port = (TargetPort: number, PublishedPort: number) => ({ TargetPort, PublishedPort, PublishMode: "host" });
  const unknown = "rpc error: code = Unknown desc = ";
  return [
    refused('{"Name":', 400, /JSON/),
    refused("", 400, /JSON/),
    refused("[]", 400, `${goDecoder}array into Go value of type swarm.ServiceSpec`),
    refused(
      { ...spec("x"), Name: 5 },
      400,
      /^json: cannot unmarshal number into Go struct field .*Name of type string$/,
    ),
    refused(
      spec("x", { Env: "A=b" }),
      400,
      /^json: cannot unmarshal string into Go struct field .*Env of type \[\]string$/,
    ),
    refused(
      { ...spec("x"), Mode: { Replicated: { Replicas: -1 } } },
      400,
      /^json: cannot unmarshal number -1 into Go struct field .*Replicas of type uint64$/,
    ),
    refused({ ...spec("x"), Mode: { Replicated: { Replicas: "3" } } }, 400, /cannot unmarshal string into .*Replicas/),
    refused(spec("not a name"), 400, dns),
    refused(spec("-x"), 400, dns),
    refused(spec("x."), 400, dns),
    refused(spec("küste"), 400, dns),
    refused(spec("a".repeat(64)), 400, `${invalid}name must be 63 characters or fewer`),
    refused(spec("x", { Image: "" }), 400, `${invalid}ContainerSpec: image reference must be provided`),
    refused(spec("x", { Image: "No:Image:At all" }), 400, /is not a valid repository\/tag$/),
    refused({ Name: "x" }, 400, /^mismatched Runtime and \*Spec fields$/),
    refused(limits({ NanoCPUs: 100_000 }), 400, `${invalid}invalid cpu value 0.0001: Must be at least 0.001`),
    refused(limits({ MemoryBytes: 1024 }), 400, `${invalid}invalid memory value 1024: Must be at least 4MiB`),
    refused(limits({ MemoryBytes: -1 }), 400, `${invalid}invalid memory value -1: Must be at least 4MiB`),
    refused(constraint("node.labels.color"), 500, `${unknown}constraint expected one operator from ==, !=`),
    refused(constraint("!==x"), 500, `${unknown}key '!' is invalid`),
    refused(constraint("node.role==%"), 500, `${unknown}value '%' is invalid`),
    refused(
      spec("web"),
      409,
      "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    ),
    refused(
      spec("x", {}, { EndpointSpec: { Ports: [port(80, 9001), port(81, 9001)] } }),
      400,
      `${invalid}EndpointSpec: duplicate published ports provided`,
    ),
    refused(
      spec("x", {}, { EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 80, PublishedPort: 9001 }] } }),
      400,
      `${invalid}EndpointSpec: port published with ingress mode can't be used with dnsrr mode`,
    ),
    refused(
      spec("x", { Mounts: [1, 2].map(() => ({ Type: "tmpfs", Target: "/x" })) }),
      400,
      `${invalid}ContainerSpec: duplicate mount point: /x`,
    ),
    refused(spec("x", { Mounts: [{ Type: "moon", Target: "/x" }] }), 400, 'invalid MountType: "moon"'),
    refused(
      spec("x", {}, {}, { RestartPolicy: { Condition: "sometimes" } }),
      400,
      'invalid RestartCondition: "sometimes"',
    ),
    refused(
      spec("x", {}, {}, { RestartPolicy: { Delay: -1 } }),
      400,
      `${invalid}TaskSpec: restart-delay cannot be negative`,
    ),
    refused(
      spec("x", {}, { UpdateConfig: { FailureAction: "panic" } }),
      400,
      "unrecognized update failure action panic",
    ),
    refused(
      spec("x", {}, { UpdateConfig: { MaxFailureRatio: 2 } }),
      400,
      `${invalid}TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1`,
    ),
    refused(
      spec("x", {}, { Mode: { Replicated: { Replicas: 1 }, Global: {} } }),
      400,
      "must specify only one service mode",
    ),
  ];
}

function badUpdates(web: ServiceView): Refusal[] {
  const path = `/services/web/update?version=${web.Version.Index}`;
  const small = spec("web", {}, {}, { Resources: { Limits: { MemoryBytes: 1 } } });
  return [
    {
      path: `/services/web/update?version=${web.Version.Index - 1}`,
      body: spec("web", { Env: ["A=b"] }),
      status: 500,
      message: "rpc error: code = Unknown desc = update out of sequence",
    },
    { path: "/services/web/update", body: spec("web"), status: 400, message: /^invalid service version ''/ },
    { path, body: '{"Name":"web"', status: 400, message: /JSON/ },
    { path, body: small, status: 400, message: `${invalid}invalid memory value 1: Must be at least 4MiB` },
    {
      path,
      body: spec("other"),
      status: 501,
      message: "rpc error: code = Unimplemented desc = renaming services is not supported",
    },
    {
      path,
      body: spec("web", {}, { Mode: { Global: {} } }),
      status: 501,
      message: "rpc error: code = Unimplemented desc = service mode change is not allowed",
    },
    {
      path: `${path}&rollback=previous`,
      body: spec("web"),
      status: 400,
      message: `rpc error: code = FailedPrecondition desc = service ${web.ID} does not have a previous spec`,
    },
    {
      path: "/services/nobody/update?version=1",
      body: spec("nobody"),
      status: 404,
      message: "service nobody not found",
    },
    { method: "DELETE", path: "/services/nobody", status: 404, message: "service nobody not found" },
  ];
}

function badNodes(id: string, version: number, found: object): Refusal[] {
  const path = `/nodes/${id}/update?version=${version}`;
  return [
    { path, body: { ...found, Role: "captain" }, status: 400, message: /invalid Role: "captain"/ },
    { path, body: { ...found, Availability: "away" }, status: 400, message: /invalid Availability: "away"/ },
    {
      path,
      body: { ...found, Labels: [] },
      status: 400,
      message: /^json: cannot unmarshal array into Go struct field/,
    },
    {
      path: `/nodes/${id}/update?version=0`,
      body: found,
      status: 500,
      message: "rpc error: code = Unknown desc = update out of sequence",
    },
    {
      path,
      body: { ...found, Role: "worker" },
      status: 400,
      message: /^rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm/,
    },
    { path: "/nodes/nobody/update?version=1", body: found, status: 404, message: "node nobody not found" },
    {
      method: "DELETE",
      path: `/nodes/${id}`,
      status: 400,
      message: /is a cluster manager and is a member of the raft cluster/,
    },
  ];
}

function badSwarms(version: number): Refusal[] {
  const path = `/swarm/update?version=${version}`;
  return [
    { path, body: "{", status: 400, message: /JSON/ },
    {
      path: `/swarm/update?version=${version - 1}`,
      body: { Name: "default" },
      status: 500,
      message: "rpc error: code = Unknown desc = update out of sequence",
    },
    {
      path,
      body: { Name: "default", CAConfig: { NodeCertExpiry: 1 } },
      status: 400,
      message: `${invalid}minimum certificate expiry time is: 1h0m0s`,
    },
    { path: "/swarm/init", body: initBody, status: 503, message: /^This node is already part of a swarm\./ },
    { path: "/swarm/leave", status: 503, message: /^You are attempting to leave the swarm on a node that/ },
  ];
}

function badQuestions(service: string): Refusal[] {
  const method = "GET";
  return [
    { method, path: "/services/nobody", status: 404, message: "service nobody not found" },
    { method, path: "/tasks/nobody", status: 404, message: "task nobody not found" },
    { method, path: "/nodes/nobody", status: 404, message: "node nobody not found" },
    { method, path: "/services?filters=nonsense", status: 400, message: /invalid/ },
    { method, path: `/tasks?filters=${encodeURIComponent('{"moon":["full"]}')}`, status: 400, message: /moon/ },
    { method, path: `/services/${service}/logs`, status: 400, message: /must choose at least one stream/ },
    { method, path: "/v1.999/services", status: 400, message: /client version 1\.999 is too new/ },
    { method, path: "/no/such/page", status: 404, message: "page not found" },
  ];
}

/** Beyond any measure, and each an answer within this. */
const atOnceMs = 1000;

function measureless(): Refusal[] {
  const path = "/services/create";
  const many = <T>(make: (number: number) => T) => Array.from({ length: 10_000 }, (_, number) => make(number));
  const refused = (body: unknown, status: number, message: string | RegExp) => ({ path, body, status, message });
  const constraints = many((number) => `node.labels.l${number}==x`);
  const ports = many((number) => ({ TargetPort: 80, PublishedPort: number + 1 }));
  const replicas = (count: string) =>
    JSON.stringify(spec("x")).replace(/\}$/, `,"Mode":{"Replicated":{"Replicas":${count}}}}`);
  return [
    refused("x".repeat(5 * 2 ** 20), 413, /request body too large/),
    refused(spec("x", { Env: many(() => "x".repeat(200)) }), 413, /request body too large/),
    refused("[".repeat(500_000) + "]".repeat(500_000), 400, /cannot unmarshal array/),
    refused('{"a":'.repeat(100_000), 400, /JSON/),
    refused(spec("x", {}, {}, { Placement: { Constraints: constraints } }), 400, /10000 constraints are more than/),
    refused(spec("x", {}, { EndpointSpec: { Ports: ports } }), 400, /10000 ports are more than/),
    refused(replicas("1000000000000000"), 400, /replicas are more than/),
    refused(replicas("1e400"), 400, /cannot unmarshal number/),
    refused(replicas("-1"), 400, /cannot unmarshal number -1/),
    refused(spec("x", {}, { EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 70_000 }] } }), 400, /port 70000/),
    refused(spec("x", { Isolation: "moon" }), 400, /invalid Isolation/),
    {
      method: "GET",
      path: `/services?filters=${encodeURIComponent("[".repeat(20_000))}`,
      status: 400,
      message: /filter/,
    },
    { method: "GET", path: `/tasks?filters=${encodeURIComponent('{"id":{"a":5}}')}`, status: 400, message: /filter/ },
  ];
}

test("what is beyond all measure is refused at once, and the daemon goes on", async () => {
  const daemon = playground.machine("node-1").find("daemon");
  const { nodes: _, ...before } = await everything(); // the node has just registered again
  for (const refusal of measureless()) {
    // The better of two: this machine may have been busy with something else.
    const times = [await timeOf(refusal), await timeOf(refusal)];
    assert.ok(Math.min(...times) < atOnceMs, `${refusal.message} took ${times} ms`);
  }
  const { nodes: __, ...after } = await everything();
  assert.deepEqual(after, before);
  assert.deepEqual(playground.machine("node-1").find("daemon"), daemon);
});

async function timeOf(refusal: Refusal): Promise<number> {
  const startedAt = performance.now();
  await assertRefused(refusal);
  return performance.now() - startedAt;
}

test("what is strange, but has a meaning, runs: names that lead in circles, texts that are none", async () => {
  const daemon = playground.machine("node-1").find("daemon");
  await api.post("/networks/create", { Name: "circle", Driver: "overlay" });
  const onCircle = (...Aliases: string[]) => ({ Networks: [{ Target: "circle", Aliases }] });
  const names = ["one", "two", "strange", "tasks.one", "", "a b", "*", "x".repeat(500)];
  const dns = { Nameservers: ["moon", "999.1.1.1", "::1%x", "192.0.2.1"], Search: ["moon"] };
  await api.post("/services/create", spec("one", {}, {}, onCircle("two", "one")));
  await api.post("/services/create", spec("two", {}, {}, onCircle("one", "two")));
  const strange = spec(
    "strange",
    { Env: ["A=\ud800"], DNSConfig: dns },
    { Labels: { half: "\ud800" } },
    onCircle(...names),
  );
  const text = JSON.stringify(strange).replace('"half"', '"__proto__":"p","constructor":"c","half"');
  await api.post("/services/create", text);
  for (const name of ["one", "two", "strange"]) {
    await taskOfService(name, ({ Status }) => Status.State === "running");
  }
  const found = (await engine.containers()).find(
    (container) => serviceOf(container) !== "" && container.Names[0]?.includes("strange"),
  );
  assert.ok(found);
  for (const name of ["one", "two", "tasks.one"]) {
    let answer = "";
    await eventually({ what: `${name} is found`, limitMs: settleMs, details: () => answer }, async () => {
      answer = await run(found.Id, ["nslookup", "-type=a", name]);
      return /Address: 10\.0\.\d+\.\d+/.test(answer);
    });
  }
  assert.match(
    await run(found.Id, ["nslookup", "-type=a", "nobody.example"]),
    /can't|NXDOMAIN|SERVFAIL|timed out|no servers/,
  );
  assert.deepEqual(playground.machine("node-1").find("daemon"), daemon);
  for (const name of ["one", "two", "strange"]) await api.delete(`/services/${name}`);
  await eventually({ what: "the network is free", limitMs: settleMs }, async () => {
    return (await api.ask("DELETE", "/networks/circle")).status === 204;
  });
});

/** What a command in the container says, whatever its status is. */
function run(container: string, command: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn("docker", ["--host", `unix://${node.engineSocket}`, "exec", container, ...command]);
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (chunk) => (text += chunk));
    child.once("error", reject);
    child.once("close", () => resolve(text));
  });
}

interface Fate {
  readonly service: string;
  readonly container?: object;
  readonly task?: object;
  readonly more?: object;
  readonly state: string;
  readonly err: RegExp;
}

const nanosecondsPerMillisecond = 1_000_000;
const takenPort = 9100;
const ports = (PublishedPort: number) => ({
  EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort, PublishMode: "host" }] },
});

/** What the node, or the scheduler, finds out. */
const fates: readonly Fate[] = [
  {
    service: "no-image",
    container: { Image: "shoal-test/nowhere:1" },
    state: "rejected",
    err: /^No such image: shoal-test\/nowhere:1/,
  },
  {
    service: "no-source",
    container: { Mounts: [{ Type: "bind", Source: "/nowhere", Target: "/x" }] },
    state: "rejected",
    err: /invalid mount config for type "bind": bind source path does not exist: \/nowhere/,
  },
  {
    service: "relative-target",
    container: { Mounts: [{ Type: "tmpfs", Target: "x" }] },
    state: "rejected",
    err: /invalid mount target, must be an absolute path: x/,
  },
  {
    service: "relative-source",
    container: { Mounts: [{ Type: "bind", Source: "x", Target: "/x" }] },
    state: "rejected",
    err: /invalid bind mount source, must be an absolute path: x/,
  },
  { service: "no-program", container: { Command: ["nothing"] }, state: "failed", err: /executable file not found/ },
  { service: "no-user", container: { User: "nobody-here" }, state: "failed", err: /unable to find user nobody-here/ },
  { service: "no-directory", container: { Dir: "/etc/passwd" }, state: "rejected", err: /is not a directory/ },
  {
    service: "bad-sysctl",
    container: { Sysctls: { "kernel.nonsense": "1" } },
    state: "failed",
    err: /sysctl "?kernel\.nonsense"? is not in a separate kernel namespace/,
  },
  { service: "bad-capability", container: { CapabilityAdd: ["CAP_FLY"] }, state: "rejected", err: /CAP_FLY/ },
  {
    service: "unhealthy",
    container: {
      Healthcheck: { Test: ["CMD", "false"], Interval: 100 * nanosecondsPerMillisecond, Retries: 1 },
      Args: ["sleep", "600"],
    },
    state: "failed",
    err: /^task: non-zero exit \(137\): dockerexec: unhealthy container$/,
  },
  {
    service: "fails",
    container: { Args: ["sh", "-c", "exit 7"] },
    state: "failed",
    err: /^task: non-zero exit \(7\)$/,
  },
  { service: "port-of-another", more: ports(takenPort), state: "failed", err: /address already in use/ },
  {
    service: "port-of-a-service",
    more: ports(9101),
    state: "pending",
    err: /^no suitable node \(host-mode port already in use on 1 node\)$/,
  },
  {
    service: "no-driver",
    container: {
      Mounts: [{ Type: "volume", Source: "v", Target: "/v", VolumeOptions: { DriverConfig: { Name: "moon" } } }],
    },
    state: "pending",
    err: /^no suitable node \(missing plugin on 1 node\)$/,
  },
  {
    service: "too-big",
    task: { Resources: { Reservations: { MemoryBytes: 2 ** 50 } } },
    state: "pending",
    err: /^no suitable node \(insufficient resources on 1 node\)$/,
  },
  {
    service: "nowhere-to-go",
    task: { Placement: { Constraints: ["node.labels.color==red"] } },
    state: "pending",
    err: /^no suitable node \(scheduling constraints not satisfied on 1 node\)$/,
  },
];

test("what only the node or the scheduler can find out is a task that says why", async () => {
  await using _taken = await listenOnNode(takenPort);
  await api.post("/services/create", spec("first", {}, ports(9101)));
  await taskOfService("first", ({ Status }) => Status.State === "running");
  for (const { service, container, more, task } of fates) {
    await api.post("/services/create", spec(service, container, more, task));
  }
  const wrong: string[] = [];
  for (const { service, state, err } of fates) {
    const { Status } = await taskOfService(service, ({ Status: { State, Err } }) => {
      return ["rejected", "failed", "complete"].includes(State) || (State === "pending" && Err !== undefined);
    });
    if (Status.State !== state || !err.test(Status.Err ?? "")) {
      wrong.push(`${service}: ${Status.State} "${Status.Err}", should be ${state} ${err}`);
    }
    const count = (await api.tasks(service)).length;
    if (count !== 1) wrong.push(`${service} has ${count} tasks`);
  }
  assert.equal(wrong.join("\n"), "");
});

test("the services beside them were not touched, and all of it can be removed", async () => {
  for (const service of ["web", "first"]) {
    const tasks = await api.tasks(service);
    assert.deepEqual(
      tasks.map(({ Status }) => Status.State),
      ["running"],
      service,
    );
  }
  for (const { ID } of await api.services()) await api.delete(`/services/${ID}`);
  await eventually({ what: "all tasks and containers are gone", limitMs: settleMs }, async () => {
    return (await api.tasks()).length === 0 && (await engine.containers()).length === 0;
  });
});
