/**
 * What must survive: a daemon that is killed or stopped at any moment, an Engine that restarts, a node whose power is
 * cut. After each, every acknowledged write is there, containers that ran are adopted, none is there twice.
 *
 * The steps build on each other, in the order of the file.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Api, type ServiceView } from "./api.ts";
import {
  containersOf,
  converged,
  Docker,
  diagnose,
  dockerPrograms,
  freshNode,
  image,
  tasksOf,
  testPlayground,
  until,
} from "./harness.ts";

const playground = testPlayground();
const node = playground.layout.node(1);
const [newest] = (await dockerPrograms()).toSorted((left, right) =>
  right.version.localeCompare(left.version, "en", { numeric: true }),
);
const docker = new Docker(newest!.program, node);
const api = new Api(node.socket);

before(async () => {
  await freshNode(playground);
  await docker.ok(["swarm", "init", "--advertise-addr", node.address]);
});

after(async () => {
  await playground.down();
});

interface ContainerView {
  readonly Id: string;
  readonly State: { readonly StartedAt: string; readonly Running: boolean };
  readonly Config: { readonly Labels: Readonly<Record<string, string>> };
}

/** Id, start time and task of each container of the service; `all`: of those that do not run as well. */
async function containers(service: string, all = false): Promise<ContainerView[]> {
  const ids = await containersOf(docker, service, all);
  return ids.length === 0 ? [] : docker.engine.inspect<ContainerView[]>(...ids);
}

function startTimes(views: readonly ContainerView[]): Map<string, string> {
  return new Map(views.map((view) => [view.Id, view.State.StartedAt]));
}

async function assertUntouched(service: string, before: ReadonlyMap<string, string>): Promise<void> {
  const now = startTimes(await containers(service));
  for (const [id, startedAt] of before) assert.equal(now.get(id), startedAt, `container ${id} was touched`);
}

test("kill -9 of the daemon during a scale: all there afterwards, none twice", async () => {
  await docker.ok(["service", "create", "--quiet", "--name", "web", "--replicas", "3", image]);
  await converged(docker, "web", 3);
  const first = startTimes(await containers("web"));
  assert.equal(first.size, 3);

  await docker.ok(["service", "scale", "--detach", "web=20"]);
  await until(docker, "the scale is under way", async () => (await containersOf(docker, "web")).length >= 5);
  await playground.kill("node-1", "daemon");
  const atKill = await containersOf(docker, "web");
  assert.ok(atKill.length < 20, "the daemon was killed too late to prove anything");
  assert.equal((await playground.list())[0]?.state, "degraded");

  await playground.start("node-1");
  await converged(docker, "web", 20);
  await assertUntouched("web", first);
  const now = await containers("web", true);
  for (const id of atKill)
    assert.ok(
      now.some((view) => view.Id === id),
      `container ${id} was not adopted`,
    );
  const tasks = now.map((view) => view.Config.Labels["com.docker.swarm.task.id"]);
  assert.equal(new Set(tasks).size, 20, `a task has two containers\n${await diagnose(docker, "web")}`);
  assert.equal(now.length, 20, `containers are left over\n${await diagnose(docker, "web")}`);
  const slots = (await tasksOf(docker, "web")).map((task) => task.Slot).sort((left, right) => left - right);
  assert.deepEqual(
    slots,
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
  await docker.ok(["service", "scale", "--detach", "web=3"]);
  await converged(docker, "web", 3);
});

test("a daemon that is stopped leaves its tasks running, and adopts them", async () => {
  const before = startTimes(await containers("web"));
  await playground.machine("node-1").stopDaemon();
  assert.equal((await containersOf(docker, "web")).length, 3);
  await playground.start("node-1");
  await converged(docker, "web", 3);
  await assertUntouched("web", before);
});

test("a container that ends while the daemon is down is replaced", async () => {
  const before = await containersOf(docker, "web");
  await playground.kill("node-1", "daemon");
  await docker.engine.ok(["kill", before[0]!]);
  await playground.start("node-1");
  await until(docker, "web has three containers again", async () => {
    const now = await containersOf(docker, "web");
    return now.length === 3 && !now.includes(before[0]!);
  });
  const now = await containersOf(docker, "web");
  for (const id of before.slice(1)) assert.ok(now.includes(id), `container ${id} was replaced as well`);
});

test("an acknowledged write survives a kill -9 that follows at once", async () => {
  for (let round = 1; round <= 3; round++) {
    const name = `written-${round}`;
    await docker.ok(["service", "create", "--quiet", "--detach", "--name", name, "--replicas", "0", image]);
    await playground.kill("node-1", "daemon");
    await playground.start("node-1");
    assert.ok((await docker.lines(["service", "ls", "--format", "{{.Name}}"])).includes(name));
    await docker.ok(["service", "rm", name]);
  }
});

/** Every unfinished task of the service has a text that names what it waits for. */
async function eachTaskSays(service: string, text: RegExp): Promise<void> {
  await until(
    docker,
    `each task of ${service} says ${text}`,
    async () => {
      const tasks = (await api.tasks(service)).filter(({ DesiredState }) => DesiredState === "running");
      return tasks.length > 0 && tasks.every(({ Status }) => text.test(Status.Err ?? ""));
    },
    { service },
  );
}

test("an Engine that is killed: its tasks say so, the daemon goes on; restarted, it gets its tasks again", async () => {
  const machine = playground.machine("node-1");
  const daemon = machine.find("daemon");
  await playground.kill("node-1", "engine");
  await eachTaskSays("web", /^Cannot connect to the Docker Engine at /);
  const { Version, Spec } = await api.get<ServiceView>("/services/web");
  const scaled = { ...Spec, Mode: { Replicated: { Replicas: 4 } } };
  await api.post(`/services/web/update?version=${Version.Index}`, scaled);
  await until(docker, "the fourth task is there", async () => (await api.tasks("web")).some(({ Slot }) => Slot === 4));
  // After ten seconds the node is down, and there is no other.
  await eachTaskSays("web", /^(Cannot connect to the Docker Engine at |no suitable node )/);
  assert.deepEqual(machine.find("daemon"), daemon);
  await playground.start("node-1");
  await converged(docker, "web", 4);
  assert.deepEqual(machine.find("daemon"), daemon);
  assert.deepEqual(await docker.lines(["node", "ls", "--format", "{{.Status}}"]), ["Ready"]);
});

test("a daemon that is started without an Engine answers, its tasks say why they wait, and run when it is there", async () => {
  const machine = playground.machine("node-1");
  await playground.kill("node-1", "daemon");
  await playground.kill("node-1", "engine");
  await machine.startDaemon();
  assert.deepEqual(
    (await api.services()).map(({ Spec }) => [Spec.Name, Spec.Mode.Replicated?.Replicas]),
    [["web", 4]],
  );
  const ContainerSpec = { Image: image };
  await api.post("/services/create", { Name: "late", TaskTemplate: { ContainerSpec } });
  await eachTaskSays("late", /^no suitable node \(1 node not available for new tasks: 1 (down|unknown)\)$/);
  await playground.start("node-1");
  await converged(docker, "web", 4);
  await converged(docker, "late", 1);
  await docker.ok(["service", "rm", "late"]);
  await docker.ok(["service", "scale", "--detach", "web=3"]);
  await converged(docker, "web", 3);
});

test("a node whose power is cut comes back with its services", async () => {
  await playground.kill("node-1");
  await playground.start("node-1");
  await converged(docker, "web", 3);
});

test("leave --force after all this removes everything", async () => {
  await docker.ok(["swarm", "leave", "--force"]);
  await until(docker, "no task container is left", async () => (await containersOf(docker, "web", true)).length === 0);
  await docker.ok(["swarm", "init", "--advertise-addr", node.address]);
  assert.deepEqual(await docker.lines(["service", "ls", "--quiet"]), []);
});
