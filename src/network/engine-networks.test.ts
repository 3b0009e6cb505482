import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../engine/fake-engine.ts";
import { silentLogger } from "../lib/log.ts";
import { EngineNetworks } from "./engine-networks.ts";
import { networkState } from "./network-fixture.ts";

const front = networkState("frontnetwork0000000000000", { name: "front", internal: true });

function start() {
  const engine = new FakeEngine();
  return { engine, networks: new EngineNetworks(engine, silentLogger) };
}

test("a network is made once, with the swarm's name, our driver and no address management", async () => {
  const { engine, networks } = start();
  assert.deepEqual(await Promise.all([networks.ensure(front), networks.ensure(front)]), ["front", "front"]);
  assert.equal(await networks.ensure(front), "front");
  assert.deepEqual(
    [...engine.networks.values()],
    [
      {
        Name: "front",
        CheckDuplicate: true,
        Driver: "shoal",
        Internal: true,
        IPAM: { Driver: "null" },
        Labels: { "shoal.network": front.id },
      },
    ],
  );
});

test("where the name is another network's, ours has its id behind it", async () => {
  const { engine, networks } = start();
  await engine.createNetwork({ Name: "front", Driver: "bridge" });
  assert.equal(await networks.ensure(front), "front-frontnetwork");
  // Two networks of the swarm may have one name, while the tasks of the removed one are still stopping.
  assert.equal(await networks.ensure({ ...front, id: "another00000" }), "front-another00000");
  assert.equal(await networks.ensure(front), "front-frontnetwork");
});

test("what is not needed goes, unless containers run on it; others' networks stay", async () => {
  const { engine, networks } = start();
  await engine.createNetwork({ Name: "mine", Driver: "bridge" });
  await networks.ensure(front);
  await networks.ensure({ ...front, id: "back", name: "back" });
  engine.images.add("bb:1");
  const EndpointsConfig = { front: {} };
  const id = await engine.createContainer("c", { Image: "bb:1", NetworkingConfig: { EndpointsConfig } });
  await engine.startContainer(id);
  assert.equal(await networks.removeAllBut(() => false), false);
  assert.deepEqual(
    [...engine.networks.values()].map(({ Name }) => Name),
    ["mine", "front"],
  );
  assert.deepEqual(await networks.audit(() => false), [
    "the Engine has a network front which the node takes no part in",
  ]);
  assert.deepEqual(await networks.audit((networkId) => networkId === front.id), []);
  engine.exit(id, 0);
  assert.equal(await networks.removeAllBut(() => false), true);
});
