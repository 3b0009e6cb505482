import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Fixture, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
before(async () => {
  fixture = await startFixture();
  await fixture.node.init({});
  fixture.onEngine = async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    response.end(JSON.stringify({ engine: request.url, body }));
  };
});
after(() => fixture.close());

test("a predefined network is found in the swarm's scope, by name and by id", async () => {
  const byName = (await fixture.call("GET", "/v1.41/networks/host?scope=swarm")).json<Record<string, unknown>>();
  assert.equal(byName.Name, "host");
  assert.equal(byName.Scope, "swarm");
  assert.equal(byName.Driver, "host");
  assert.deepEqual(byName.Labels, { "com.docker.swarm.predefined": "true" });
  for (const query of ["", "?scope=swarm"]) {
    const byId = await fixture.call("GET", `/networks/${byName.Id}${query}`);
    assert.deepEqual(byId.json(), byName);
  }
  const missing = await fixture.call("GET", "/networks/other?scope=swarm");
  assert.deepEqual([missing.status, missing.json().message], [404, "network other not found"]);
});

test("without the scope a name is the Engine's network, and so are lists and changes", async () => {
  for (const path of ["/networks/host", "/networks/host?scope=local", "/networks"]) {
    assert.deepEqual((await fixture.call("GET", path)).json(), { engine: path, body: "" });
  }
  assert.deepEqual((await fixture.call("DELETE", "/networks/x")).json(), { engine: "/networks/x", body: "" });
});

test("a network of the swarm is refused in one sentence; any other is created by the Engine from the same bytes", async () => {
  const refused = { message: "networks of the swarm (driver overlay, or scope swarm) are not supported yet" };
  for (const body of [
    { Name: "n", Driver: "overlay" },
    { Name: "n", Driver: "macvlan", Scope: "swarm" },
    { Name: "n", Ingress: true },
    { name: "n", driver: "overlay" },
  ]) {
    const answer = await fixture.call("POST", "/networks/create", body);
    assert.deepEqual([answer.status, answer.json()], [501, refused]);
  }
  for (const body of ['{"Name":"n",  "Driver":"bridge"}', "{not json", "[]", "null"]) {
    const answer = await fixture.call("POST", "/networks/create", body);
    assert.deepEqual(answer.json(), { engine: "/networks/create", body });
  }
});
