/**
 * The agent and its Docker executor on a real Engine: a dockerd of its own, in namespaces of its own, without a
 * registry; removed at the end. The manager is a fake one, so that each test says exactly what is assigned.
 * Needs root, dockerd, nsenter, unshare and Debian's busybox-static; fails where they are missing.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { promisify } from "node:util";
import { Agent } from "../../src/agent/agent.ts";
import { DockerExecutor } from "../../src/agent/executor/docker.ts";
import { FakeManager, fakeIdentity, fakeTask } from "../../src/agent/fake-manager.ts";
import { MemoryTaskDatabase } from "../../src/agent/task-database.ts";
import { dockerEngine } from "../../src/engine/client.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { AssignedTask, ContainerSpec, TaskSpec } from "../../src/model/types.ts";

const run = promisify(execFile);

/** Longest wait for anything; most take milliseconds. */
const patienceMs = 30_000;

async function until(what: string, condition: () => boolean | Promise<boolean>, limitMs = patienceMs): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** An Engine in namespaces of its own, which a sleeping process holds open over its restarts. */
class TestEngine {
  readonly #directory: string;
  readonly #holder: ChildProcess;
  #daemon: ChildProcess | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    const script = [
      "ip link set lo up",
      "hostname executor-test",
      "mount --make-rprivate /",
      "mkdir -p /run/docker /etc/docker",
      `mount --bind ${directory}/run-docker /run/docker`,
      `mount --bind ${directory}/etc-docker /etc/docker`,
      `mount --bind ${directory}/resolv.conf /etc/resolv.conf`, // look-ups of registries fail at once
      `touch ${directory}/held`,
      "exec sleep infinity",
    ].join(" && ");
    this.#holder = spawn("unshare", ["--net", "--mount", "--uts", "sh", "-c", script], { stdio: "ignore" });
  }

  static async create(): Promise<TestEngine> {
    const directory = await mkdtemp(join(tmpdir(), "shoal-executor-"));
    for (const name of ["run-docker", "etc-docker"]) await mkdir(join(directory, name));
    await writeFile(join(directory, "resolv.conf"), "nameserver 127.0.0.1\n");
    const engine = new TestEngine(directory);
    await until("namespaces (root and unshare are needed)", () => existsSync(join(directory, "held")));
    return engine;
  }

  get socket(): string {
    return join(this.#directory, "engine.sock");
  }

  async start(): Promise<void> {
    const at = (name: string) => join(this.#directory, name);
    const inside = ["--target", String(this.#holder.pid), "--net", "--mount", "--uts"];
    const paths = ["--data-root", at("data"), "--exec-root", at("exec"), "-p", at("docker.pid")];
    const command = [...inside, "dockerd", ...paths, "-H", `unix://${this.socket}`, "--log-level", "error"];
    this.#daemon = spawn("nsenter", command, { stdio: "ignore" });
    const engine = dockerEngine(this.socket);
    await until("the Engine answers (dockerd is needed)", () => engine.version().then(Boolean, () => false));
    engine.close();
  }

  /** TERM: dockerd stops its containers. KILL: they are left behind. */
  async stop(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const daemon = this.#daemon;
    if (!daemon || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    daemon.kill(signal);
    await ended;
    if (signal === "SIGKILL") {
      const containerd = join(this.#directory, "exec/containerd/containerd.pid");
      if (existsSync(containerd)) await run("sh", ["-c", `kill -9 $(cat ${containerd})`]).catch(() => undefined);
      await rm(containerd, { force: true });
      await rm(join(this.#directory, "docker.pid"), { force: true });
    }
  }

  async import(image: string): Promise<void> {
    const root = join(this.#directory, "image");
    await mkdir(join(root, "bin"), { recursive: true });
    await mkdir(join(root, "tmp"));
    await copyFile("/bin/busybox", join(root, "bin/busybox"));
    for (const applet of ["sh", "sleep", "cat", "echo", "env", "test", "true", "false"]) {
      await symlink("busybox", join(root, "bin", applet));
    }
    await run("sh", ["-c", `tar -C ${root} -c . | docker -H unix://${this.socket} import - ${image}`]);
  }

  async destroy(): Promise<void> {
    await this.stop("SIGTERM");
    const holder = this.#holder;
    const ended = new Promise((resolve) => holder.once("exit", resolve));
    holder.kill("SIGKILL"); // with it go the namespaces, and the mounts in them
    await ended;
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

let host: TestEngine;
let engine: Engine;
let node: TestNode | undefined;

interface TestNode {
  readonly agent: Agent;
  readonly manager: FakeManager;
  readonly executor: DockerExecutor;
}

before(async () => {
  host = await TestEngine.create();
  await host.start();
  engine = dockerEngine(host.socket);
  await host.import("bb:1");
});

afterEach(async () => {
  await node?.agent.stop();
  node = undefined;
  const all = await engine.listContainers([]);
  await Promise.all(all.map(({ Id = "" }) => engine.removeContainer(Id)));
});

after(async () => {
  engine?.close();
  await host?.destroy();
});

/** Starts an agent on the Engine; `database` and `assigned` are what it finds. */
function startNode(database = new MemoryTaskDatabase(), ...assigned: AssignedTask[]): TestNode {
  const manager = new FakeManager();
  manager.set(...assigned);
  const common = { clock: systemClock, random: systemRandom, log: silentLogger };
  const executor = new DockerExecutor({ ...common, engine, nodeId: fakeIdentity.nodeId });
  const agent = new Agent({
    ...common,
    identity: fakeIdentity,
    dialer: manager,
    managers: ["10.0.0.1:2377"],
    executor,
    taskDatabase: database,
    certificates: {
      tlsInfo: () => ({}),
      renewAt: () => Number.MAX_SAFE_INTEGER,
      renew: async (_, identity) => identity,
    },
  });
  agent.start();
  node = { agent, manager, executor };
  return node;
}

const obeysTerm = ["/bin/sh", "-c", "trap 'exit 0' TERM; echo started; sleep 100000 & wait"];

let made = 0;

/** A task that runs until it is told to stop, unless `container` says otherwise. */
function task(
  container: Partial<ContainerSpec> = {},
  spec: Partial<TaskSpec> = {},
  change: Partial<AssignedTask> = {},
) {
  made++;
  const Spec = { ContainerSpec: { Image: "bb:1", Command: obeysTerm, ...container }, ...spec };
  return fakeTask(`task${made}`, { Slot: made, Spec, ...change });
}

const stateOf = (manager: FakeManager, { ID }: AssignedTask) => manager.statuses.get(ID)?.State;

async function reaches(manager: FakeManager, which: AssignedTask, state: string): Promise<void> {
  await until(`${which.ID} ${state}`, () => stateOf(manager, which) === state).catch((error) => {
    throw new Error(`${error.message}; it is ${JSON.stringify(manager.statuses.get(which.ID))}`);
  });
}

const containerOf = (manager: FakeManager, { ID }: AssignedTask) => {
  return manager.statuses.get(ID)?.ContainerStatus?.ContainerID ?? "";
};

test("a task runs as its container, stops as fast as it can, and leaves nothing", async () => {
  const { manager } = startNode();
  const volumes = async () => {
    const { stdout } = await run("docker", ["-H", `unix://${host.socket}`, "volume", "ls", "-q"]);
    return stdout.split("\n").filter(Boolean).length;
  };
  const volumesBefore = await volumes();
  const one = task(
    { Env: ["A=1"], Mounts: [{ Type: "volume", Target: "/data" }] },
    {},
    { Endpoint: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishMode: "host" }] } },
  );
  manager.update(one);
  await reaches(manager, one, "running");
  const status = manager.statuses.get(one.ID);
  const detail = await engine.inspectContainer(containerOf(manager, one));
  assert.equal(detail.Name, `/web.${one.Slot}.${one.ID}`);
  assert.deepEqual(detail.Config?.Env, ["A=1"]);
  assert.equal(detail.Config?.Labels?.["com.docker.swarm.service.name"], "web");
  assert.equal(status?.ContainerStatus?.PID, detail.State?.Pid);
  const [port] = status?.PortStatus?.Ports ?? [];
  assert.equal(port?.TargetPort, 80);
  assert.ok((port?.PublishedPort ?? 0) > 1024, "the Engine chose a port");
  assert.equal(await volumes(), volumesBefore + 1);

  const began = performance.now();
  manager.update({ ...one, DesiredState: "remove" });
  await reaches(manager, one, "shutdown");
  manager.remove(one.ID);
  await until("the container is gone", async () => (await engine.listContainers([])).length === 0);
  const tookMs = performance.now() - began;
  assert.ok(tookMs < 1000, `no fixed waits: ${Math.round(tookMs)} ms`); // stock Swarm's sleep alone takes a second
  assert.equal(await volumes(), volumesBefore);
});

test("why a task doesn't start: the Engine's text", async () => {
  const { manager } = startNode();
  const missing = task({ Image: "nosuch" });
  const bind = task({ Mounts: [{ Type: "bind", Source: "/no/such/place", Target: "/x" }] });
  const target = task({ Mounts: [{ Type: "volume", Source: "v", Target: "x" }] });
  const command = task({ Command: ["/no/such/program"] });
  for (const each of [missing, bind, target, command]) manager.update(each);
  const err = (which: AssignedTask) => manager.statuses.get(which.ID)?.Err ?? "";
  for (const each of [missing, bind, target]) await reaches(manager, each, "rejected");
  assert.match(err(missing), /^No such image: nosuch:latest: /);
  assert.equal(err(bind), 'invalid mount config for type "bind": bind source path does not exist: /no/such/place');
  assert.equal(err(target), "invalid mount target, must be an absolute path: x");
  await reaches(manager, command, "failed");
  assert.match(err(command), /^starting container failed: .*\/no\/such\/program/);
});

test("how a task ends", async () => {
  const { manager } = startNode();
  const good = task({ Command: ["/bin/true"] });
  const bad = task({ Command: ["/bin/sh", "-c", "exit 3"] });
  const killed = task();
  const removed = task();
  for (const each of [good, bad, killed, removed]) manager.update(each);
  await reaches(manager, good, "complete");
  assert.equal(manager.statuses.get(good.ID)?.Message, "finished");
  await reaches(manager, bad, "failed");
  assert.equal(manager.statuses.get(bad.ID)?.Err, "task: non-zero exit (3)");
  await reaches(manager, killed, "running");
  await run("docker", ["-H", `unix://${host.socket}`, "kill", containerOf(manager, killed)]);
  await reaches(manager, killed, "failed");
  assert.equal(manager.statuses.get(killed.ID)?.Err, "task: non-zero exit (137)");
  await reaches(manager, removed, "running");
  await run("docker", ["-H", `unix://${host.socket}`, "rm", "-f", containerOf(manager, removed)]);
  await reaches(manager, removed, "failed");
  assert.equal(manager.statuses.get(removed.ID)?.Err, "task: non-zero exit (137)");
});

test("a health check holds STARTING; a sick container is stopped and has failed", async () => {
  const { manager } = startNode();
  const check = { Interval: 2e8, Timeout: 2e9, Retries: 1 };
  const well = task({
    Command: ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1; echo > /tmp/well; sleep 100000 & wait"],
    Healthcheck: { Test: ["CMD", "/bin/test", "-e", "/tmp/well"], Interval: 2e8, Retries: 100 },
  });
  const sick = task({
    Healthcheck: { Test: ["CMD", "/bin/false"], ...check },
    StopGracePeriod: 1e9,
    Command: ["/bin/sleep", "1000"],
  });
  manager.update(well);
  manager.update(sick);
  await reaches(manager, well, "running");
  const wellStates = manager.reports.flat().filter(({ taskId }) => taskId === well.ID);
  const running = wellStates.find(({ status }) => status.State === "running");
  const starting = wellStates.find(({ status }) => status.State === "starting");
  const heldMs = Date.parse(running?.status.Timestamp ?? "") - Date.parse(starting?.status.Timestamp ?? "");
  assert.ok(heldMs >= 900, `held for ${heldMs} ms`);
  await reaches(manager, sick, "failed");
  assert.equal(manager.statuses.get(sick.ID)?.Err, "task: non-zero exit (137): dockerexec: unhealthy container");
  assert.ok(!manager.reports.flat().some(({ taskId, status }) => taskId === sick.ID && status.State === "running"));
});

test("a restarted agent: what runs is left alone, a create without a start goes on, strays go, others' stay", async () => {
  const first = startNode();
  const runs = task();
  const ready = task({}, {}, { DesiredState: "ready" });
  const stray = task();
  for (const each of [runs, ready, stray]) first.manager.update(each);
  await reaches(first.manager, runs, "running");
  await reaches(first.manager, stray, "running");
  await reaches(first.manager, ready, "ready");
  const before = await engine.inspectContainer(containerOf(first.manager, runs));
  await first.agent.stop();
  const labels = { "com.docker.swarm.task.id": "other", "com.docker.swarm.node.id": "another-node" };
  const foreign = await engine.createContainer("foreign", { Image: "bb:1", Cmd: obeysTerm, Labels: labels });
  await engine.startContainer(foreign);

  // The daemon has lost its database too: the containers alone tell.
  const second = startNode(new MemoryTaskDatabase(), runs, { ...ready, DesiredState: "running" });
  await reaches(second.manager, runs, "running");
  await reaches(second.manager, ready, "running");
  const now = await engine.inspectContainer(containerOf(second.manager, runs));
  assert.equal(now.Id, before.Id);
  assert.equal(now.State?.StartedAt, before.State?.StartedAt);
  await until("the stray is removed", async () => (await engine.listContainers([])).length === 3);
  assert.equal((await engine.inspectContainer(foreign)).State?.Running, true);
  await second.agent.leave();
  const left = await engine.listContainers([]);
  assert.deepEqual(
    left.map(({ Id }) => Id),
    [foreign],
  );
});

test("the Engine goes away: the status says so, the task has failed when it is back, and others start", async () => {
  for (const how of ["SIGTERM", "SIGKILL"] as const) {
    const { manager, agent } = startNode();
    const one = task();
    manager.update(one);
    await reaches(manager, one, "running");
    await host.stop(how);
    await until("the status says why", () => manager.statuses.get(one.ID)?.Err?.includes("Cannot connect") ?? false);
    assert.equal(stateOf(manager, one), "running");
    const next = task();
    manager.update(next);
    await until("the next says why", () => manager.statuses.get(next.ID)?.Err?.includes("Cannot connect") ?? false);
    assert.equal(stateOf(manager, next), "preparing");
    await host.start();
    await reaches(manager, one, "failed");
    await reaches(manager, next, "running");
    assert.equal(manager.statuses.get(next.ID)?.Err, undefined);
    await agent.stop();
  }
});

test("logs: streams, tail, since, TTY, and following into a new task", async () => {
  const { manager } = startNode();
  const print = (text: string) => ["/bin/sh", "-c", `${text}; trap 'exit 0' TERM; sleep 100000 & wait`];
  const plain = task({ Command: print("echo one; echo two >&2; echo three") });
  const tty = task({ Command: print("echo tty"), TTY: true }, {}, { ServiceID: "service2" });
  manager.update(plain);
  manager.update(tty);
  await reaches(manager, plain, "running");
  await reaches(manager, tty, "running");
  const subscribe = async (id: string, count: number, serviceId: string, options: object = {}) => {
    const defaults = { streams: ["stdout", "stderr"] as const, follow: false, tail: undefined, since: "" };
    const selector = { serviceIds: [serviceId], nodeIds: [], taskIds: [] };
    manager.subscribe({ id, close: false, selector, options: { ...defaults, ...options } });
    await until(`${count} lines of ${id}`, () => (manager.published.get(id)?.length ?? 0) >= count);
    const lines = manager.published.get(id) ?? [];
    return lines.map(({ stream, data }) => `${stream} ${Buffer.from(data).toString().trim()}`).toSorted();
  };
  const all = ["stderr two", "stdout one", "stdout three"];
  // What a container writes reaches its log a moment later; following waits for it.
  assert.deepEqual(await subscribe("follow", 3, "service1", { follow: true }), all);
  assert.deepEqual(await subscribe("all", 3, "service1"), all);
  assert.deepEqual(await subscribe("stdout", 2, "service1", { streams: ["stdout"] }), ["stdout one", "stdout three"]);
  assert.equal((await subscribe("tail", 2, "service1", { tail: 2 })).length, 2);
  const times = manager.published.get("all")?.map(({ timestamp }) => timestamp) ?? [];
  const since = times.toSorted().at(-1) ?? "";
  assert.equal((await subscribe("since", 1, "service1", { since })).length, 1);
  assert.deepEqual(await subscribe("tty", 1, "service2", { follow: true }), ["stdout tty"]);
  const later = task({ Command: print("echo later") });
  manager.update(later);
  await until("the new task's line", () => (manager.published.get("follow")?.length ?? 0) === 4);
  assert.equal(manager.published.get("follow")?.at(-1)?.context.taskId, later.ID);
});

test("many at once: all run, none twice", async () => {
  const { manager } = startNode();
  const many = Array.from({ length: 12 }, () => task());
  for (const each of many) manager.update(each);
  for (const each of many) await reaches(manager, each, "running");
  const names = (await engine.listContainers([])).flatMap(({ Names = [] }) => Names);
  assert.equal(new Set(names).size, 12);
  for (const each of many) manager.update({ ...each, DesiredState: "remove" });
  for (const each of many) await reaches(manager, each, "shutdown");
});
