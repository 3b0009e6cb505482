import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterEach, beforeEach, test } from "node:test";
import type { AttachmentRequest, ContainerAttachments } from "../agent/attachments.ts";
import { ShoalError } from "../lib/errors.ts";
import { attachedBody, networksAsked } from "./attach-body.ts";
import { type Fixture, startFixture } from "./http-fixture.test.ts";

class FakeAttachments implements ContainerAttachments {
  readonly asked: AttachmentRequest[] = [];
  readonly bound: string[] = [];
  readonly released: string[] = [];
  readonly looked: string[] = [];
  any = true;
  /** Names of the swarm's networks. */
  networks: readonly string[] = ["front", "back"];
  failure: Error | undefined;
  taken: string | undefined;

  async attach(request: AttachmentRequest) {
    if (this.failure) throw this.failure;
    if (!this.networks.includes(request.network)) throw new ShoalError("NotFound", "network not found");
    this.asked.push(request);
    const taskId = `task-${request.network}`;
    const network = { engineNetwork: request.network, driverOptions: { "shoal.task": taskId } };
    return { taskId, network, nameserver: `10.0.${this.asked.length}.1` };
  }
  async bind(taskId: string, containerId: string) {
    this.bound.push(`${taskId} ${containerId}`);
  }
  async release(taskId: string) {
    this.released.push(taskId);
  }
  async look(containerId: string) {
    this.looked.push(containerId);
  }
  taskOn() {
    return this.taken;
  }
}

let fixture: Fixture;
let attachments: FakeAttachments;
/** What the Engine was asked, but for questions about networks. */
let seen: { method: string; url: string; body: unknown }[];
/** The Engine's networks, by name. */
let engineNetworks: Record<string, { Name: string; Id: string; Labels: Record<string, string> }>;
let answer: { status: number; body: unknown };

beforeEach(async () => {
  fixture = await startFixture();
  attachments = new FakeAttachments();
  fixture.node.networks = attachments;
  seen = [];
  engineNetworks = {};
  answer = { status: 201, body: { Id: "c1", Warnings: [] } };
  fixture.onEngine = (request, response) => void engine(request, response);
});
afterEach(() => fixture.close());

async function engine(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  request.on("data", (chunk) => chunks.push(chunk));
  await once(request, "end");
  const { method = "", url = "" } = request;
  const text = Buffer.concat(chunks).toString();
  const send = (status: number, body: unknown) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
  const [, kind, name = ""] = url.split("/");
  if (method === "GET" && kind === "networks") {
    const found = Object.values(engineNetworks).find(({ Name, Id }) => Name === name || Id === name);
    return found ? send(200, found) : send(404, { message: `network ${name} not found` });
  }
  if (method === "GET" && kind?.startsWith("networks?")) {
    const label = /network=([^"]+)"/.exec(decodeURIComponent(url).split("filters")[1] ?? "")?.[1];
    return send(
      200,
      Object.values(engineNetworks).filter(({ Labels }) => Labels["shoal.network"] === label),
    );
  }
  if (method === "GET" && url.endsWith("/json")) {
    return name === "gone" ? send(404, { message: "No such container: gone" }) : send(200, { Id: "c1", Name: "/box" });
  }
  seen.push({ method, url, body: text.startsWith("{") ? JSON.parse(text) : undefined });
  send(answer.status, answer.body);
}

test("a create on a network of the swarm: its address, its name server, the rest as it came", async () => {
  const body = {
    Image: "bb",
    Labels: { a: "b" },
    HostConfig: { NetworkMode: "front", AutoRemove: true, Dns: ["192.0.2.9"], DnsSearch: ["example.org"] },
    NetworkingConfig: {
      EndpointsConfig: { front: { Aliases: ["db"], IPAMConfig: { IPv4Address: "10.0.1.9" }, MacAddress: "" } },
    },
  };
  const made = await fixture.call("POST", "/v1.41/containers/create?name=box", body);
  assert.equal(made.status, 201);
  assert.deepEqual(made.json(), { Id: "c1", Warnings: [] });
  assert.deepEqual(attachments.asked, [{ network: "front", address: "10.0.1.9", aliases: ["box", "db"] }]);
  assert.deepEqual(attachments.bound, ["task-front c1"]);
  assert.deepEqual(seen, [
    {
      method: "POST",
      url: "/v1.41/containers/create?name=box",
      body: {
        Image: "bb",
        Labels: { a: "b" },
        HostConfig: { NetworkMode: "front", AutoRemove: true, Dns: ["10.0.1.1"], DnsSearch: ["example.org"] },
        NetworkingConfig: {
          EndpointsConfig: {
            front: {
              Aliases: ["db"],
              MacAddress: "",
              DriverOpts: { "shoal.task": "task-front", "shoal.dns": "192.0.2.9", "shoal.search": "example.org" },
            },
          },
        },
      },
    },
  ]);
});

test("whatever is not about the swarm's networks reaches the Engine as it came", async () => {
  engineNetworks.mine = { Name: "mine", Id: "m1", Labels: {} };
  const modes = ["", "default", "bridge", "host", "none", "container:x", "mine", "nowhere"];
  for (const NetworkMode of modes) await fixture.call("POST", "/containers/create", { HostConfig: { NetworkMode } });
  await fixture.call("POST", "/containers/create", "no json");
  await fixture.call("POST", "/networks/mine/connect", { Container: "box" });
  fixture.node.networks = undefined;
  await fixture.call("POST", "/containers/create", { HostConfig: { NetworkMode: "front" } });
  await fixture.call("DELETE", "/containers/box?force=1");
  assert.deepEqual(attachments.asked, []);
  assert.deepEqual(
    seen.slice(0, modes.length).map(({ body }) => body),
    modes.map((NetworkMode) => ({ HostConfig: { NetworkMode } })),
  );
  assert.deepEqual(
    seen.slice(modes.length).map(({ method, url }) => `${method} ${url}`),
    [
      "POST /containers/create",
      "POST /networks/mine/connect",
      "POST /containers/create",
      "DELETE /containers/box?force=1",
    ],
  );
});

test("a create that the Engine refuses gives the address back", async () => {
  answer = { status: 409, body: { message: 'Conflict. The container name "/box" is already in use' } };
  const refused = await fixture.call("POST", "/containers/create?name=box", { HostConfig: { NetworkMode: "front" } });
  assert.equal(refused.status, 409);
  assert.match(refused.json().message, /already in use/);
  assert.deepEqual(attachments.released, ["task-front"]);
  assert.deepEqual(attachments.bound, []);
});

test("a network that is not attachable: Swarm's text and status; the first network's address goes back", async () => {
  engineNetworks.front = { Name: "front", Id: "e1", Labels: { "shoal.network": "netid" } };
  attachments.failure = new ShoalError("PermissionDenied", "network netid not manually attachable");
  const refused = await fixture.call("POST", "/containers/create", { HostConfig: { NetworkMode: "front" } });
  assert.equal(refused.status, 403);
  assert.equal(
    refused.json().message,
    "Could not attach to network front: rpc error: code = PermissionDenied desc = network front not manually attachable",
  );
  assert.deepEqual(seen, []);
  attachments.failure = undefined;
  const attach = attachments.attach.bind(attachments);
  attachments.attach = (request) => {
    if (request.network === "back") attachments.failure = new ShoalError("Unavailable", "no manager");
    return attach(request);
  };
  engineNetworks = {};
  const EndpointsConfig = { back: {} };
  const body = { HostConfig: { NetworkMode: "front" }, NetworkingConfig: { EndpointsConfig } };
  assert.equal((await fixture.call("POST", "/containers/create", body)).status, 503);
  assert.deepEqual(attachments.released, ["task-front"]);
});

test("connect: on the Engine's network, with the container's name; twice is refused", async () => {
  engineNetworks["front-netid"] = { Name: "front-netid", Id: "e1", Labels: { "shoal.network": "front" } };
  answer = { status: 200, body: undefined };
  const body = { Container: "box", EndpointConfig: { Aliases: ["db"] } };
  assert.equal((await fixture.call("POST", "/v1.41/networks/e1/connect", body)).status, 200);
  assert.deepEqual(attachments.asked, [{ network: "front", containerId: "c1", address: "", aliases: ["box", "db"] }]);
  assert.deepEqual(seen, [
    {
      method: "POST",
      url: "/v1.41/networks/front/connect",
      body: { Container: "box", EndpointConfig: { Aliases: ["db"], DriverOpts: { "shoal.task": "task-front" } } },
    },
  ]);
  assert.deepEqual(attachments.bound, ["task-front c1"]);
  attachments.taken = "task-front";
  const twice = await fixture.call("POST", "/networks/front-netid/connect", body);
  assert.equal(twice.status, 403);
  assert.equal(twice.json().message, "box is already attached to network front-netid");
  attachments.taken = undefined;
  answer = { status: 500, body: { message: "no" } };
  assert.equal((await fixture.call("POST", "/networks/front/connect", body)).status, 500);
  assert.deepEqual(attachments.released, ["task-front"]);
  const gone = await fixture.call("POST", "/networks/front/connect", { Container: "gone" });
  assert.equal(gone.status, 404);
  assert.equal(gone.json().message, "No such container: gone");
});

test("disconnect and removal are answered when the addresses are free", async () => {
  engineNetworks.front = { Name: "front", Id: "e1", Labels: { "shoal.network": "netid" } };
  answer = { status: 200, body: undefined };
  await fixture.call("POST", "/v1.41/networks/netid/disconnect", { Container: "box" });
  assert.deepEqual(attachments.looked, ["c1"]);
  answer = { status: 204, body: undefined };
  assert.equal((await fixture.call("DELETE", "/v1.41/containers/box?v=1&force=1")).status, 204);
  assert.deepEqual(attachments.looked, ["c1", "c1"]);
  assert.deepEqual(
    seen.map(({ method, url }) => `${method} ${url}`),
    ["POST /v1.41/networks/e1/disconnect", "DELETE /v1.41/containers/box?v=1&force=1"],
  );
});

test("several networks: the first is the container's own, each has its name server; a MAC address is refused", () => {
  const on = (name: string, nameserver: string) => ({
    taskId: name,
    network: { engineNetwork: name, driverOptions: { "shoal.task": name } },
    nameserver,
  });
  const body = {
    HostConfig: { NetworkMode: "front" },
    NetworkingConfig: { EndpointsConfig: { back: {}, front: null, bridge: {} } },
  };
  assert.deepEqual(networksAsked(body), ["front", "back"]);
  const attached = new Map([
    ["front", on("front", "10.0.1.1")],
    ["back", on("back", "10.0.2.1")],
  ]);
  assert.deepEqual(attachedBody(body, attached), {
    HostConfig: { NetworkMode: "front", Dns: ["10.0.1.1", "10.0.2.1"] },
    NetworkingConfig: {
      EndpointsConfig: {
        bridge: {},
        front: { DriverOpts: { "shoal.task": "front" } },
        back: { DriverOpts: { "shoal.task": "back" } },
      },
    },
  });
  const mac = { NetworkingConfig: { EndpointsConfig: { front: { MacAddress: "02:42:00:00:00:01" } } } };
  assert.throws(() => attachedBody(mac, attached), { code: "InvalidArgument" });
});
