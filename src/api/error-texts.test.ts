/**
 * The error texts that users and their scripts match on: stock Swarm's, with their HTTP statuses, each beside the
 * situation that it belongs to. Asked of the whole API over its socket, with a manager in memory.
 *
 * `$web` and its like stand for the ids of the objects that `world` makes.
 *
 * What needs several managers, or a disk, is in the tests of the cluster:
 * - too few managers online ("The swarm does not have a leader. ..."): test/cluster/managers.test.ts
 * - a demotion that would lose the quorum, by etcd's own count: test/cluster/managers.test.ts
 * - locked, after a restart of the daemon: test/cluster/trust.test.ts
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Node } from "../model/types.ts";
import type { Store } from "../store/store.ts";
import { aNode, type Fixture, startFixture } from "./http-fixture.test.ts";

interface Row {
  readonly situation: string;
  /** Method and path. */
  readonly asked: string;
  readonly body?: unknown;
  readonly status: number;
  readonly text: string;
}

const rpc = (code: string, text: string) => `rpc error: code = ${code} desc = ${text}`;
const invalid = (text: string) => rpc("InvalidArgument", text);
const precondition = (text: string) => rpc("FailedPrecondition", text);
const unknown = (text: string) => rpc("Unknown", text);

const container = { Image: "bb:1" };
const task = (more: object, ofContainer: object = {}) => ({
  TaskTemplate: { ContainerSpec: { ...container, ...ofContainer }, ...more },
});
const spec = (Name: string, more: object = {}) => ({ Name, ...task({}), ...more });
const ports = (...Ports: object[]) => ({ EndpointSpec: { Ports } });
const constrained = (text: string) => spec("x", task({ Placement: { Constraints: [text] } }));
const limited = (Limits: object) => spec("x", task({ Resources: { Limits } }));
const reserved = (Reservations: object) => spec("x", task({ Resources: { Reservations } }));
const attached = (...targets: string[]) => spec("x", task({ Networks: targets.map((Target) => ({ Target })) }));
const withSecret = (SecretName: string, SecretID: string) =>
  spec("x", task({}, { Secrets: [{ SecretID, SecretName, File: { Name: "s" } }] }));
const withConfig = (ConfigName: string, ConfigID: string) =>
  spec("x", task({}, { Configs: [{ ConfigID, ConfigName, File: { Name: "c" } }] }));
const overlay = (Name: string) => ({ Name, Driver: "overlay" });

const dns = invalid("name must be valid as a DNS name component");
const long = invalid("name must be 63 characters or fewer");

const createService = "POST /services/create";
const createNetwork = "POST /networks/create";
const updateWeb = "POST /services/web/update?version=$web.version";

const rows: readonly Row[] = [
  {
    situation: "stale version of a service",
    asked: "POST /services/web/update?version=1",
    body: spec("web"),
    status: 500,
    text: unknown("update out of sequence"),
  },
  {
    situation: "stale version of a node",
    asked: "POST /nodes/$worker/update?version=1",
    body: { Role: "worker", Availability: "active" },
    status: 500,
    text: unknown("update out of sequence"),
  },
  {
    situation: "stale version of the swarm",
    asked: "POST /swarm/update?version=0",
    body: { Name: "default" },
    status: 500,
    text: unknown("update out of sequence"),
  },
  {
    situation: "duplicate service",
    asked: createService,
    body: spec("web"),
    status: 409,
    text: rpc("AlreadyExists", "name conflicts with an existing object: service web already exists"),
  },
  {
    situation: "duplicate network",
    asked: createNetwork,
    body: overlay("net"),
    status: 409,
    text: "network with name net already exists",
  },
  { situation: "bad service name", asked: createService, body: spec("a b"), status: 400, text: dns },
  { situation: "long service name", asked: createService, body: spec("a".repeat(64)), status: 400, text: long },
  { situation: "bad network name", asked: createNetwork, body: overlay("-x"), status: 400, text: dns },
  { situation: "long network name", asked: createNetwork, body: overlay("a".repeat(64)), status: 400, text: long },
  {
    situation: "rename",
    asked: updateWeb,
    body: spec("www"),
    status: 501,
    text: rpc("Unimplemented", "renaming services is not supported"),
  },
  {
    situation: "mode change",
    asked: updateWeb,
    body: spec("web", { Mode: { Global: {} } }),
    status: 501,
    text: rpc("Unimplemented", "service mode change is not allowed"),
  },
  {
    situation: "published port is another service's, in ingress mode",
    asked: createService,
    body: spec("x", ports({ TargetPort: 80, PublishedPort: 80 })),
    status: 400,
    text: invalid("port '80' is already in use by service 'front' ($front) as an ingress port"),
  },
  {
    situation: "published port is another service's, in host mode",
    asked: createService,
    body: spec("x", ports({ TargetPort: 80, PublishedPort: 81 })),
    status: 400,
    text: invalid("port '81' is already in use by service 'front' ($front) as a host-published port"),
  },
  {
    situation: "dnsrr and a port in ingress mode",
    asked: createService,
    body: spec("x", { EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 80 }] } }),
    status: 400,
    text: invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode"),
  },
  {
    situation: "same port twice",
    asked: createService,
    body: spec("x", ports({ TargetPort: 80, PublishedPort: 90 }, { TargetPort: 81, PublishedPort: 90 })),
    status: 400,
    text: invalid("EndpointSpec: duplicate published ports provided"),
  },
  {
    situation: "attached to the ingress network",
    asked: createService,
    body: attached("ingress"),
    status: 400,
    text: invalid('Service cannot be explicitly attached to the ingress network "ingress"'),
  },
  {
    situation: "processor limit too small",
    asked: createService,
    body: limited({ NanoCPUs: 100_000 }),
    status: 400,
    text: invalid("invalid cpu value 0.0001: Must be at least 0.001"),
  },
  {
    situation: "processor reservation too small",
    asked: createService,
    body: reserved({ NanoCPUs: 1 }),
    status: 400,
    text: invalid("invalid cpu value 1e-09: Must be at least 0.001"),
  },
  {
    situation: "memory limit too small",
    asked: createService,
    body: limited({ MemoryBytes: 1024 }),
    status: 400,
    text: invalid("invalid memory value 1024: Must be at least 4MiB"),
  },
  {
    situation: "job with an update config",
    asked: createService,
    body: spec("x", { Mode: { ReplicatedJob: {} }, UpdateConfig: { Parallelism: 1 } }),
    status: 400,
    text: invalid("Jobs may not have an update config"),
  },
  {
    situation: "rollback without a previous spec",
    asked: `${updateWeb}&rollback=previous`,
    body: spec("web"),
    status: 400,
    text: precondition("service $web does not have a previous spec"),
  },
  {
    situation: "constraint without an operator",
    asked: createService,
    body: constrained("node.role"),
    status: 500,
    text: unknown("constraint expected one operator from ==, !="),
  },
  {
    situation: "constraint with an impossible key",
    asked: createService,
    body: constrained("node,role==worker"),
    status: 500,
    text: unknown("key 'node,role' is invalid"),
  },
  {
    situation: "constraint with an impossible value",
    asked: createService,
    body: constrained("node.role==wörker"),
    status: 500,
    text: unknown("value 'wörker' is invalid"),
  },
  {
    situation: "network in use by a service",
    asked: "DELETE /networks/net",
    status: 400,
    text: precondition("network $net is in use by service $back"),
  },
  {
    situation: "network in use by a task without a service",
    asked: "DELETE /networks/user-net",
    status: 400,
    text: precondition("network $user-net is in use by task users-task"),
  },
  {
    situation: "removing a node that is not down",
    asked: "DELETE /nodes/$worker",
    status: 400,
    text: precondition("node $worker is not down and can't be removed"),
  },
  {
    situation: "removing a manager",
    asked: "DELETE /nodes/$self?force=1",
    status: 400,
    text: precondition(
      "node $self is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    ),
  },
  {
    situation: "demoting the last manager",
    asked: "POST /nodes/$self/update?version=$self.version",
    body: { Role: "worker", Availability: "active" },
    status: 400,
    text: precondition("attempting to demote the last manager of the swarm"),
  },
  {
    situation: "init on a node of a swarm",
    asked: "POST /swarm/init",
    body: {},
    status: 503,
    text: 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
  },
  {
    situation: "join on a node of a swarm",
    asked: "POST /swarm/join",
    body: { RemoteAddrs: ["192.0.2.7"] },
    status: 503,
    text: 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.',
  },
  {
    situation: "the last manager leaves",
    asked: "POST /swarm/leave",
    status: 503,
    text:
      "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager " +
      "erases all current state of the swarm. Use `--force` to ignore this message. ",
  },
  {
    situation: "service on a network of the node alone",
    asked: createService,
    body: attached("lan"),
    status: 403,
    text: "The network lan cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
  },
  { situation: "no such service", asked: "GET /services/nobody", status: 404, text: "service nobody not found" },
  { situation: "no such node", asked: "GET /nodes/nobody", status: 404, text: "node nobody not found" },
  { situation: "no such task", asked: "GET /tasks/nobody", status: 404, text: "task nobody not found" },
  {
    situation: "several nodes of one name",
    asked: "GET /nodes/twin",
    status: 400,
    text: "node twin is ambiguous (2 matches found)",
  },
];

const secretRows: readonly Row[] = (["secret", "config"] as const).flatMap((kind) => [
  {
    situation: `duplicate ${kind}`,
    asked: `POST /${kind}s/create`,
    body: { Name: "used", Data: "eA==" },
    status: 409,
    text: rpc("AlreadyExists", `${kind} used already exists`),
  },
  {
    situation: `bad ${kind} name`,
    asked: `POST /${kind}s/create`,
    body: { Name: "a".repeat(65), Data: "eA==" },
    status: 400,
    text: invalid(
      "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    ),
  },
  {
    situation: `${kind} missing`,
    asked: createService,
    body: kind === "secret" ? withSecret("x", "nobody") : withConfig("x", "nobody"),
    status: 400,
    text: invalid(`${kind} not found: x`),
  },
  {
    situation: `${kind} in use`,
    asked: `DELETE /${kind}s/used`,
    status: 400,
    text: invalid(`${kind} 'used' is in use by the following service: ${kind}-user`),
  },
  {
    situation: `change of a ${kind}`,
    asked: `POST /${kind}s/used/update?version=$${kind}.version`,
    body: { Name: "used", Data: "eQ==" },
    status: 400,
    text: invalid("only updates to Labels are allowed"),
  },
]);

test("each situation has Swarm's status and text, and changes nothing", async () => {
  await using open = await openWorld();
  const { world, fixture } = open;
  const before = open.store.view.revision;
  const wrong: string[] = [];
  for (const row of [...rows, ...secretRows]) wrong.push(...(await failures(fixture, row, world)));
  assert.equal(wrong.join("\n"), "");
  assert.equal(open.store.view.revision, before);
});

test("where there is no ingress network, no port can be published on it", async () => {
  await using open = await openManager();
  const row: Row = {
    situation: "no ingress network",
    asked: createService,
    body: spec("x", ports({ TargetPort: 80 })),
    status: 400,
    text: precondition("service needs ingress network, but no ingress network is present"),
  };
  assert.deepEqual(await failures(open.fixture, row, new Map()), []);
});

test("with other managers: leaving and demoting say what the swarm would lose", async () => {
  await using open = await openManager();
  const { fixture, store } = open;
  await store.update((tx) => tx.create("nodes", aNode("second")));
  const attempt = "You are attempting to leave the swarm on a node that is participating as a manager. ";
  const wrong = await failures(
    fixture,
    {
      situation: "one of two managers leaves",
      asked: "POST /swarm/leave",
      status: 503,
      text: `${attempt}Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize it with \`--force-new-cluster\`. Use \`--force\` to suppress this message.`,
    },
    new Map(),
  );
  await store.update((tx) => tx.create("nodes", aNode("third")));
  fixture.node.active = { ...fixture.node.active!, isReachable: (id) => id !== "second" };
  wrong.push(
    ...(await failures(
      fixture,
      {
        situation: "demotion that loses the quorum",
        asked: "POST /nodes/third/update?version=$third.version",
        body: { Role: "worker", Availability: "active" },
        status: 400,
        text: precondition("can't remove member from the raft: this would result in a loss of quorum"),
      },
      new Map([["third.version", String(store.view.get("nodes", "third")?.Version.Index)]]),
    )),
  );
  assert.deepEqual(wrong, []);
});

const none = "This node is not a swarm manager. ";

/** What every endpoint of the swarm answers on a node that can't be asked. */
const nodes: readonly { situation: string; node: Partial<Fixture["node"]>; text: string }[] = [
  {
    situation: "not in a swarm",
    node: { state: "inactive" },
    text: `${none}Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`,
  },
  {
    situation: "a worker",
    node: { state: "active" },
    text: `${none}Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.`,
  },
  {
    situation: "locked",
    node: { state: "locked" },
    text: 'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.',
  },
  {
    situation: "a manager that is not ready yet",
    node: { state: "active", controlAvailable: true },
    text: `${none}Manager is being prepared or has trouble connecting to the cluster.`,
  },
];

test("who is no manager says why, at each endpoint", async () => {
  const asked = ["swarm", "nodes", "nodes/x", "services", "services/x", "services/x/logs?stdout=1", "tasks", "tasks/x"];
  asked.push("secrets", "secrets/x", "configs", "configs/x");
  for (const { situation, node, text } of nodes) {
    const fixture = await startFixture();
    Object.assign(fixture.node, node);
    const wrong: string[] = [];
    const ask = async (one: string, body?: unknown) => {
      wrong.push(...(await failures(fixture, { situation, asked: one, body, status: 503, text }, new Map())));
    };
    for (const path of asked) await ask(`GET /${path}`);
    await ask(createService, spec("x"));
    await ask("POST /services/x/update?version=1", spec("x"));
    await ask("DELETE /services/x");
    await ask(createNetwork, overlay("x"));
    await ask("DELETE /nodes/x");
    await ask("POST /swarm/update?version=1", { Name: "default" });
    await fixture.close();
    assert.deepEqual(wrong, []);
  }
});

/** The row's faults, in words. */
async function failures(fixture: Fixture, row: Row, world: ReadonlyMap<string, string>): Promise<string[]> {
  const filled = (text: string) =>
    text.replace(/\$([\w-]+(?:\.version)?)/g, (_, name) => world.get(name) ?? `$${name}`);
  const [method = "", path = ""] = filled(row.asked).split(" ");
  const answer = await fixture.call(method, path, row.body);
  const should = JSON.stringify({ status: row.status, message: filled(row.text) });
  const is = JSON.stringify({ status: answer.status, message: messageOf(answer.text) });
  return is === should ? [] : [`${row.situation} (${method} ${path}):\n  is        ${is}\n  should be ${should}`];
}

function messageOf(text: string): unknown {
  return text === "" ? "" : (JSON.parse(text) as { message?: unknown }).message;
}

interface OpenManager extends AsyncDisposable {
  readonly fixture: Fixture;
  readonly store: Store;
}

async function openManager(): Promise<OpenManager> {
  const fixture = await startFixture();
  await fixture.node.init({});
  return { fixture, store: fixture.node.active!.store, [Symbol.asyncDispose]: () => fixture.close() };
}

/** A swarm with what the rows need. */
async function openWorld(): Promise<OpenManager & { readonly world: ReadonlyMap<string, string> }> {
  const open = await openManager();
  const { fixture, store } = open;
  // Of the Engine: a network of this node.
  fixture.onEngine = (request, response) => {
    const found = /\/networks\/lan$/.test(request.url ?? "");
    const body = found ? { Id: "e-lan", Name: "lan", Driver: "bridge", Scope: "local" } : { message: "not found" };
    response.writeHead(found ? 200 : 404).end(JSON.stringify(body));
  };
  const world = new Map<string, string>();
  const make = async (name: string, path: string, body: object) => {
    const answer = await fixture.call("POST", path, body);
    if (answer.status !== 201) await fixture.close(); // nobody else will
    assert.equal(answer.status, 201, answer.text);
    const made = answer.json<{ ID?: string; Id?: string }>();
    world.set(name, made.ID ?? made.Id ?? "");
    return world.get(name)!;
  };
  await make("ingress", "/networks/create", { ...overlay("ingress"), Ingress: true });
  const net = await make("net", "/networks/create", overlay("net"));
  const userNet = await make("user-net", "/networks/create", { ...overlay("user-net"), Attachable: true });
  await make("web", "/services/create", spec("web"));
  await make("front", "/services/create", {
    ...spec("front"),
    ...ports(
      { TargetPort: 80, PublishedPort: 80, PublishMode: "ingress" },
      { TargetPort: 81, PublishedPort: 81, PublishMode: "host" },
    ),
  });
  await make("back", "/services/create", { ...spec("back"), ...task({ Networks: [{ Target: net }] }) });
  for (const kind of ["secret", "config"] as const) {
    const id = await make(kind, `/${kind}s/create`, { Name: "used", Data: "eA==" });
    const user = kind === "secret" ? withSecret("used", id) : withConfig("used", id);
    await make(`${kind}-user`, "/services/create", { ...user, Name: `${kind}-user` });
    const { Version } = (await fixture.call("GET", `/${kind}s/used`)).json<{ Version: { Index: number } }>();
    world.set(`${kind}.version`, String(Version.Index));
  }
  await store.update((tx) => {
    tx.create("nodes", worker("worker-1", "worker"));
    for (const id of ["twin-1", "twin-2"]) tx.create("nodes", worker(id, "twin"));
    tx.create("tasks", {
      ID: "users-task",
      ServiceID: "",
      Slot: 0,
      NodeID: "worker-1",
      SpecVersion: { Index: 0 },
      Status: { Timestamp: tx.now, State: "running" },
      DesiredState: "running",
      Attachment: { NetworkID: userNet, ContainerID: "c", Aliases: [] },
      Addresses: [{ NetworkID: userNet, Address: "10.0.2.5/24" }],
    });
  });
  world.set("worker", "worker-1");
  const self = fixture.node.active!.nodeId;
  world.set("self", self);
  world.set("self.version", String(store.view.get("nodes", self)?.Version.Index));
  world.set("web.version", String(store.view.service(world.get("web")!)?.Version.Index));
  return { ...open, world };
}

function worker(ID: string, Hostname: string): Omit<Node, "Version" | "CreatedAt" | "UpdatedAt"> {
  const { ManagerStatus: _, ...node } = aNode(ID);
  return { ...node, Description: { Hostname }, Role: "worker", Spec: { Role: "worker", Availability: "active" } };
}
