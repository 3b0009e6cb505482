import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../../lib/errors.ts";
import { answer, type EndpointRequest, type Endpoints, type PortRequest } from "./requests.ts";

/** Keeps what it is asked. */
class FakeEndpoints implements Endpoints {
  readonly created: EndpointRequest[] = [];
  readonly asked: string[] = [];
  gateway: string | undefined;

  async create(request: EndpointRequest): Promise<void> {
    this.created.push(request);
  }
  async join(endpointId: string) {
    if (endpointId !== "e1") throw new ShoalError("NotFound", `there is no endpoint ${endpointId}`);
    return { interfaceName: "vc1", ...(this.gateway ? { gateway: this.gateway } : {}) };
  }
  async leave(endpointId: string): Promise<void> {
    this.asked.push(`leave ${endpointId}`);
  }
  async remove(endpointId: string): Promise<void> {
    this.asked.push(`remove ${endpointId}`);
  }
  async expose(endpointId: string, ports: readonly PortRequest[]): Promise<void> {
    this.asked.push(`expose ${endpointId} ${JSON.stringify(ports)}`);
  }
  activated(): void {
    this.asked.push("activated");
  }
}

const options = { "shoal.network": "n1", "shoal.task": "t1", "shoal.address": "10.0.1.5/24" };
const endpoint = { NetworkID: "engine's", EndpointID: "e1" };

function ask(endpoints: Endpoints, path: string, body: object | undefined): Promise<object> {
  return answer(path, body ? JSON.stringify(body) : "", endpoints);
}

test("the Engine asks what it is: a driver of this node's networks", async () => {
  const endpoints = new FakeEndpoints();
  assert.deepEqual(await ask(endpoints, "/Plugin.Activate", undefined), { Implements: ["NetworkDriver"] });
  assert.deepEqual(endpoints.asked, ["activated"]);
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.GetCapabilities", undefined), {
    Scope: "local",
    ConnectivityScope: "global",
  });
});

test("an endpoint gets the address that came with its container, and the hardware address that follows from it", async () => {
  const endpoints = new FakeEndpoints();
  const body = { ...endpoint, Interface: {}, Options: { ...options, "shoal.dns": "1.1.1.1,8.8.8.8", other: { a: 1 } } };
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.CreateEndpoint", body), {
    Interface: { Address: "10.0.1.5/24", MacAddress: "02:42:0a:00:01:05" },
  });
  assert.deepEqual(endpoints.created, [
    {
      endpointId: "e1",
      networkId: "n1",
      taskId: "t1",
      address: "10.0.1.5/24",
      nameservers: ["1.1.1.1", "8.8.8.8"],
      search: [],
    },
  ]);
});

test("what the request has is not answered again; a hardware address of the user's own is refused", async () => {
  const endpoints = new FakeEndpoints();
  const given = { Address: "10.0.1.5/24", MacAddress: "02:42:0a:00:01:05" };
  const body = (Interface: object) => ({ ...endpoint, Interface, Options: options });
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.CreateEndpoint", body(given)), { Interface: {} });
  const own = { MacAddress: "02:42:00:00:00:01" };
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.CreateEndpoint", body(own)), {
    Err: "hardware addresses on a network of the swarm can't be chosen",
  });
});

test("a container that did not come by the swarm is told so", async () => {
  const { Err } = (await ask(new FakeEndpoints(), "/NetworkDriver.CreateEndpoint", endpoint)) as { Err: string };
  assert.match(Err, /gets its address from the swarm: run it through Shoal's socket/);
});

test("join: the cable's end; a gateway only where the network is the way out", async () => {
  const endpoints = new FakeEndpoints();
  const InterfaceName = { SrcName: "vc1", DstPrefix: "eth" };
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.Join", endpoint), { InterfaceName });
  endpoints.gateway = "10.0.0.2";
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.Join", endpoint), { InterfaceName, Gateway: "10.0.0.2" });
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.Join", { EndpointID: "e2" }), {
    Err: "there is no endpoint e2",
  });
});

test("ports of the node: as the Engine maps them, and none when they are revoked", async () => {
  const endpoints = new FakeEndpoints();
  const portmap = [
    { Proto: 6, Port: 80, HostPort: 9090, HostPortEnd: 9090 },
    { Proto: 17, Port: 53, HostPort: 5353, HostPortEnd: 5353 },
  ];
  const body = { ...endpoint, Options: { "com.docker.network.portmap": portmap } };
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.ProgramExternalConnectivity", body), {});
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.RevokeExternalConnectivity", endpoint), {});
  assert.deepEqual(endpoints.asked, [
    'expose e1 [{"protocol":"tcp","hostPort":9090,"port":80},{"protocol":"udp","hostPort":5353,"port":53}]',
    "expose e1 []",
  ]);
  const unnamed = { ...endpoint, Options: { "com.docker.network.portmap": [{ Proto: 6, Port: 80, HostPort: 0 }] } };
  const { Err } = (await ask(endpoints, "/NetworkDriver.ProgramExternalConnectivity", unnamed)) as { Err: string };
  assert.match(Err, /port 80 needs a published port of its own/);
});

test("the rest: leaving, and what means nothing here", async () => {
  const endpoints = new FakeEndpoints();
  for (const path of ["Leave", "DeleteEndpoint"]) await ask(endpoints, `/NetworkDriver.${path}`, endpoint);
  assert.deepEqual(endpoints.asked, ["leave e1", "remove e1"]);
  for (const path of ["CreateNetwork", "DeleteNetwork", "DiscoverNew", "DiscoverDelete"]) {
    assert.deepEqual(await ask(endpoints, `/NetworkDriver.${path}`, {}), {});
  }
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.EndpointOperInfo", endpoint), { Value: {} });
  assert.deepEqual(await ask(endpoints, "/NetworkDriver.Unheard", {}), {
    Err: "the driver knows no /NetworkDriver.Unheard",
  });
  assert.match(((await answer("/NetworkDriver.Join", "{", endpoints)) as { Err: string }).Err, /JSON/);
});
