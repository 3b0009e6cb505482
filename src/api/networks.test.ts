import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterEach, beforeEach, test } from "node:test";
import { engineNetworkLabel } from "../model/networks.ts";
import type { ServiceSpec } from "../model/types.ts";
import type { Store } from "../store/store.ts";
import { type Fixture, startFixture } from "./http-fixture.test.ts";
import { timeOf } from "./networks-prune.ts";

interface EngineNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver?: string;
  readonly Created?: string;
  readonly Labels?: Record<string, string>;
  readonly Containers?: Record<string, object>;
}

let fixture: Fixture;
/** The Engine's networks. */
let networks: EngineNetwork[];
/** What the Engine was asked, but for questions about networks. */
let asked: { readonly what: string; readonly body: string }[];
beforeEach(async () => {
  fixture = await startFixture();
  await fixture.node.init({});
  networks = [{ Id: "e-host", Name: "host", Driver: "host" }];
  asked = [];
  fixture.onEngine = (request, response) => void engine(request, response);
});
afterEach(() => fixture.close());

async function engine(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://engine");
  const reply = (status: number, body: unknown) => response.writeHead(status).end(JSON.stringify(body));
  const [, name] = /^(?:\/v[\d.]+)?\/networks\/([^/]+)$/.exec(pathname) ?? [];
  if (request.method === "GET" && name) {
    const text = decodeURIComponent(name);
    const found =
      networks.find(({ Id }) => Id === text) ??
      networks.find(({ Name }) => Name === text) ??
      networks.find(({ Id }) => Id.startsWith(text));
    return void (found ? reply(200, found) : reply(404, { message: `network ${text} not found` }));
  }
  if (request.method === "GET" && /\/networks$/.test(pathname)) {
    const { label = [], name: names = [], type = [] } = JSON.parse(searchParams.get("filters") ?? "{}");
    if (names.includes("bad")) return void reply(400, { message: "bad filter" });
    const [key, value] = (label[0] ?? "").split("=");
    return void reply(
      200,
      networks
        .filter(({ Name }) => !type.includes("custom") || Name !== "host")
        .filter(({ Labels = {} }) => !key || (value ? Labels[key] === value : key in Labels)),
    );
  }
  let body = "";
  for await (const chunk of request) body += chunk;
  asked.push({ what: `${request.method} ${decodeURIComponent(request.url ?? "")}`, body });
  if (request.method === "DELETE" && networks.some(({ Id }) => Id === name)) return void response.writeHead(204).end();
  if (pathname.endsWith("/prune")) return void reply(200, { NetworksDeleted: ["theirs"] });
  reply(200, { engine: "did it" });
}

const store = (): Store => fixture.node.active!.store;

async function create(body: object): Promise<string> {
  const answer = await fixture.call("POST", "/networks/create", body);
  assert.equal(answer.status, 201, answer.text);
  return answer.json<{ Id: string }>().Id;
}

async function refusal(method: string, path: string, body?: unknown): Promise<[number, string]> {
  const answer = await fixture.call(method, path, body);
  return [answer.status, answer.json().message];
}

// biome-ignore lint/suspicious/noExplicitAny: JSON of all kinds
async function inspect(path: string): Promise<any> {
  const answer = await fixture.call("GET", `/networks/${path}`);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}

async function list(filters?: Record<string, string[]>): Promise<string[]> {
  const query = filters ? `?filters=${encodeURIComponent(JSON.stringify(filters))}` : "";
  const answer = await fixture.call("GET", `/networks${query}`);
  assert.equal(answer.status, 200, answer.text);
  return answer.json<{ Name: string }[]>().map(({ Name }) => Name);
}

async function service(name: string, spec: ServiceSpec): Promise<string> {
  const body = { Name: name, ...spec, TaskTemplate: { ContainerSpec: { Image: "bb:1" }, ...spec.TaskTemplate } };
  const answer = await fixture.call("POST", "/services/create", body);
  assert.equal(answer.status, 201, answer.text);
  return answer.json<{ ID: string }>().ID;
}

const overlay = (name: string, more: object = {}) => ({ Name: name, Driver: "overlay", ...more });
const subnet = (Subnet: string, more: object = {}) => ({ IPAM: { Config: [{ Subnet, ...more }] } });

test("a predefined network is found in the swarm's scope, by name and by id, and is in no list", async () => {
  const byName = await inspect("host?scope=swarm");
  assert.deepEqual([byName.Name, byName.Scope, byName.Driver], ["host", "swarm", "host"]);
  assert.deepEqual(byName.Labels, { "com.docker.swarm.predefined": "true" });
  for (const query of ["", "?scope=swarm"]) assert.deepEqual(await inspect(`${byName.Id}${query}`), byName);
  assert.equal((await inspect("host")).Id, "e-host", "without the scope it is the Engine's");
  assert.deepEqual(await list(), ["host"]);
  assert.deepEqual(await refusal("GET", "/networks/other?scope=swarm"), [404, "network other not found"]);
  assert.deepEqual(await refusal("GET", "/networks/other"), [404, "network other not found"]);
});

test("networks get subnets in turn, and are shown with what they were asked for and given", async () => {
  const web = await create(overlay("web", { Attachable: true, Labels: { a: "b" } }));
  await create(
    overlay("back", { Internal: true, Options: { encrypted: "", "com.docker.network.driver.mtu": "1400" } }),
  );
  await create(overlay("own", subnet("10.0.2.0/24", { Gateway: "10.0.2.254", IPRange: "10.0.2.128/25" })));
  await create(overlay("next"));
  const shown = await inspect("web");
  assert.deepEqual(shown, {
    Name: "web",
    Id: web,
    Created: shown.Created,
    Scope: "swarm",
    Driver: "overlay",
    EnableIPv4: true,
    EnableIPv6: false,
    IPAM: { Driver: "default", Options: null, Config: [{ Subnet: "10.0.0.0/24", Gateway: "10.0.0.1" }] },
    Internal: false,
    Attachable: true,
    Ingress: false,
    ConfigFrom: { Network: "" },
    ConfigOnly: false,
    Containers: null,
    Options: { "com.docker.network.driver.overlay.vxlanid_list": "4096" },
    Labels: { a: "b" },
    Peers: [],
    Status: { IPAM: { Subnets: { "10.0.0.0/24": { IPsInUse: 3, DynamicIPsAvailable: 253 } } } },
  });
  const back = await inspect("back");
  assert.equal(back.IPAM.Config[0].Subnet, "10.0.1.0/24");
  assert.equal(back.Internal, true);
  assert.equal(back.Options.encrypted, "");
  const own = await inspect("own");
  assert.deepEqual(own.IPAM.Config, [{ Subnet: "10.0.2.0/24", IPRange: "10.0.2.128/25", Gateway: "10.0.2.254" }]);
  assert.deepEqual(own.Status.IPAM.Subnets["10.0.2.0/24"], { IPsInUse: 3, DynamicIPsAvailable: 126 });
  assert.equal((await inspect("next")).IPAM.Config[0].Subnet, "10.0.3.0/24");
  assert.equal((await inspect(web.slice(0, 8))).Id, web);
});

test("what can't be is refused, and nothing is stored", async () => {
  await create(overlay("web", subnet("10.5.0.0/16")));
  await create(overlay("mesh", { Ingress: true }));
  const count = store().view.count("networks");
  const grpc = (code: string, text: string) => `rpc error: code = ${code} desc = ${text}`;
  const invalid = (text: string) => grpc("InvalidArgument", text);
  const ipam = (text: string) => invalid(`ipam configuration: ${text}`);
  const overlaps = "invalid pool request: Pool overlaps with other one on this address space: ";
  const mtu = (value: string) => ({ Options: { "com.docker.network.driver.mtu": value } });
  const cases: [body: object, status: number, text: string | RegExp][] = [
    [overlay("web"), 409, "network with name web already exists"],
    [{ Name: "web", Driver: "bridge" }, 409, "network with name web already exists"],
    [overlay("host"), 403, "operation is not permitted on predefined host network"],
    [overlay("a.b"), 400, invalid("name must be valid as a DNS name component")],
    [overlay("x".repeat(64)), 400, invalid("name must be 63 characters or fewer")],
    [overlay(""), 400, invalid("meta: name must be provided")],
    [overlay("n", { Labels: { "com.docker.swarm.predefined": "" } }), 403, /label com.docker.swarm.predefined is for/],
    [
      overlay("n", subnet("10.5.6.0/24")),
      403,
      grpc("PermissionDenied", `${overlaps}10.5.6.0/24 with 10.5.0.0/16 of network web`),
    ],
    [overlay("n", subnet("10.0.0.0/8")), 403, /Pool overlaps/],
    [overlay("n", subnet("10.6.0.0")), 400, ipam("invalid subnet 10.6.0.0")],
    [overlay("n", subnet("10.6.0.0/33")), 400, ipam("invalid subnet 10.6.0.0/33")],
    [overlay("n", subnet("10.6.0.256/24")), 400, ipam("invalid subnet 10.6.0.256/24")],
    [overlay("n", subnet("")), 400, ipam("invalid subnet ")],
    [overlay("n", subnet("10.6.0.7/24")), 400, ipam("invalid subnet 10.6.0.7/24: it should be 10.6.0.0/24")],
    [overlay("n", subnet("10.6.0.0/31")), 400, /no room for a gateway and a task/],
    [overlay("n", subnet("224.0.0.0/24")), 400, /addresses that no task can have/],
    [overlay("n", subnet("0.0.0.0/1")), 400, /addresses that no task can have/],
    [overlay("n", subnet("127.0.0.0/16")), 400, /addresses that no task can have/],
    [overlay("n", subnet("fd00::/64")), 501, /IPv6 is not supported: subnet fd00::\/64/],
    [overlay("n", { EnableIPv6: true }), 501, /IPv6 is not supported/],
    [overlay("n", { EnableIPv4: false }), 400, /IPv4 cannot be disabled/],
    [
      overlay("n", subnet("10.6.0.0/24", { Gateway: "10.7.0.1" })),
      400,
      ipam("subnet 10.6.0.0/24 does not contain gateway 10.7.0.1"),
    ],
    [overlay("n", subnet("10.6.0.0/24", { Gateway: "x" })), 400, ipam("invalid gateway x")],
    [overlay("n", subnet("10.6.0.0/24", { Gateway: "10.6.0.255" })), 400, /invalid gateway 10.6.0.255/],
    [
      overlay("n", subnet("10.6.0.0/24", { IPRange: "10.6.1.0/25" })),
      400,
      ipam("subnet 10.6.0.0/24 does not contain range 10.6.1.0/25"),
    ],
    [overlay("n", subnet("10.6.0.0/24", { IPRange: "10.6.0.0/16" })), 400, /does not contain range/],
    [overlay("n", subnet("10.6.0.0/24", { IPRange: "10.6.0.4" })), 400, ipam("invalid range 10.6.0.4")],
    [overlay("n", { IPAM: { Config: [{ Subnet: "10.6.0.0/24" }, { Subnet: "10.7.0.0/24" }] } }), 400, /one subnet/],
    [overlay("n", { IPAM: { Driver: "dhcp" } }), 400, /IPAM driver dhcp is not supported/],
    ...["67", "65536", "1e3", "-1", "", "1500.5", "99999999999"].map(
      (value) =>
        [overlay("n", mtu(value)), 400, /an MTU is a whole number from 68 to 65535/] as [object, number, RegExp],
    ),
    [overlay("n", { Options: { encrypted: "maybe" } }), 400, /invalid value for option encrypted: "maybe"/],
    [
      overlay("n", { Options: { "com.docker.network.driver.overlay.vxlanid_list": "4096" } }),
      400,
      invalid("VXLAN id 4096 is already in use"),
    ],
    [overlay("n", { Options: { "com.docker.network.driver.overlay.vxlanid_list": "1,2" } }), 400, /one id from 1/],
    [overlay("n", { Ingress: true }), 409, /ingress network \(\w+\) is already present/],
    [overlay("n", { Ingress: true, Attachable: true }), 400, invalid("ingress network cannot be attachable")],
    [{ Name: "n", Driver: "bridge", Ingress: true }, 501, /only overlay driver is currently supported for ingress/],
    [{ Name: "n", Driver: "weave", Scope: "swarm" }, 404, 'plugin "weave" not found'],
    [overlay("n", { Scope: "local" }), 400, /cannot have scope local/],
    [overlay("n", { ConfigFrom: { Network: "x" } }), 400, /cannot be made from a configuration/],
    [overlay("n", { Internal: "yes" }), 400, /json: cannot unmarshal string into Go struct field/],
  ];
  for (const [body, status, text] of cases) {
    const [given, message] = await refusal("POST", "/networks/create", body);
    const what = `${JSON.stringify(body)}: ${given} ${message}`;
    assert.equal(given, status, what);
    if (typeof text === "string") assert.equal(message, text, what);
    else assert.match(message, text, what);
  }
  assert.equal(store().view.count("networks"), count);
  assert.deepEqual(asked, []);
});

test("without a free subnet in the pools a network is not made, and the text has numbers", async () => {
  await fixture.node.init({ DefaultAddrPool: ["10.9.0.0/28", "10.8.0.0/29"], SubnetSize: 29 });
  for (const name of ["a", "b", "c"]) await create(overlay(name));
  assert.equal((await inspect("c")).IPAM.Config[0].Subnet, "10.8.0.0/29");
  assert.deepEqual(await refusal("POST", "/networks/create", overlay("d")), [
    400,
    "rpc error: code = InvalidArgument desc = all predefined address pools have been fully subnetted: 3 of 3 subnets of size /29 are in use",
  ]);
  assert.equal((await fixture.call("DELETE", "/networks/b")).status, 204);
  await create(overlay("d"));
  const [a, c, d] = await Promise.all(["a", "c", "d"].map(inspect));
  assert.equal(d.IPAM.Config[0].Subnet, "10.9.0.8/29");
  const ids = [a, c, d].map(({ Options }) => Options["com.docker.network.driver.overlay.vxlanid_list"]);
  assert.deepEqual(ids, ["4096", "4098", "4099"], "an id is not used again at once");
});

test("creates at the same moment share neither a name nor a subnet", async () => {
  const answers = await Promise.all(
    ["a", "b", "a", "c", "b", "d"].map((name) => fixture.call("POST", "/networks/create", overlay(name))),
  );
  assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 201, 201, 201, 409, 409]);
  const made = [...store().view.all("networks")].filter(({ Allocated }) => Allocated);
  assert.equal(new Set(made.map(({ Allocated }) => Allocated?.Subnet)).size, 4);
  assert.equal(new Set(made.map(({ Allocated }) => Allocated?.VxlanID)).size, 4);
});

test("a network of another driver is the swarm's by its scope, without addresses; a configuration is the Engine's", async () => {
  await create({
    Name: "lan",
    Driver: "macvlan",
    Scope: "swarm",
    ConfigFrom: { Network: "lan-config" },
    Attachable: true,
  });
  const lan = await inspect("lan");
  assert.deepEqual(
    [lan.Driver, lan.Scope, lan.ConfigFrom, lan.IPAM.Config],
    ["macvlan", "swarm", { Network: "lan-config" }, null],
  );
  for (const body of [
    '{"Name":"n",  "Driver":"bridge"}',
    '{"Name":"n","Driver":"overlay","ConfigOnly":true}',
    "{not json",
    "[]",
    "null",
  ]) {
    asked = [];
    await fixture.call("POST", "/networks/create", body);
    assert.deepEqual(asked, [{ what: "POST /networks/create", body }]);
  }
});

test("the list has both kinds, filtered alike, and the Engine's ends of the swarm's networks are hidden", async () => {
  const web = await create(overlay("web", { Labels: { tier: "front", x: "" } }));
  await create(overlay("backend"));
  networks.push({ Id: "e-web", Name: "web", Driver: "shoal", Labels: { [engineNetworkLabel]: web } });
  networks.push({ Id: "e-lan", Name: "lan", Driver: "bridge" });
  assert.deepEqual(await list(), ["host", "lan", "web", "backend"]);
  networks = [];
  const cases: [Record<string, string[]>, string[]][] = [
    [{ name: ["web"] }, ["web"]],
    [{ name: ["e"] }, ["web", "backend"]],
    [{ name: ["^back"] }, ["backend"]],
    [{ name: ["^back$"] }, []],
    [{ name: ["(a+)+$"] }, []],
    [{ name: ["["] }, []],
    [{ id: [web.slice(0, 10)] }, ["web"]],
    [{ driver: ["overlay"] }, ["web", "backend"]],
    [{ driver: ["bridge"] }, []],
    [{ scope: ["swarm"] }, ["web", "backend"]],
    [{ scope: ["local"] }, []],
    [{ type: ["custom"] }, ["web", "backend"]],
    [{ type: ["builtin"] }, []],
    [{ label: ["tier=front"] }, ["web"]],
    [{ label: ["tier=back"] }, []],
    [{ label: ["x", "tier"] }, ["web"]],
    [{ dangling: ["true"] }, ["web", "backend"]],
  ];
  for (const [filters, names] of cases) assert.deepEqual(await list(filters), names, JSON.stringify(filters));
  await service("api", { TaskTemplate: { Networks: [{ Target: "web" }] } });
  assert.deepEqual(await list({ dangling: ["true"] }), ["backend"]);
  assert.deepEqual(await list({ dangling: ["false"] }), ["web"]);
  assert.deepEqual(await refusal("GET", `/networks?filters=${encodeURIComponent('{"name":["bad"]}')}`), [
    400,
    "bad filter",
  ]);
});

test("inspect finds names and ids of both kinds, and this node's containers; what means two is ambiguous", async () => {
  const web = await create(overlay("web"));
  const end = { Id: "e-web", Name: "web", Driver: "shoal", Labels: { [engineNetworkLabel]: web } };
  networks.push({ ...end, Containers: { c1: { Name: "api.1", IPv4Address: "10.0.0.5/24" } } });
  for (const text of ["web", web, web.slice(0, 9), "e-web", "web?scope=swarm"]) {
    const found = await inspect(text);
    assert.equal(found.Id, web, text);
    assert.deepEqual(found.Containers, { c1: { Name: "api.1", IPv4Address: "10.0.0.5/24" } });
  }
  assert.deepEqual(await refusal("GET", "/networks/web?scope=local"), [404, "network web not found"]);
  networks = [{ Id: "e-mine", Name: "web", Driver: "bridge" }];
  assert.deepEqual(await refusal("GET", "/networks/web"), [400, "network web is ambiguous (2 matches found on name)"]);
  assert.equal((await inspect("e-mine")).Id, "e-mine");
  assert.equal((await inspect(web)).Id, web);
});

test("an end that has outlived its network is not taken for another one of the same name", async () => {
  networks.push({ Id: "e-old", Name: "web", Driver: "shoal", Labels: { [engineNetworkLabel]: "gone" } });
  assert.equal((await fixture.call("GET", "/networks/e-old")).status, 200);
  const id = await create(overlay("web"));
  assert.equal((await inspect("web")).Id, id);
  assert.notEqual((await inspect("web")).IPAM.Config, null);
});

test("verbose: services with their tasks, and the nodes that take part", async () => {
  const web = await create(overlay("web"));
  const id = await service("api", { TaskTemplate: { Networks: [{ Target: "web" }] } });
  await store().update((tx) => {
    const DataPath = { address: "192.0.2.9" };
    tx.create("nodes", {
      ID: "n2",
      Spec: {},
      Status: { State: "ready" },
      Role: "worker",
      Description: { Hostname: "two" },
      DataPath,
    });
    const made = tx.service(id)!;
    tx.put("services", { ...made, Endpoint: { Spec: {}, VirtualIPs: [{ NetworkID: web, Addr: "10.0.0.2/24" }] } });
    tx.create("tasks", {
      ID: "t1",
      ServiceID: id,
      Slot: 1,
      NodeID: "n2",
      SpecVersion: { Index: 1 },
      Status: { State: "running", Timestamp: tx.now },
      DesiredState: "running",
      Addresses: [{ NetworkID: web, Address: "10.0.0.3/24" }],
    });
  });
  const plain = await inspect("web");
  assert.equal(plain.Services, undefined);
  assert.deepEqual(plain.Peers, [{ Name: "two", IP: "192.0.2.9" }]);
  assert.deepEqual(plain.Status.IPAM.Subnets["10.0.0.0/24"], { IPsInUse: 5, DynamicIPsAvailable: 251 });
  assert.deepEqual((await inspect("web?verbose=true")).Services, {
    api: {
      VIP: "10.0.0.2",
      Ports: [],
      LocalLBIndex: 0,
      Tasks: [{ Name: "api.1.t1", EndpointID: "t1", EndpointIP: "10.0.0.3", Info: { "Host IP": "192.0.2.9" } }],
    },
  });
});

test("a network in use stays; one whose tasks are on their way out goes for users at once", async () => {
  const web = await create(overlay("web", subnet("10.5.0.0/24")));
  const grpc = "rpc error: code = FailedPrecondition desc = ";
  const id = await service("api", { TaskTemplate: { Networks: [{ Target: "web" }] } });
  assert.deepEqual(await refusal("DELETE", "/networks/web"), [400, `${grpc}network ${web} is in use by service ${id}`]);
  const task = {
    ID: "t1",
    ServiceID: id,
    Slot: 1,
    NodeID: "n2",
    SpecVersion: { Index: 1 },
    Status: { State: "running", Timestamp: "2026-01-01T00:00:00Z" },
    DesiredState: "running",
    Addresses: [{ NetworkID: web, Address: "10.5.0.3/24" }],
  } as const;
  await store().update((tx) => tx.create("tasks", task));
  await fixture.call("DELETE", "/services/api");
  assert.equal((await fixture.call("DELETE", "/networks/web")).status, 204);
  assert.deepEqual(await list(), ["host"]);
  for (const text of ["web", web, `${web}?scope=swarm`]) {
    assert.equal((await fixture.call("GET", `/networks/${text}`)).status, 404, text);
  }
  assert.equal(
    (await fixture.call("DELETE", `/networks/${web}`)).status,
    200,
    "the Engine's to say that there is none",
  );
  assert.equal(store().view.network(web)?.Removed, true, "its tasks still have it");
  const again = await create(overlay("web", subnet("10.5.0.0/24")));
  assert.notEqual(again, web);
  assert.equal((await inspect("web")).Id, again);

  await store().update((tx) => {
    const { ServiceID: _, Addresses: __, ...rest } = task;
    const Attachment = { NetworkID: again, ContainerID: "c1", Aliases: [] };
    tx.create("tasks", { ...rest, ID: "a1", ServiceID: "", Status: { ...task.Status, State: "new" }, Attachment });
  });
  assert.deepEqual(await refusal("DELETE", "/networks/web"), [400, `${grpc}network ${again} is in use by task a1`]);
  const host = (await inspect("host?scope=swarm")).Id;
  assert.deepEqual(await refusal("DELETE", `/networks/${host}`), [
    400,
    `${grpc}Pre-defined network host (${host}) cannot be removed`,
  ]);
});

test("the ingress network goes when no service needs it, and services that need it can't be made without it", async () => {
  const ports = { EndpointSpec: { Ports: [{ TargetPort: 80, PublishedPort: 8080 }] } };
  const body = { Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1" } }, ...ports };
  const grpc = "rpc error: code = FailedPrecondition desc = ";
  const none = [400, `${grpc}service needs ingress network, but no ingress network is present`];
  assert.deepEqual(await refusal("POST", "/services/create", body), none);
  const mesh = await create(overlay("mesh", { Ingress: true, ...subnet("10.44.0.0/16") }));
  const id = await service("web", ports as ServiceSpec);
  const depends = `${grpc}ingress network cannot be removed because service ${id} depends on it`;
  assert.deepEqual(await refusal("DELETE", "/networks/mesh"), [400, depends]);
  const { Version, Spec } = (await fixture.call("GET", "/services/web")).json<{
    Version: { Index: number };
    Spec: ServiceSpec;
  }>();
  const { EndpointSpec: _, ...bare } = Spec;
  assert.equal((await fixture.call("POST", `/services/${id}/update?version=${Version.Index}`, bare)).status, 200);
  assert.equal((await fixture.call("DELETE", `/networks/${mesh}`)).status, 204);
  const { Version: next } = (await fixture.call("GET", "/services/web")).json<{ Version: { Index: number } }>();
  assert.deepEqual(await refusal("POST", `/services/${id}/update?version=${next.Index}`, Spec), none);
  assert.deepEqual(await refusal("POST", `/services/${id}/update?version=${next.Index}&rollback=previous`, bare), none);
});

test("prune takes what nobody uses, of the swarm too, but neither the ingress network nor the Engine's ends", async () => {
  await create(overlay("used"));
  await create(overlay("free", { Labels: { keep: "no" } }));
  await create(overlay("other", { Labels: { keep: "yes" } }));
  await create(overlay("mesh", { Ingress: true }));
  await service("api", { TaskTemplate: { Networks: [{ Target: "used" }] } });
  const prune = async (filters?: object) => {
    const query = filters ? `?filters=${encodeURIComponent(JSON.stringify(filters))}` : "";
    const answer = await fixture.call("POST", `/v1.41/networks/prune${query}`);
    return answer.json<{ NetworksDeleted: string[] }>().NetworksDeleted;
  };
  assert.deepEqual(await prune({ until: ["10m"] }), ["theirs"], "all are younger");
  assert.deepEqual(asked, [
    {
      what: 'POST /v1.41/networks/prune?filters={"until":{"10m":true},"label!":{"shoal.network":true}}',
      body: "",
    },
  ]);
  assert.deepEqual(await prune({ label: ["keep=no"] }), ["theirs", "free"]);
  // The Engine takes what has not all of these labels, so it is not asked to prune what must not have one of two.
  const created = "2020-01-01T00:00:00Z";
  networks.push(
    { Id: "e-end", Name: "used", Created: created, Labels: { [engineNetworkLabel]: "some-id" } },
    { Id: "e-kept", Name: "kept", Created: created, Labels: { keep: "yes" } },
    { Id: "e-plain", Name: "plain", Created: created },
  );
  asked = [];
  assert.deepEqual(await prune({ "label!": ["keep=yes"] }), ["plain"]);
  assert.deepEqual(asked, [
    {
      what: 'POST /v1.41/networks/prune?filters={"label!":{"keep=yes":true},"label":{"shoal.network=nobody":true}}',
      body: "",
    },
    { what: "DELETE /networks/e-plain", body: "" },
  ]);
  networks.splice(1);
  assert.deepEqual(await prune(), ["theirs", "other"]);
  assert.deepEqual(await list(), ["host", "used", "mesh"]);
});

test("times of the until filter", () => {
  const now = 1_000_000_000_000;
  assert.equal(timeOf("1h30m", now), now - 5_400_000);
  assert.equal(timeOf("1.5s", now), now - 1500);
  assert.equal(timeOf("1136073845.5", now), 1_136_073_845_500);
  assert.equal(timeOf("2006-01-02T15:04:05Z", now), 1_136_214_245_000);
  assert.equal(timeOf("2006-01-02T15:04:05", now), 1_136_214_245_000);
  assert.equal(timeOf("2006-01-02", now), 1_136_160_000_000);
  assert.equal(timeOf("soon", now), -Infinity);
});

test("a worker shows the Engine's ends as what they stand for, and can change nothing", async () => {
  fixture.node.active = undefined;
  networks.push({ Id: "e-web", Name: "web", Driver: "shoal", Labels: { [engineNetworkLabel]: "n1" } });
  assert.deepEqual(await list(), ["host", "web"]);
  assert.deepEqual(await list({ driver: ["bridge"] }), ["host"]);
  for (const text of ["web", "web?scope=swarm", "e-web", "n1?scope=swarm"]) {
    const { Name, Id, Driver, Scope } = await inspect(text);
    assert.deepEqual([Name, Id, Driver, Scope], ["web", "n1", "overlay", "swarm"], text);
  }
  for (const [method, path, body] of [
    ["DELETE", "/networks/web", undefined],
    ["POST", "/networks/create", overlay("n")],
    ["GET", "/networks/other?scope=swarm", undefined],
  ] as const) {
    const [status, message] = await refusal(method, path, body);
    assert.equal(status, 503);
    assert.match(message, /^This node is not a swarm manager/);
  }
});
