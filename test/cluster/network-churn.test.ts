/**
 * Services come, are scaled and updated, and go, on three networks and three nodes, again and again: afterwards the
 * nodes have nothing left of them, and every node's kernel is as the managers have it. SHOAL_CHURN_ROUNDS is the number
 * of rounds (default 8; 500 take two hours).
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "../../src/playground/process.ts";
import { Cluster } from "./cluster.ts";
import { image } from "./harness.ts";

const cluster = new Cluster("churn", "10.99.0");
const nodes = [1, 2, 3];
const rounds = Number(process.env.SHOAL_CHURN_ROUNDS ?? 8);
const shoal = fileURLToPath(new URL("../../bin/shoal", import.meta.url));
const networks = ["one", "two", "three"];
/** Each is on one or two of the networks; some publish a port. */
const services = [
  { name: "alpha", on: ["one"], more: ["--publish", "8101:80"] },
  { name: "beta", on: ["one", "two"], more: [] },
  { name: "gamma", on: ["two"], more: ["--publish", "8102:80/udp", "--publish", "80"] },
  { name: "delta", on: ["three"], more: ["--endpoint-mode", "dnsrr"] },
  { name: "epsilon", on: ["three", "one"], more: ["--mode", "global"] },
] as const;

before(async () => {
  await cluster.start(3, 1);
  await cluster.playground.formSwarm();
  for (const name of networks) await cluster.docker(1).ok(["network", "create", "--driver", "overlay", name]);
});

after(() => cluster.stop());

/** What the node's kernel has that services leave there when something goes wrong. */
async function kernelOf(index: number): Promise<string[]> {
  const pid = String(cluster.playground.machine(`node-${index}`).find("machine")?.pid);
  const inside = ["--target", pid, "--mount", "--net"];
  const script = `
    ip -brief link | awk '{ print "link", $1 }' | grep -v -E 'link (lo|eth0)'
    for space in $(ls /run/netns); do
      echo namespace $space
      ip -n $space -brief link | awk -v space=$space '{ print "link", space, $1 }'
      ip -n $space neigh show nud permanent | awk -v space=$space '{ print "neighbour", space, $1 }'
      nsenter --net=/run/netns/$space nft list ruleset | grep -c . | sed "s/^/rules $space /"
    done`;
  const listed = await run("nsenter", [...inside, "sh", "-c", script]);
  return listed.trim().split("\n").sort();
}

async function audit(index: number): Promise<string> {
  const host = `unix://${cluster.layout(index).socket}`;
  return await run("sh", ["-c", '"$1" doctor --audit --host "$2" || true', "sh", shoal, host]);
}

/** All nodes agree with the managers; what is under way may take a moment. */
async function agree(when: string): Promise<void> {
  for (const index of nodes) {
    let said = "";
    await cluster.until(
      `node-${index} has no difference ${when}`,
      async () => {
        said = await audit(index);
        return said.trim() === "0 differences";
      },
      { details: () => said },
    );
  }
}

async function removed(): Promise<void> {
  await cluster.docker(1).ok(["service", "rm", ...services.map(({ name }) => name)]);
  await cluster.until("all containers are gone", async () => {
    for (const index of nodes) if ((await cluster.engine(index).containers()).length > 0) return false;
    return true;
  });
}

test(`after ${rounds} rounds of create, scale, update and remove nothing is left`, async (t) => {
  await agree("at the start");
  let clean: string[][] | undefined;
  const startedAt = performance.now();
  for (let round = 1; round <= rounds; round++) {
    const create = ["service", "create", "--detach", "--quiet", "--stop-grace-period", "1s"];
    for (const { name, on, more } of services) {
      const attach = on.flatMap((network) => ["--network", network]);
      await cluster.docker(1).ok([...create, "--name", name, ...attach, ...more, image]);
    }
    // Not always until all is settled: what is half done must be taken back too.
    if (round % 3 === 1)
      for (const { name, more } of services) await cluster.running(name, more.includes("global" as never) ? 3 : 1);
    await cluster.docker(1).ok(["service", "scale", "--detach", "alpha=4", "beta=3", "delta=2"]);
    if (round % 2 === 0) await cluster.running("alpha", 4);
    if (round === 1) await agree("while services run");
    await cluster.docker(1).ok(["service", "update", "--detach", "--quiet", "--force", "beta"]);
    await cluster.docker(1).ok(["service", "update", "--detach", "--quiet", "--network-add", "three", "gamma"]);
    await cluster.docker(1).ok(["service", "update", "--detach", "--quiet", "--publish-rm", "80", "alpha"]);
    await removed();
    if (!clean) {
      await agree("after the first round");
      clean = await Promise.all(nodes.map(kernelOf));
    }
  }
  t.diagnostic(`${rounds} rounds took ${Math.round((performance.now() - startedAt) / 1000)} s`);
  await agree("at the end");
  await cluster.until("every kernel is as after the first round", async () => {
    assert.deepEqual(await Promise.all(nodes.map(kernelOf)), clean);
    return true;
  });
  await cluster.docker(1).ok(["network", "rm", ...networks]);
  await agree("without networks");
});
