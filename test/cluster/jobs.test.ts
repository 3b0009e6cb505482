/**
 * Jobs on real nodes: the docker CLI waits for their end and sees it, they are run again by an update, a node that joins
 * later gets its part, failures are shown with their reasons, and the loss of a node costs nothing but time. The steps
 * build on each other.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { TaskStatusView } from "./api.ts";
import { Cluster } from "./cluster.ts";
import { type Docker, image } from "./harness.ts";

const cluster = new Cluster("jobs", "10.118.0");
let docker: Docker;

before(async () => {
  await cluster.start(3);
  docker = cluster.docker(1);
  await docker.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  await join(2);
});

after(() => cluster.stop());

async function join(index: number): Promise<void> {
  await cluster.docker(index).ok(["swarm", "join", "--token", await cluster.token("worker"), cluster.managerAddress()]);
  await cluster.nodeBecomes(index, "ready");
}

/** The CLI's REPLICAS column. */
function replicas(name: string): Promise<string> {
  return docker.ok(["service", "ls", "--filter", `name=${name}`, "--format", "{{.Mode}} {{.Replicas}}"]);
}

interface JobTask extends TaskStatusView {
  readonly JobIteration: { readonly Index?: number };
}

async function tasks(name: string): Promise<JobTask[]> {
  return (await cluster.api(1).tasks(name)) as JobTask[];
}

async function completed(name: string, iteration = 0): Promise<JobTask[]> {
  return (await tasks(name)).filter(
    ({ Status, JobIteration }) => Status.State === "complete" && (JobIteration.Index ?? 0) === iteration,
  );
}

const slots = (found: readonly JobTask[]) =>
  found
    .map(({ Slot = 0 }) => Slot)
    .sort((left, right) => left - right)
    .join();

test("the CLI waits for a replicated job, and ends with its success", async () => {
  const mode = ["--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2"];
  const said = await docker.ok(["service", "create", ...mode, "--name", "batch", image, "sh", "-c", "echo done"]);
  assert.match(said, /^active tasks: 2 out of 2 tasks$/m);
  assert.match(said, /job complete$/);
  assert.equal(await replicas("batch"), "replicated job 0/2 (3/3 completed)");
  assert.equal(slots(await completed("batch")), "0,1,2");
  const logs = await docker.lines(["service", "logs", "--raw", "batch"]);
  assert.deepEqual(logs, ["done", "done", "done"]);
});

test("an update runs it again, and so does a change of its size", async () => {
  assert.match(await docker.ok(["service", "update", "--force", "batch"]), /job complete$/);
  assert.equal(slots(await completed("batch", 1)), "0,1,2");
  assert.match(await docker.ok(["service", "scale", "batch=4"]), /job complete$/);
  assert.equal(slots(await completed("batch", 2)), "0,1,2,3");
  assert.equal(await replicas("batch"), "replicated job 0/2 (4/4 completed)");
});

test("a global job runs on each node, and on one that joins later", async () => {
  const said = await docker.ok(["service", "create", "--mode", "global-job", "--name", "each", image, "true"]);
  assert.match(said, /job complete$/);
  assert.equal(await replicas("each"), "global job 0/0 (2/2 completed)");
  await join(3);
  const { ID } = await cluster.node(3);
  await cluster.until("the third node has done its part", async () => (await completed("each")).length === 3);
  assert.ok((await completed("each")).some(({ NodeID }) => NodeID === ID));
  assert.equal(await replicas("each"), "global job 0/0 (3/3 completed)");
});

test("a failing job is tried as often as allowed, and says why", async () => {
  const policy = ["--restart-max-attempts", "2", "--restart-delay", "100ms"];
  const mode = ["--mode", "replicated-job", "--detach", "--quiet"];
  await docker.ok(["service", "create", ...mode, ...policy, "--name", "wrong", image, "sh", "-c", "exit 3"]);
  const failures = async () => (await tasks("wrong")).filter(({ Status }) => Status.State === "failed");
  await cluster.until("it has failed for good", async () => {
    const found = await failures();
    return found.length === 3 && found.every(({ DesiredState }) => DesiredState === "shutdown");
  });
  const lines = await docker.lines([
    "service",
    "ps",
    "--no-trunc",
    "--format",
    "{{.CurrentState}} {{.Error}}",
    "wrong",
  ]);
  assert.equal(lines.length, 3);
  for (const line of lines) assert.match(line, /^Failed .*"task: non-zero exit \(3\)"/);
  assert.equal(await replicas("wrong"), "replicated job 0/1 (0/1 completed)");
});

test("20 completions, 4 at a time: the loss of a node costs nothing but time", async () => {
  const mode = ["--mode", "replicated-job", "--replicas", "20", "--max-concurrent", "4", "--detach", "--quiet"];
  const work = ["sh", "-c", "sleep 1.5"];
  await docker.ok(["service", "create", ...mode, "--restart-delay", "60s", "--name", "long", image, ...work]);
  const lost = (await cluster.node(3)).ID;
  const atWork = async () => {
    const found = (await tasks("long")).filter(
      ({ DesiredState, Status }) => DesiredState === "complete" && !["complete", "failed"].includes(Status.State),
    );
    assert.ok(found.length <= 4, `${found.length} tasks at a time`);
    return found;
  };
  await cluster.until("the third node is at work, and some have completed", async () => {
    const busy = await atWork();
    return (await completed("long")).length >= 4 && busy.some(({ NodeID }) => NodeID === lost);
  });
  await cluster.playground.kill("node-3");
  await cluster.until("all have completed", async () => {
    await atWork();
    return (await completed("long")).length >= 20;
  });
  assert.equal(slots(await completed("long")), Array.from({ length: 20 }, (_, slot) => slot).join());
  assert.equal(await replicas("long"), "replicated job 0/4 (20/20 completed)");
  const all = await tasks("long");
  const unfinished = all.filter(({ Status }) => Status.State !== "complete");
  assert.ok(unfinished.length > 0, "the node was lost with work unfinished");
  assert.ok(unfinished.every(({ NodeID, DesiredState }) => NodeID === lost && DesiredState === "shutdown"));
  assert.equal(all.length, 20 + unfinished.length, "nothing was run for which there was no need");
  // An Engine's list is a moment behind its events.
  await cluster.until("no container is left", async () => (await cluster.containers("long")).length === 0);
});
