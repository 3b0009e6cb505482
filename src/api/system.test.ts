import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import manifest from "../../package.json" with { type: "json" };
import type { SwarmInfo } from "../model/types.ts";
import { aNode, type Fixture, rootCertificate, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
beforeEach(async () => {
  await fixture?.close();
  fixture = await startFixture();
});
after(() => fixture.close());

test("/_ping has the Engine's headers, our version and the swarm's state", async () => {
  fixture.engine.prependListener("request", (_request, response) => response.setHeader("Builder-Version", "2"));
  const states = [
    ["inactive", false, "inactive"],
    ["pending", false, "pending"],
    ["active", true, "active/manager"],
    ["active", false, "active/worker"],
    ["error", false, "error"],
    ["locked", false, "locked"],
  ] as const;
  for (const [state, control, header] of states) {
    fixture.node.state = state;
    fixture.node.controlAvailable = control;
    for (const method of ["GET", "HEAD"]) {
      const { status, headers, text } = await fixture.call(method, "/_ping");
      assert.equal(status, 200);
      assert.equal(headers.swarm, header);
      assert.equal(headers["api-version"], "1.41");
      assert.equal(headers["builder-version"], "2");
      assert.equal(text, method === "GET" ? "OK" : "");
    }
  }
});

test("the API version is the lower of the Engine's and ours", async () => {
  const newer = await startFixture({ engineApiVersion: "1.54" });
  try {
    assert.equal((await newer.call("GET", "/_ping")).headers["api-version"], "1.51");
    newer.onEngine = (_request, response) => response.end('{"ApiVersion":"1.54","Components":[{"Name":"Engine"}]}');
    const { ApiVersion, Components } = (await newer.call("GET", "/version")).json<{
      ApiVersion: string;
      Components: { Name: string; Version?: string }[];
    }>();
    assert.equal(ApiVersion, "1.51");
    assert.deepEqual(
      Components.map(({ Name, Version }) => [Name, Version]),
      [
        ["Engine", undefined],
        ["Shoal", manifest.version],
      ],
    );
  } finally {
    await newer.close();
  }
});

type Info = { ID?: string; Swarm: SwarmInfo & { Warnings?: string[] }; Warnings?: string[] };

test("/info is the Engine's with our Swarm section", async () => {
  const paths: (string | undefined)[] = [];
  fixture.onEngine = (request, response) => {
    paths.push(request.url);
    response.end('{"ID":"engine","Swarm":{"LocalNodeState":"inactive","NodeID":"wrong"}}');
  };
  const before = (await fixture.call("GET", "/v1.41/info")).json<Info>();
  assert.deepEqual(before, {
    ID: "engine",
    Swarm: {
      NodeID: "",
      NodeAddr: "",
      LocalNodeState: "inactive",
      ControlAvailable: false,
      Error: "",
      RemoteManagers: null,
    },
  });
  assert.deepEqual(paths, ["/v1.41/info"]);

  const nodeId = await fixture.node.init({});
  const { Swarm } = (await fixture.call("GET", "/info")).json<Info>();
  assert.equal(Swarm.NodeID, nodeId);
  assert.equal(Swarm.Nodes, 1);
  assert.equal(Swarm.Managers, 1);
  assert.equal(Swarm.Warnings, undefined);
  assert.equal(Swarm.Cluster?.Spec?.Name, "default");
  assert.ok((Swarm.Cluster?.Version?.Index ?? 0) > 0);
  assert.deepEqual(Swarm.Cluster?.DefaultAddrPool, ["10.0.0.0/8"]);
  assert.equal(Swarm.Cluster?.TLSInfo?.TrustRoot, rootCertificate);
  assert.equal("JoinTokens" in (Swarm.Cluster ?? {}), false);

  await fixture.node.manager()?.store.update((tx) => tx.create("nodes", aNode("second")));
  const two = (await fixture.call("GET", "/info")).json<Info>();
  assert.equal(two.Swarm.Managers, 2);
  assert.match(two.Swarm.Warnings?.[0] ?? "", /^WARNING: Running Swarm in a two-manager configuration\./);
});

test("with the Engine down, /_ping and /info answer for the swarm, and /version says why not", async () => {
  await new Promise((resolve) => fixture.engine.close(resolve));
  const ping = await fixture.call("GET", "/_ping");
  assert.equal(ping.status, 200);
  assert.equal(ping.headers.swarm, "inactive");
  const info = await fixture.call("GET", "/info");
  assert.equal(info.status, 200);
  assert.equal(info.json<Info>().Swarm.LocalNodeState, "inactive");
  assert.match(info.json<Info>().Warnings?.[0] ?? "", /^WARNING: Cannot connect to the Docker Engine/);
  const version = await fixture.call("GET", "/version");
  assert.equal(version.status, 503);
  assert.match(version.json().message, /^Cannot connect to the Docker Engine/);
});

test("the Engine's refusal of /info is ours", async () => {
  fixture.onEngine = (_request, response) => {
    response.writeHead(400).end('{"message":"client version 1.30 is too old"}');
  };
  const answer = await fixture.call("GET", "/v1.30/info");
  assert.equal(answer.status, 400);
  assert.equal(answer.json().message, "client version 1.30 is too old");
});
