/** Secrets and configs of tasks, through the executor: an Engine that only remembers, and files in a Map. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../../engine/fake-engine.ts";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { AssignedTask, ContainerSpec, PayloadSpec, Secret } from "../../model/types.ts";
import { fakeTask } from "../fake-manager.ts";
import { Payloads } from "../payloads.ts";
import { DockerExecutor } from "./docker.ts";
import type { TaskFile, TaskFiles } from "./task-files.ts";
import { TaskPayloads } from "./task-payloads.ts";

const signal = new AbortController().signal;
const quiet = () => undefined;

class MemoryFiles implements TaskFiles {
  readonly files = new Map<string, readonly TaskFile[]>();
  writes = 0;

  path(taskId: string, index: number): string {
    return `/memory/${taskId}/${index}`;
  }

  async has(taskId: string): Promise<boolean> {
    return this.files.has(taskId);
  }

  async write(taskId: string, files: readonly TaskFile[]): Promise<void> {
    this.writes++;
    this.files.set(taskId, files);
  }

  async remove(taskId: string): Promise<void> {
    this.files.delete(taskId);
  }

  async taskIds(): Promise<readonly string[]> {
    return [...this.files.keys()];
  }

  async clear(): Promise<void> {
    this.files.clear();
  }

  /** What is in the task's files. */
  texts(taskId: string): string[] | undefined {
    return this.files.get(taskId)?.map(({ data }) => Buffer.from(data).toString());
  }
}

function payload(ID: string, data: string, more: Partial<PayloadSpec> = {}): Secret {
  const time = "2026-01-01T00:00:00.000Z";
  const Spec = { Name: `${ID}-name`, Labels: {}, Data: Buffer.from(data).toString("base64"), ...more };
  return { ID, Version: { Index: 1 }, CreatedAt: time, UpdatedAt: time, Spec };
}

async function setUp() {
  const engine = new FakeEngine();
  engine.images.add("bb:1");
  const payloads = new Payloads();
  const files = new MemoryFiles();
  const open = async () => {
    const executor = new DockerExecutor({
      engine,
      nodeId: "node1",
      clock: new FakeClock(),
      random: seededRandom(1),
      log: silentLogger,
      preferOfflineImage: true,
      payloads: new TaskPayloads({ payloads, files, log: silentLogger }),
    });
    executor.start({ ready: quiet, changed: quiet, problem: quiet });
    await settled();
    return executor;
  };
  /** What a manager sends. */
  const send = (...secrets: readonly Secret[]) => {
    const changes = secrets.flatMap((one) => [
      one.ID.startsWith("c")
        ? { kind: "update-config" as const, config: one }
        : { kind: "update-secret" as const, secret: one },
    ]);
    payloads.assign({ type: "incremental", appliesTo: "", resultsIn: "", changes });
  };
  return { engine, files, open, payloads, send, executor: await open() };
}

const file = (Name: string, more: object = {}) => ({ Name, UID: "0", GID: "0", Mode: 0o444, ...more });
const secret = (ID: string, File = file(ID)) => ({ SecretID: ID, SecretName: `${ID}-name`, File });
const config = (ID: string, File = file(ID)) => ({ ConfigID: ID, ConfigName: `${ID}-name`, File });

function taskWith(container: Partial<ContainerSpec>, more: Partial<AssignedTask> = {}): AssignedTask {
  return fakeTask("t1", { Spec: { ContainerSpec: { Image: "bb:1", ...container } }, ...more });
}

test("they are files with owner and mode, mounted read-only where the references say", async () => {
  const { engine, executor, files, send } = await setUp();
  send(payload("s1", "tide"), payload("s2", "ebb"), payload("c1", "flow"), payload("c2", "wave"));
  const task = taskWith({
    Secrets: [secret("s1"), secret("s2", file("/etc/keys/../key", { UID: "33", GID: "44", Mode: 0o400 }))],
    Configs: [config("c1"), config("c2", file("conf/x.ini", { UID: undefined, Mode: 0o4640 }))],
    Mounts: [{ Type: "tmpfs", Target: "/run" }],
  });
  await executor.prepare(task, signal, quiet);
  assert.deepEqual(
    files.files.get("t1")?.map(({ data, ...rest }) => ({ ...rest, text: Buffer.from(data).toString() })),
    [
      { text: "tide", uid: 0, gid: 0, mode: 0o444 },
      { text: "ebb", uid: 33, gid: 44, mode: 0o400 },
      { text: "flow", uid: 0, gid: 0, mode: 0o444 },
      { text: "wave", uid: 0, gid: 0, mode: 0o640 },
    ],
  );
  const mounts = [...engine.containers.values()][0]?.body.HostConfig?.Mounts ?? [];
  assert.deepEqual(
    mounts.map(({ Source, Target, ReadOnly }) => [Source, Target, ReadOnly]),
    [
      [undefined, "/run", undefined],
      ["/memory/t1/0", "/run/secrets/s1", true],
      ["/memory/t1/1", "/etc/key", true],
      ["/memory/t1/2", "/c1", true],
      ["/memory/t1/3", "/conf/x.ini", true],
    ],
  );
  await executor.stop();
});

test("a config for the runtime alone is no file", async () => {
  const { engine, executor, files } = await setUp();
  const task = taskWith({ Configs: [{ ConfigID: "c1", ConfigName: "c1-name", Runtime: {} }] });
  await executor.prepare(task, signal, quiet);
  assert.equal(files.writes, 0);
  assert.equal([...engine.containers.values()][0]?.body.HostConfig?.Mounts, undefined);
  await executor.stop();
});

test("a task whose secret has not come waits, and says for which", async () => {
  const { engine, executor, files, send } = await setUp();
  const task = taskWith({ Secrets: [secret("s1")], Configs: [config("c1")] });
  send(payload("s1", "tide"));
  await assert.rejects(executor.prepare(task, signal, quiet), {
    code: "Unavailable",
    message: "waiting for config c1-name, which no manager has sent yet",
  });
  assert.deepEqual([files.writes, engine.containers.size], [0, 0]);
  send(payload("c1", "flow"));
  await executor.prepare(task, signal, quiet);
  assert.deepEqual(files.texts("t1"), ["tide", "flow"]);
  await executor.stop();
});

test("the files go when the container has ended by itself, is stopped, or is removed", async () => {
  const { engine, executor, files, send } = await setUp();
  send(payload("s1", "tide"));
  const up = async (id: string) => {
    const task = { ...taskWith({ Secrets: [secret("s1")] }), ID: id };
    await executor.prepare(task, signal, quiet);
    await executor.run(task, signal);
    assert.deepEqual(files.texts(id), ["tide"]);
    return [...engine.containers.values()].at(-1)!.id;
  };
  engine.exit(await up("ends"), 0);
  await up("stopped");
  await executor.halt("stopped", 1);
  await up("removed");
  await executor.remove("removed");
  await up("runs");
  await settled();
  assert.deepEqual(await files.taskIds(), ["runs"]);
  await executor.removeAll();
  assert.deepEqual(await files.taskIds(), []);
  await executor.stop();
});

test("a container that can't be made leaves no files", async () => {
  const { engine, executor, files, send } = await setUp();
  send(payload("s1", "tide"));
  engine.createContainer = () => Promise.reject(new ShoalError("InvalidArgument", "no such user"));
  await assert.rejects(executor.prepare(taskWith({ Secrets: [secret("s1")] }), signal, quiet), /no such user/);
  assert.deepEqual([files.writes, await files.taskIds()], [1, []]);
  await executor.stop();
});

test("a new agent keeps the files of what runs, removes what an earlier one left, and needs no manager for it", async () => {
  const { executor, files, open, payloads, send } = await setUp();
  send(payload("s1", "tide"));
  const task = taskWith({ Secrets: [secret("s1")] });
  await executor.prepare(task, signal, quiet);
  await executor.run(task, signal);
  await files.write("stray", []);
  await executor.stop();
  payloads.clear();
  const next = await open();
  assert.deepEqual(await files.taskIds(), ["t1"]);
  await next.halt("t1", 1);
  assert.deepEqual(await files.taskIds(), []);
  await next.stop();
});

test("a container that a reboot kept from its start gets its files again, once they have come", async () => {
  const { executor, files, open, payloads, send } = await setUp();
  send(payload("s1", "tide"));
  const task = taskWith({ Secrets: [secret("s1")] });
  await executor.prepare(task, signal, quiet);
  await executor.stop();
  payloads.clear();
  await files.clear();
  const next = await open();
  await assert.rejects(next.run(task, signal), { code: "Unavailable", message: /waiting for secret s1-name/ });
  send(payload("s1", "tide"));
  await next.run(task, signal);
  assert.deepEqual(files.texts("t1"), ["tide"]);
  await next.stop();
});

test("templates are expanded with the task, its environment and its other secrets", async () => {
  const { executor, files, send } = await setUp();
  const Templating = { Name: "golang" };
  send(
    payload("s1", "tide"),
    payload("c1", '{{.Task.Slot}} {{.Service.Name}} {{env "A"}} {{secret "s1"}}', { Templating }),
    payload("c2", "{{.Task.Slot}}"),
  );
  const task = taskWith({ Env: ["A=b"], Secrets: [secret("s1")], Configs: [config("c1"), config("c2")] }, { Slot: 3 });
  await executor.prepare(task, signal, quiet);
  assert.deepEqual(files.texts("t1"), ["tide", "3 web b tide", "{{.Task.Slot}}"]);
  await executor.stop();
});

test("a template that can't be expanded rejects the task; of a secret's nothing is shown but where it went wrong", async () => {
  const { executor, send } = await setUp();
  const prepare = (container: Partial<ContainerSpec>) => executor.prepare(taskWith(container), signal, quiet);
  send(payload("c1", "{{.Foo}}", { Templating: { Name: "golang" } }));
  await assert.rejects(prepare({ Configs: [config("c1")] }), {
    code: "InvalidArgument",
    message: /^failed to expand templated config c1: template: expansion:1:.*Foo/,
  });
  send(payload("s1", "{{.hunter2}}", { Templating: { Name: "golang" } }));
  await assert.rejects(prepare({ Secrets: [secret("s1")] }), {
    code: "InvalidArgument",
    message: /^failed to expand templated secret s1: template: expansion:1[:\d]*: not shown, for it is secret$/,
  });
  send(payload("s2", "x", { Templating: { Name: "jinja" } }));
  await assert.rejects(prepare({ Secrets: [secret("s2")] }), {
    code: "InvalidArgument",
    message: "failed to expand templated secret s2: unrecognized template type",
  });
  await executor.stop();
});

test("an owner that is no number rejects the task", async () => {
  const { executor, send } = await setUp();
  send(payload("s1", "tide"));
  const prepare = (UID: string) =>
    executor.prepare(taskWith({ Secrets: [secret("s1", file("s1", { UID }))] }), signal, quiet);
  for (const bad of ["www-data", "-1", "4294967295"]) {
    const message = `owner "${bad}" of secret s1-name is no number`;
    await assert.rejects(prepare(bad), { code: "InvalidArgument", message });
  }
  await executor.stop();
});
