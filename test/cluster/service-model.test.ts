/**
 * What a service may ask of the nodes and of the swarm, on real ones: generic resources, mounts, health checks, logs
 * and events. The second node declares resources, the third is a stock Engine: what it gets is what swarmkit's protocol
 * carries. The last test cuts the second node's power.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { defaultMachineOptions } from "../../src/playground/machine.ts";
import { Playground } from "../../src/playground/playground.ts";
import { Cluster } from "./cluster.ts";
import { Docker, image } from "./harness.ts";

const cluster = new Cluster("model", "10.125.1");
let manager: Docker;
const stock = new Docker("/usr/bin/docker", cluster.layout(3), cluster.layout(3).engineSocket);
const quiet = ["--quiet", "--detach"];
/** A task that ends at once when it is told to. */
const idle = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];

before(async () => {
  await cluster.start(3);
  manager = cluster.docker(1);
  await cluster.playground.kill("node-3", "daemon");
  await cluster.playground.kill("node-3", "engine");
  const configuration = `${cluster.layout(3).dataDir}/etc-docker/daemon.json`;
  writeFileSync(configuration, JSON.stringify({ "node-generic-resources": ["GPU=s1"] }));
  await cluster.playground.machine("node-3").startEngine();
  // Before it is a member: a node that registers more than three times in eight seconds is refused for a while.
  await declare("GPU=a", "GPU=b", "SSD=3");
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  const token = await cluster.token("worker");
  const join = (index: number, docker: Docker) => {
    const own = ["--advertise-addr", cluster.layout(index).address];
    return docker.ok(["swarm", "join", ...own, "--token", token, cluster.managerAddress()]);
  };
  await join(2, cluster.docker(2));
  await join(3, stock);
  await cluster.nodeBecomes(3, "ready");
});

after(() => cluster.stop());

/** `docker service create` without waiting for it. */
async function create(
  name: string,
  options: readonly string[],
  { command = idle, from = image }: { readonly command?: readonly string[]; readonly from?: string } = {},
): Promise<void> {
  await manager.ok(["service", "create", ...quiet, "--name", name, ...options, from, ...command]);
}

async function remove(...names: string[]): Promise<void> {
  await manager.ok(["service", "rm", ...names]);
  for (const name of names) {
    await cluster.until(`${name} is gone`, async () => (await cluster.containers(name)).length === 0);
  }
}

function on(index: number): string[] {
  return ["--constraint", `node.hostname==node-${index}`];
}

/** Waits until a task of the service says why it does not run. */
async function reason(service: string, state: string, text: RegExp): Promise<void> {
  let said = "";
  await cluster.until(
    `a task of ${service} is ${state} and says ${text}`,
    async () => {
      const tasks = await cluster.api(1).tasks(service);
      said = tasks.map(({ Status }) => `${Status.State} ${Status.Err}`).join("\n");
      return tasks.some(({ Status }) => Status.State === state && text.test(Status.Err ?? ""));
    },
    { details: () => said },
  );
}

interface ContainerView {
  readonly Config: { readonly Env: readonly string[] };
  readonly Mounts: readonly {
    readonly Type: string;
    readonly Name?: string;
    readonly Destination: string;
    readonly RW: boolean;
  }[];
}

/** What the Engine of its node says of a container. */
async function inspect({ node, container }: { node: string; container: string }): Promise<ContainerView> {
  const [view] = await engineOf(node).inspect<[ContainerView]>(container);
  return view;
}

function engineOf(node: string): Docker {
  return cluster.docker(cluster.playground.layout.nodeByName(node).index).engine;
}

// --- generic resources ---

/**
 * Starts the second node's daemon anew, with these resources. The manager stands still meanwhile: on a slow machine that
 * takes longer than the moment that a node has whose connection has closed, and its tasks would move.
 */
async function declare(...resources: string[]): Promise<void> {
  const managing = cluster.playground.machine("node-1").find("daemon")!;
  const daemonArgs = resources.flatMap((resource) => ["--node-generic-resource", resource]);
  const other = new Playground(cluster.playground.layout, { ...defaultMachineOptions, daemonArgs });
  process.kill(managing.pid, "SIGSTOP");
  try {
    await cluster.playground.machine("node-2").stopDaemon();
    await other.machine("node-2").startDaemon();
  } finally {
    process.kill(managing.pid, "SIGCONT");
  }
}

async function resourcesOf(index: number): Promise<unknown> {
  const node = await cluster.node(index);
  return (node.Description as unknown as { Resources: { GenericResources?: unknown } }).Resources.GenericResources;
}

type Resource = Readonly<Record<string, { readonly Kind: string; readonly Value: string | number }>>;

const gpu = (Value: string) => ({ NamedResourceSpec: { Kind: "GPU", Value } });
const ssd = (Value: number) => ({ DiscreteResourceSpec: { Kind: "SSD", Value } });

/** What each running task of the service was given: by the API, and in its container's environment. */
async function given(service: string, count: number): Promise<{ container: string; node: string; value: string }[]> {
  const running = await cluster.running(service, count);
  const tasks = await cluster.api(1).tasks(service);
  return Promise.all(
    running.map(async (one) => {
      const { Config } = await inspect(one);
      const value = Config.Env.filter((pair) => pair.startsWith("DOCKER_RESOURCE_")).join();
      const task = tasks.find(({ ID }) => ID === one.task) as unknown as { GenericResources: Resource[] };
      const values = task.GenericResources.map((resource) => Object.values(resource)[0]?.Value).join();
      assert.ok(value.endsWith(`=${values}`), `${value}, and the API says ${values}`);
      return { container: one.container, node: one.node, value };
    }),
  );
}

test("generic resources that a daemon declares are its node's, as those of a stock Engine are", async () => {
  assert.deepEqual(await resourcesOf(2), [gpu("a"), gpu("b"), ssd(3)]);
  assert.deepEqual(await resourcesOf(3), [gpu("s1")]);
  assert.equal(await cluster.docker(2).ok(["info", "--format", "{{len .GenericResources}}"]), "3");
  assert.equal(await resourcesOf(1), undefined);
  const wrong = await new Docker(defaultMachineOptions.daemonProgram, cluster.layout(1)).refused([
    ...["daemon", "--data-dir", "/nowhere", "--node-generic-resource", "GPU"],
  ]);
  assert.match(wrong, /invalid node-generic-resource format `GPU` expected `name=value`/);
});

test("tasks are given them by name and by amount, no two the same, and who gets none waits and says so", async () => {
  await create("train", ["--generic-resource", "GPU=1", "--replicas", "4"]);
  await create("cache", ["--generic-resource", "SSD=2", "--replicas", "2"]);
  const values = (await given("train", 3)).map(({ node, value }) => `${node} ${value}`).sort();
  assert.deepEqual(values, [
    "node-2 DOCKER_RESOURCE_GPU=a",
    "node-2 DOCKER_RESOURCE_GPU=b",
    "node-3 DOCKER_RESOURCE_GPU=s1",
  ]);
  assert.deepEqual(
    (await given("cache", 1)).map(({ node, value }) => `${node} ${value}`),
    ["node-2 DOCKER_RESOURCE_SSD=2"],
  );
  for (const service of ["train", "cache"]) {
    await reason(service, "pending", /^no suitable node \(insufficient resources on 3 nodes\)$/);
  }
});

test("a restarted daemon's tasks keep theirs; what it declares no more is taken from who has it, by name", async () => {
  const byValue = (tasks: Awaited<ReturnType<typeof given>>) => [...tasks].sort((a, b) => (a.value < b.value ? -1 : 1));
  const before = byValue(await given("train", 3));
  await declare("GPU=a", "GPU=b", "SSD=3");
  await cluster.nodeBecomes(2, "ready");
  assert.deepEqual(byValue(await given("train", 3)), before);
  await cluster.playground.kill("node-1", "daemon");
  await cluster.playground.start("node-1");
  await cluster.nodeBecomes(2, "ready");
  await manager.ok(["service", "scale", "--detach", "train=5"]);
  await cluster.until("another one waits, too", async () => {
    const pending = (await cluster.api(1).tasks("train")).filter(({ Status }) => Status.State === "pending");
    return pending.length === 2 && pending.every(({ Status }) => /insufficient resources/.test(Status.Err ?? ""));
  });
  assert.deepEqual(byValue(await given("train", 3)), before);
  await declare("GPU=b", "SSD=3");
  const left = byValue(await given("train", 2));
  assert.deepEqual(left, before.slice(1));
  await reason("train", "rejected", /^assigned node no longer meets constraints$/);
  await remove("train", "cache");
});

// --- mounts ---

test("mounts of every kind are as they were asked for, on a stock Engine too", async () => {
  for (const index of [1, 2, 3]) mkdirSync(`/run/shoal/model/bound-${index}`, { recursive: true });
  const mounts = [
    "type=volume,source=named,target=/named,volume-label=kind=test",
    "type=volume,source=small,target=/small,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
    "type=volume,target=/anonymous",
    "type=volume,source=filled,target=/www",
    "type=volume,source=hollow,target=/www/cgi-bin,volume-nocopy",
    "type=tmpfs,target=/scratch,tmpfs-size=65536,tmpfs-mode=1700",
    "type=bind,source=/run/shoal/model,target=/bound,readonly,bind-propagation=rprivate",
    "type=volume,source=named,target=/read,readonly",
  ];
  await create("mounts", ["--mode", "global", ...mounts.flatMap((mount) => ["--mount", mount])]);
  for (const one of await cluster.running("mounts", 3)) {
    const engine = engineOf(one.node);
    const { Mounts } = await inspect(one);
    const at = (target: string) => Mounts.find(({ Destination }) => Destination === target);
    assert.equal(at("/named")?.Name, "named", one.node);
    assert.deepEqual([at("/read")?.Name, at("/read")?.RW], ["named", false]);
    assert.match(at("/anonymous")?.Name ?? "", /^[0-9a-f]{64}$/);
    assert.deepEqual([at("/bound")?.Type, at("/bound")?.RW], ["bind", false]);
    assert.equal(await engine.ok(["volume", "inspect", "--format", "{{.Labels.kind}}", "named"]), "test");
    const inside = await engine.lines(["exec", one.container, "cat", "/proc/mounts"]);
    const line = (target: string) => inside.find((text) => text.split(" ")[1] === target) ?? "";
    assert.match(line("/small"), /^tmpfs \S+ tmpfs .*size=1024k/, one.node);
    assert.match(line("/scratch"), /^tmpfs \S+ tmpfs .*size=64k,mode=1700/, one.node);
    assert.match(
      await engine.ok(["exec", one.container, "ls", "/www"]),
      /index.html/,
      "the image's files fill a volume",
    );
    assert.equal(await engine.ok(["exec", one.container, "ls", "/www/cgi-bin"]), "", "unless it is not to be filled");
  }
});

test("a removed service's anonymous volumes go with it, its named ones stay", async () => {
  await remove("mounts");
  for (const index of [1, 2, 3]) {
    const { engine } = cluster.docker(index);
    await cluster.until(`only named volumes are left on node-${index}`, async () => {
      const names = await engine.lines(["volume", "ls", "--quiet"]);
      return names.sort().join() === "filled,hollow,named,small";
    });
  }
});

test("a mount that can't be made is the reason of the task, in Swarm's words", async () => {
  const missing = "/no/such/place";
  for (const index of [1, 3]) {
    await create(`missing${index}`, [...on(index), "--mount", `type=bind,source=${missing},target=/x`]);
    const text = `invalid mount config for type "bind": bind source path does not exist: ${missing}`;
    await reason(`missing${index}`, "rejected", new RegExp(`^${text}$`));
  }
  await create("relative", [...on(1), "--mount", "type=volume,source=named,target=x"]);
  await reason("relative", "rejected", /^invalid mount target, must be an absolute path: x$/);
  await create("plugin", ["--mount", "type=volume,source=far,target=/x,volume-driver=nosuch"]);
  await reason("plugin", "pending", /^no suitable node \(missing plugin on 3 nodes\)$/);
  await create("part", [...on(1), "--mount", "type=volume,source=named,target=/x,volume-subpath=a"]);
  await reason("part", "rejected", /^the Docker Engine of this node \(API 1\.\d+\) can't mount a part of a volume/);
  await remove("missing1", "missing3", "relative", "plugin", "part");
});

// --- health checks ---

const checkedImage = "shoal-test/checked:1";

test("a task is starting until the image's own health check is content; without it, it runs at once", async () => {
  for (const index of [1, 2, 3]) {
    const { engine } = cluster.docker(index);
    const container = await engine.ok(["create", image]);
    const check = "HEALTHCHECK --interval=200ms --timeout=5s --retries=1000 CMD test -e /tmp/well";
    await engine.ok(["commit", "--change", check, container, checkedImage]);
    await engine.ok(["rm", container]);
  }
  await create("unchecked", ["--mode", "global", "--no-healthcheck"], { from: checkedImage });
  await create("checked", ["--mode", "global"], { from: checkedImage });
  await cluster.running("unchecked", 3);
  const containers = await cluster.until("all containers of checked are there", async () => {
    const found = await cluster.containers("checked");
    return found.length === 3 && found;
  });
  const states = async () => (await cluster.api(1).tasks("checked")).map(({ Status }) => Status.State).sort();
  assert.deepEqual(await states(), ["starting", "starting", "starting"]);
  for (const { node, container } of containers) await engineOf(node).ok(["exec", container, "touch", "/tmp/well"]);
  await cluster.running("checked", 3);
  await remove("checked", "unchecked");
});

test("a start interval is for newer Engines: the CLI says so, and an older client's request goes without it", async () => {
  const text = await manager.refused(["service", "create", "--health-start-interval", "100ms", image]);
  assert.match(text, /"--health-start-interval" requires API version 1.44/);
});

test("a task that turns sick has failed with Swarm's text, and nobody is led to it any more", async () => {
  await manager.ok(["network", "create", "--driver", "overlay", "ward"]);
  const check = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "200ms", "--health-retries", "1"];
  const options = ["--network", "ward", "--replicas", "2", "--replicas-max-per-node", "1", "--stop-grace-period", "1s"];
  // Nothing takes its place while the test looks.
  await create("patient", [...check, ...options, "--restart-delay", "1h"], { command: ["sleep", "100000"] });
  await create("doctor", ["--network", "ward", ...on(1)]);
  const [doctor] = await cluster.running("doctor", 1);
  const patients = await cluster.running("patient", 2);
  const addresses = async () => {
    const { stdout } = await cluster.docker(1).engine.run(["exec", doctor!.container, "nslookup", "tasks.patient"]);
    return [...stdout.matchAll(/^Address(?: \d+)?: (10\.0\.\d+\.\d+)(?!.*:53)/gm)].map(([, address]) => address).sort();
  };
  const both = await cluster.until("both have an address", async () => {
    const found = await addresses();
    return found.length === 2 && found;
  });
  const [sick, well] = patients;
  await engineOf(sick!.node).ok(["exec", sick!.container, "touch", "/tmp/sick"]);
  await reason("patient", "failed", /^task: non-zero exit \(137\): dockerexec: unhealthy container$/);
  const left = await addresses();
  assert.equal(left.length, 1);
  assert.ok(both.includes(left[0]));
  assert.deepEqual(
    (await cluster.running("patient", 1)).map(({ container }) => container),
    [well!.container],
  );
  await remove("patient", "doctor");
  await manager.ok(["network", "rm", "ward"]);
});

// --- logs ---

/** Says five lines, then waits. */
const talks = ["sh", "-c", "for i in 1 2 3 4 5; do echo $(hostname) $i; done; trap 'exit 0' TERM; sleep 100000 & wait"];

function logs(...args: string[]): Promise<string[]> {
  return manager.lines(["service", "logs", "--raw", ...args]);
}

test("logs of all nodes: every line once, the last ones of each task, those since a time, with details", async () => {
  const detailed = ["--env", "COLOR=blue", "--log-driver", "json-file", "--log-opt", "env=COLOR"];
  await create("talk", ["--mode", "global", ...detailed, "--hostname", "host"], { command: talks });
  await cluster.running("talk", 3);
  await cluster.until("all have said everything", async () => (await logs("talk")).length === 15);
  assert.deepEqual(
    (await logs("talk")).sort(),
    [1, 2, 3, 4, 5].flatMap((number) => Array.from({ length: 3 }, () => `host ${number}`)),
  );
  assert.deepEqual(await logs("--tail", "1", "talk"), ["host 5", "host 5", "host 5"]);
  const newest = (await logs("--timestamps", "talk")).sort().at(-1)?.split(" ")[0] ?? "";
  const [one] = await cluster.containers("talk");
  await engineOf(one!.node).ok(["exec", one!.container, "sh", "-c", "echo later >/proc/1/fd/1"]);
  await cluster.until("the later line is there", async () => (await logs("talk")).includes("later"));
  assert.ok((await logs("--since", newest, "talk")).includes("later"));
  assert.ok((await logs("--since", newest, "talk")).length < 16);
  const details = await logs("--details", "--tail", "1", "talk");
  for (const line of details) assert.match(line, /COLOR=blue/);
  const [task] = await cluster.api(1).tasks("talk");
  assert.deepEqual((await logs(task!.ID)).slice(0, 5), ["host 1", "host 2", "host 3", "host 4", "host 5"]);
});

test("following goes on with the tasks that come: more of them, and those of an update", async () => {
  const ours = ["--constraint", "node.hostname!=node-3"];
  await create("news", [...ours, "--replicas", "1", "--env", "EDITION=1"], {
    command: ["sh", "-c", "echo edition $EDITION; trap 'exit 0' TERM; sleep 100000 & wait"],
  });
  await cluster.running("news", 1);
  await cluster.until("the first has said its line", async () => (await logs("news")).length === 1);
  await using following = manager.follow(["service", "logs", "--raw", "--follow", "--tail", "0", "news"]);
  await using all = manager.follow(["service", "logs", "--raw", "--follow", "news"]);
  await all.until("what there was", (lines) => lines.length === 1);
  await manager.ok(["service", "scale", "--detach", "news=4"]);
  await following.until("the lines of three more", (lines) => lines.length === 3);
  await manager.ok(["service", "update", ...quiet, "--update-parallelism", "0", "--env-add", "EDITION=2", "news"]);
  await following.until("the lines of an update", (lines) => lines.length === 7);
  await all.until("the same", (lines) => lines.length === 8);
  const editions = [1, 1, 1, 2, 2, 2, 2].map((edition) => `edition ${edition}`);
  assert.deepEqual([...following.lines].sort(), editions);
  assert.deepEqual([...all.lines].sort(), ["edition 1", ...editions]);
  assert.ok(following.running && all.running);
  await remove("news");
});

test("a terminal's lines come as they are", async () => {
  await create("terminal", ["--tty", "--stop-grace-period", "1s", ...on(2)], {
    command: ["sh", "-c", "echo one; echo two; exec sleep 100000"],
  });
  await cluster.running("terminal", 1);
  const lines = await cluster.until("the lines are there", async () => {
    const found = await manager.lines(["service", "logs", "--raw", "terminal"]);
    return found.length === 2 && found;
  });
  assert.deepEqual(
    lines.map((line) => line.trim()),
    ["one", "two"],
  );
  await remove("terminal");
});

test("a log that its driver does not keep is told, also to who follows", async () => {
  await create("mute", ["--log-driver", "none", ...on(2)], { command: talks });
  await cluster.running("mute", 1);
  const [task] = await cluster.api(1).tasks("mute");
  const text = `the log of task ${task!.ID} can't be read: configured logging driver does not support reading`;
  for (const options of [[], ["--follow"]]) {
    const output = await manager.run(["service", "logs", ...options, "mute"]);
    assert.ok(output.stderr.includes(text), `${options} ${output.stdout} ${output.stderr}`);
  }
  await remove("mute");
});

// --- events ---

interface Event {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly scope: string;
  readonly time: number;
}

test("events of the swarm have Swarm's attributes, pass filters, and can be had afterwards", async () => {
  const events = ["events", "--format", "{{json .}}", "--filter", "scope=swarm"];
  const began = Math.floor(Date.now() / 1000);
  const parsed = (lines: readonly string[]) => lines.map((line) => JSON.parse(line) as Event);
  await using stream = manager.follow(events);
  await using services = manager.follow([...events, "--filter", "type=service", "--filter", "event=update"]);
  await create("seen", on(1));
  await cluster.running("seen", 1);
  await manager.ok(["service", "scale", "--detach", "seen=2"]);
  await manager.ok([
    "service",
    "update",
    ...quiet,
    "--update-monitor",
    "100ms",
    "--image",
    checkedImage,
    "--no-healthcheck",
    "seen",
  ]);
  await manager.ok(["node", "update", "--availability", "pause", "node-3"]);
  await manager.ok(["node", "update", "--availability", "active", "node-3"]);
  await manager.ok(["network", "create", "--driver", "overlay", "shown"]);
  await manager.ok(["network", "rm", "shown"]);
  for (const kind of ["secret", "config"]) {
    await manager.ok([kind, "create", `${kind}1`, "-"], { input: "x" });
    await manager.ok([kind, "rm", `${kind}1`]);
  }
  await cluster.until("the update is over", async () => {
    const state = await manager.ok(["service", "inspect", "--format", "{{.UpdateStatus.State}}", "seen"]);
    return state === "completed";
  });
  await remove("seen");
  const has = (lines: readonly string[], type: string, action: string, attributes: Readonly<Record<string, string>>) =>
    parsed(lines).some(({ Type, Action, Actor, scope }) => {
      const fits = Object.entries(attributes).every(([name, value]) => Actor.Attributes[name] === value);
      return Type === type && Action === action && scope === "swarm" && fits;
    });
  const wanted: [string, string, Record<string, string>][] = [
    ["service", "create", { name: "seen" }],
    ["service", "update", { name: "seen", "replicas.old": "1", "replicas.new": "2" }],
    ["service", "update", { name: "seen", "image.old": image, "image.new": checkedImage }],
    ["service", "update", { name: "seen", "updatestate.new": "updating" }],
    ["service", "update", { name: "seen", "updatestate.old": "updating", "updatestate.new": "completed" }],
    ["node", "update", { name: "node-3", "availability.old": "active", "availability.new": "pause" }],
    ["node", "update", { name: "node-3", "availability.old": "pause", "availability.new": "active" }],
    ["network", "create", { name: "shown" }],
    ["network", "remove", { name: "shown" }],
    ["secret", "create", { name: "secret1" }],
    ["secret", "remove", { name: "secret1" }],
    ["config", "create", { name: "config1" }],
    ["config", "remove", { name: "config1" }],
    ["service", "remove", { name: "seen" }],
  ];
  for (const [type, action, attributes] of wanted) {
    const what = `${type} ${action} ${JSON.stringify(attributes)}`;
    await stream.until(what, (lines) => has(lines, type, action, attributes));
  }
  for (const { Type, Action } of parsed(services.lines)) assert.deepEqual([Type, Action], ["service", "update"]);
  assert.ok(services.lines.length >= 4);
  const until = String(Math.ceil(Date.now() / 1000) + 1);
  const past = ["--since", String(began), "--until", until];
  const afterwards = await manager.lines([...events, ...past, "--filter", "node=node-3"]);
  assert.deepEqual(
    parsed(afterwards).flatMap(({ Actor }) => Actor.Attributes["availability.new"] ?? []),
    ["pause", "active"],
  );
});

// --- a node without power ---

test("a node that is gone holds up nobody who reads logs, and is named", async () => {
  const gone = await cluster.node(2);
  await cluster.playground.kill("node-2");
  const output = await manager.run(["service", "logs", "--raw", "--tail", "5", "talk"], { limitMs: 30_000 });
  const lines = output.stdout.split("\n").filter((line) => /^host \d/.test(line));
  assert.ok(lines.length >= 9 && lines.length <= 10, output.stdout); // one task has said "later", too
  assert.match(output.stderr, /incomplete log stream\. some logs could not be retrieved for the following reasons: /);
  assert.match(output.stderr, new RegExp(`node ${gone.ID} (is not available|disconnected unexpectedly)`));
});
