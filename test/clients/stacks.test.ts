/**
 * Five stacks as people write them, of different kinds, each through its whole life on two nodes: deployed, in use,
 * deployed again unchanged, changed, rolled back and removed. Their compose files are in stacks/.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Stack } from "./stack.ts";

const nodes = 2;
const cluster = new Cluster("stacks", "10.124.2");

before(async () => {
  await cluster.start(nodes);
  await cluster.playground.formSwarm();
  for (let index = 1; index <= nodes; index++) {
    const labels = ["--label-add", "disk=fast", "--label-add", `rack=${index}`];
    await cluster.docker(1).ok(["node", "update", ...labels, `node-${index}`]);
  }
});

after(() => cluster.stop());

function stackOf(name: string): Stack {
  return new Stack(cluster, cluster.docker(1), nodes, name);
}

/** A page of a published port, by each node in turn; rejects where it isn't there. */
async function page(port: number, path = "/", node = 1): Promise<string> {
  const url = `http://${cluster.layout(node).address}:${port}${path}`;
  const answer = await fetch(url, { signal: AbortSignal.timeout(10_000), headers: { connection: "close" } });
  if (answer.status !== 200) throw new Error(`${url}: ${answer.status}`);
  return answer.text();
}

function pageBecomes(port: number, path: string, wanted: (text: string) => boolean): Promise<boolean> {
  let text = "";
  return cluster.until(
    `port ${port}${path} answers as it should`,
    async () => {
      text = await page(port, path);
      return wanted(text);
    },
    { details: () => text },
  );
}

/** Deployed once more from the same file: no container is another one, and no update has begun. */
async function staysAsItIs(stack: Stack, version: string): Promise<void> {
  const before = await stack.settled();
  const statuses = async () => (await stack.services()).map(({ UpdateStatus }) => UpdateStatus);
  const statusesBefore = await statuses();
  await stack.deploy(version);
  assert.deepEqual(await stack.settled(), before);
  assert.deepEqual(
    (await statuses()).filter((status) => status?.State === "updating"),
    [],
  );
  assert.equal((await statuses()).length, statusesBefore.length);
}

/** How many of the containers are others now. */
function exchanged(before: readonly string[], now: readonly string[]): number {
  return now.filter((id) => !before.includes(id)).length;
}

test("a shop: proxy, interface and database with secrets, configs and health checks", async () => {
  const stack = stackOf("shop");
  await stack.deploy("1", "--resolve-image", "never");
  await stack.settled();
  for (const node of [1, 2]) {
    assert.equal(await page(8100, "/", node), "<p>The shop, first edition</p>\n");
    assert.match(await page(8100, "/cgi-bin/stock", node), /^asked \d+ times$/m);
  }
  await staysAsItIs(stack, "1");

  const before = await stack.containers();
  await stack.deploy("2");
  const now = await stack.settled();
  assert.equal(exchanged(before, now), 2, "the proxies alone are others");
  assert.equal(await page(8100), "<p>The shop, second edition</p>\n");
  await stack.rollback("proxy");
  await stack.settled();
  assert.equal(await page(8100), "<p>The shop, first edition</p>\n");
  assert.match(await page(8100, "/cgi-bin/stock"), /^asked \d+ times$/m);
  await stack.remove();
});

test("monitoring: an agent on every node with a page from a template, and a collector", async () => {
  const stack = stackOf("monitor");
  const metrics = (edition: string) =>
    [1, 2].map((index) => `up{node="node-${index}",team="harbour",edition="${edition}"} 1\n`).join("");
  await stack.deploy("1");
  await stack.settled();
  await pageBecomes(8101, "/cgi-bin/metrics", (text) => text === metrics("1"));
  await staysAsItIs(stack, "1");

  const before = await stack.containers();
  await stack.deploy("2");
  assert.equal(exchanged(before, await stack.settled()), nodes, "the agents alone are others");
  await pageBecomes(8101, "/cgi-bin/metrics", (text) => text === metrics("2"));
  await stack.rollback("agent");
  await stack.settled();
  await pageBecomes(8101, "/cgi-bin/metrics", (text) => text === metrics("1"));
  await stack.remove();
});

test("a queue: jobs that put messages in, and workers that take them", async () => {
  const stack = stackOf("queue");
  /** Each message once: one of each node, and five of the job that runs five times. */
  const finished = (edition: string) => (text: string) => {
    const done = [...text.matchAll(/^(node-\d|seed)(?:-[0-9a-z]{25})?-of-(\d)-by-\d$/gm)];
    const senders = done.filter(([, , of]) => of === edition).map(([, sender]) => sender);
    return senders.sort().join() === "node-1,node-2,seed,seed,seed,seed,seed";
  };
  await stack.deploy("1");
  await stack.settled();
  await pageBecomes(8102, "/cgi-bin/done", finished("1"));
  const [seed] = (
    await cluster.docker(1).lines(["stack", "services", "--format", "{{.Name}} {{.Replicas}}", "queue"])
  ).filter((line) => line.startsWith("queue_seed"));
  assert.equal(seed, "queue_seed 0/5 (5/5 completed)");
  await staysAsItIs(stack, "1");
  const [once, again] = [await page(8102, "/cgi-bin/done"), await page(8102, "/cgi-bin/done")];
  assert.equal(once, again, "no job has run once more");

  const before = await stack.containers();
  await stack.deploy("2");
  assert.equal(exchanged(before, await stack.settled()), 3, "the workers alone are others");
  await pageBecomes(8102, "/cgi-bin/done", finished("2"));
  await stack.rollback("worker");
  await stack.settled();
  await page(8102, "/cgi-bin/put?last-of-2");
  await pageBecomes(8102, "/cgi-bin/done", (text) => text.includes("last-of-2-by-1"));
  await stack.remove();
});

test("a rolling web: replaced under use with no request lost, and back by itself when the new one is no good", async () => {
  const stack = stackOf("rolling");
  await stack.deploy("1");
  await stack.settled();
  await staysAsItIs(stack, "1");
  const failures: string[] = [];
  const editions: string[] = [];
  let isOver = false;
  const asking = (async () => {
    for (let node = 1; !isOver; node = (node % nodes) + 1) {
      await page(8103, "/edition", node).then(
        (text) => editions.push(text.trim()),
        (error: Error) => failures.push(`${error.message}: ${error.cause}`),
      );
    }
  })();
  try {
    await stack.deploy("2");
    await stack.settled();
    assert.equal((await page(8103, "/edition")).trim(), "2");
    const second = await stack.containers();

    await stack.deploy("broken");
    const { UpdateStatus: status } = await cluster.until("it has gone back by itself", async () => {
      const service = await stack.service("web");
      return service.UpdateStatus?.State === "rollback_completed" && service;
    });
    assert.match(status!.Message, /^rollback completed$/);
    assert.equal(exchanged(second, await stack.settled()), 0, "the old tasks have stayed");
    const pretty = await cluster.docker(1).ok(["service", "inspect", "--pretty", "rolling_web"]);
    assert.match(pretty, /^ State:\s+rollback_completed$/m);
    await stack.deploy("1");
    await stack.settled();
    await stack.rollback("web");
    await stack.settled();
  } finally {
    isOver = true;
    await asking;
  }
  assert.equal((await page(8103, "/edition")).trim(), "2");
  assert.deepEqual(failures, []);
  assert.deepEqual([...new Set(editions)].sort(), ["1", "2"]);
  await stack.remove();
});

test("a replicated store: placed by labels, with volumes, limits and a port of each node", async () => {
  const stack = stackOf("store");
  /** Of both nodes: the editions that their data has seen. */
  const editions = async () => {
    const seen: string[] = [];
    for (const node of [1, 2]) {
      const [host, data, files, backlog, replicas] = (await page(8104, "/cgi-bin/peers", node)).split("\n");
      assert.deepEqual([host, files, backlog, replicas], [`store-on-node-${node}`, "2000 4000", "1234", "2"]);
      seen.push(data!.trim());
    }
    return seen;
  };
  await stack.deploy("1");
  await stack.settled();
  assert.deepEqual(await editions(), ["1", "1"]);
  await staysAsItIs(stack, "1");
  await stack.deploy("2");
  await stack.settled();
  assert.deepEqual(await editions(), ["1 2", "1 2"], "each node's data has stayed with it");
  await stack.rollback("store");
  await stack.settled();
  assert.deepEqual(await editions(), ["1 2 1", "1 2 1"]);
  await stack.remove();
  for (const node of [1, 2]) {
    const volumes = await cluster.docker(node).engine.lines(["volume", "ls", "--quiet", "--filter", "label=of=store"]);
    assert.deepEqual(volumes, ["store_data"], "volumes are the user's to remove");
  }
});
