/** The playground itself: it comes up, keeps what is there, loses power, is cut off, and goes without a trace. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { exchange, exchangeJson } from "../../src/playground/http.ts";
import type { NodeLayout } from "../../src/playground/layout.ts";
import { run } from "../../src/playground/process.ts";
import { askSample, ensureSampleImage, ensureSampleStack, sampleService } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { Docker, dockerPrograms, freshNode, image, settleMs, testPlayground } from "./harness.ts";

const playground = testPlayground();
const node = playground.layout.node(1);
const machine = () => playground.machine("node-1");

before(async () => {
  await freshNode(playground);
});

after(async () => {
  await playground.down();
});

function sampleAnswers(): Promise<boolean> {
  const limitMs = settleMs;
  return eventually({ what: "the sample answers", limitMs }, async () => (await askSample(node)).status === 200);
}

test("its node is listed with all that scripts need", async () => {
  assert.deepEqual(await playground.list(), [
    {
      name: "node-1",
      address: "10.78.0.1",
      role: "manager",
      state: "up",
      status: "none",
      namespace: "shoal-test-node-1",
      socket: "/run/shoal/test/node-1/shoal.sock",
      engineSocket: "/run/shoal/test/node-1/engine.sock",
    },
  ]);
});

test("the sample stack answers from outside, and a second up changes nothing", async () => {
  await playground.formSwarm();
  await ensureSampleStack([node]);
  const before = [machine().find("machine"), machine().find("engine"), machine().find("daemon")];
  await playground.up({ nodes: 1, managers: 1 });
  await playground.formSwarm();
  await ensureSampleStack([node]);
  assert.deepEqual([machine().find("machine"), machine().find("engine"), machine().find("daemon")], before);
});

test("a node that is cut off does not answer, and does again when healed", async () => {
  await playground.partition("node-1");
  assert.equal((await playground.list())[0]?.state, "partitioned");
  await assert.rejects(askSample(node), { code: "Unavailable" });
  assert.equal((await exchange({ to: { socket: node.socket }, path: "/_ping" })).status, 200);
  await playground.heal("node-1");
  assert.equal((await playground.list())[0]?.state, "up");
  await sampleAnswers();
});

test("a node that lost its power comes back with its services", async () => {
  await playground.kill("node-1");
  assert.equal((await playground.list())[0]?.state, "down");
  assert.equal(await run("ip", ["netns", "pids", node.namespace]), "");
  await playground.start("node-1");
  assert.equal((await playground.list())[0]?.state, "up");
  await sampleAnswers();
});

test("nodes that it has not, or cannot have, are refused", async () => {
  await assert.rejects(playground.up({ nodes: 0, managers: 0 }), { code: "InvalidArgument" });
  await assert.rejects(playground.up({ nodes: 1, managers: 2 }), { code: "InvalidArgument" });
  await assert.rejects(playground.kill("node-2"), { code: "NotFound" });
  await assert.rejects(playground.kill("elsewhere"), { code: "InvalidArgument" });
});

test("more nodes join the one that is there, in parallel; the sample's port answers on all of them, whoever runs it", async () => {
  await playground.up({ nodes: 3, managers: 1 });
  await playground.formSwarm();
  assert.deepEqual(
    (await playground.list()).map(({ name, role, state, status }) => `${name} ${role} ${state} ${status}`),
    ["node-1 manager up ready", "node-2 worker up ready", "node-3 worker up ready"],
  );
  const nodes = [1, 2, 3].map((index) => playground.layout.node(index));
  await Promise.all(nodes.map(({ engineSocket }) => ensureSampleImage(engineSocket)));
  await ensureSampleStack(nodes); // is there, and stays
  // Made for one node, so it has one replica; the nodes that have just joined hear of the port in a moment.
  await eventually({ what: "the replica answers, on every node", limitMs: settleMs }, async () => {
    return (await whoAnswers(nodes)).join() === "1,1,1";
  });
  const to = { socket: node.socket };
  await exchangeJson({ to, method: "DELETE", path: `/services/${sampleService}` });
  await eventually({ what: "the sample is gone", limitMs: settleMs }, async () => {
    return (await exchangeJson<object[]>({ to, path: "/tasks" })).length === 0;
  });
  await ensureSampleStack(nodes);
  await eventually({ what: "both replicas answer, on every node", limitMs: settleMs }, async () => {
    return (await whoAnswers(nodes)).join() === "2,2,2";
  });
  const docker = new Docker((await dockerPrograms())[0]!.program, node);
  assert.deepEqual(await docker.lines(["stack", "ls", "--format", "{{.Name}} {{.Services}}"]), ["hello 1"]);
  assert.match(await docker.ok(["stack", "services", "hello"]), /hello_web +replicated +2\/2 .*\*:8080->80\/tcp/);
  const client = ["run", "--rm", "--network", "hello_default", image, "wget", "-q", "-O", "-", "http://web/"];
  assert.match(await docker.ok(client), /Hello from a service on Shoal/);
  await docker.ok(["stack", "rm", "hello"]);
});

/** How many tasks answer on each node's port; every one of them must see the client's own address. */
async function whoAnswers(nodes: readonly NodeLayout[]): Promise<number[]> {
  const outside = playground.layout.machineAddress;
  return Promise.all(
    nodes.map(async (one) => {
      const answers = new Set<string>();
      for (let asked = 0; asked < 4; asked++) {
        const { status, text } = await askSample(one, "/cgi-bin/whoami");
        assert.equal(status, 200, one.name);
        assert.match(text, new RegExp(`^\\S+ answers ${outside}\\s*$`));
        answers.add(text);
      }
      return answers.size;
    }),
  );
}

test("down leaves nothing, and may be repeated", async () => {
  const target = machine().find("machine");
  assert.ok(target);
  await playground.down();
  assert.deepEqual(await playground.list(), []);
  assert.equal(existsSync(`/proc/${target.pid}`), false);
  for (const path of ["/run/netns/shoal-test-node-1", "/run/netns/shoal-test-switch", "/sys/class/net/shoal-test0"]) {
    assert.equal(existsSync(path), false, path);
  }
  for (const path of ["/run/shoal/test", "/var/lib/shoal/test"]) assert.equal(existsSync(path), false, path);
  await playground.down();
});
