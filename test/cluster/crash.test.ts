/**
 * kill -9 of the daemon at any moment: while clients change services, while a swarm is made, while it is left. After
 * each restart what was answered is there, what ran is adopted, nothing is there twice and nothing is left over.
 *
 * When to kill is drawn from a seed, SHOAL_TEST_SEED; it stands in the report, and draws the same again (what the
 * machine does in that time is its own affair).
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { after, before, type TestContext, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { between, seededRandom } from "../../src/lib/random.ts";
import { tailOf } from "../../src/playground/process.ts";
import { eventually } from "../../src/playground/wait.ts";
import { type Answer, Api, type ContainerView, serviceOf, type TaskStatusView, taskOf } from "./api.ts";
import { freshNode, settleMs, testPlayground } from "./harness.ts";
import { specOf, type Wanted, Workload } from "./workload.ts";

const playground = testPlayground("crash", "10.83.0");
const node = playground.layout.node(1);
const api = new Api(node.socket);
const engine = new Api(node.engineSocket);
const machine = () => playground.machine("node-1");
const seed = Number(process.env.SHOAL_TEST_SEED ?? 1);
const random = seededRandom(seed);

before(async () => {
  await freshNode(playground);
});

after(async () => {
  await playground.down();
});

const initBody = { ListenAddr: "0.0.0.0:2377", AdvertiseAddr: node.address };

async function localState(): Promise<string> {
  return (await api.get<{ Swarm: { LocalNodeState: string } }>("/info")).Swarm.LocalNodeState;
}

interface RunningContainer {
  readonly task: string;
  readonly service: string;
  readonly startedAt: string;
}

/** The running containers of tasks, by id. */
async function running(): Promise<ReadonlyMap<string, RunningContainer>> {
  const found = new Map<string, RunningContainer>();
  for (const container of await engine.containers()) {
    if (container.State !== "running") continue;
    const { status, text } = await engine.ask("GET", `/containers/${container.Id}/json`);
    if (status === 404) continue; // the Engine was removing it when its daemon was killed
    const { StartedAt } = (JSON.parse(text) as { State: { StartedAt: string } }).State;
    found.set(container.Id, { task: taskOf(container), service: serviceOf(container), startedAt: StartedAt });
  }
  return found;
}

/** What is not (yet) as it should be; empty when all is. Fails at once for what must not be at any moment. */
async function unsettled(wanted: ReadonlyMap<string, Wanted>): Promise<string[]> {
  const containers = await engine.containers(); // before the tasks: whose container is there must be known
  const tasks = await api.tasks();
  const services = await api.services();
  const names = new Map(services.map(({ ID, Spec }) => [ID, Spec.Name]));
  refuseDuplicates(containers, tasks, names);
  const wrong: string[] = [];
  for (const [name, { replicas, mark }] of wanted) {
    const id = services.find(({ Spec }) => Spec.Name === name)?.ID;
    const up = tasks.filter(
      ({ ServiceID, DesiredState, Status }) =>
        ServiceID === id && DesiredState === "running" && Status.State === "running",
    );
    const current = up.filter(({ Spec }) => Spec.ContainerSpec.Env?.includes(mark));
    if (up.length !== replicas || current.length !== replicas) {
      wrong.push(`${name}: ${up.length} tasks run, ${current.length} of them with ${mark}, wanted are ${replicas}`);
    }
    if (new Set(up.map(({ Slot }) => Slot)).size !== up.length) wrong.push(`${name}: a slot is filled twice`);
    const ofTasks = up.map(({ Status }) => Status.ContainerStatus?.ContainerID ?? "none").sort();
    const ofEngine = containers.filter((one) => serviceOf(one) === id && one.State === "running").map(({ Id }) => Id);
    if (ofEngine.sort().join() !== ofTasks.join()) {
      wrong.push(`${name}: containers ${ofEngine.join()} run, the tasks have ${ofTasks.join()}`);
    }
  }
  for (const container of containers) {
    if (tasks.some(({ ID }) => ID === taskOf(container))) continue;
    wrong.push(`container ${container.Names[0]} (${container.State}) belongs to no task`);
  }
  const ids = containers.map(taskOf);
  if (new Set(ids).size !== ids.length) wrong.push("a task has two containers");
  return wrong;
}

/**
 * With stop-first, a slot's new container runs only when the old one has ended. (What a scale-down gave up may still be
 * on its way out while its slot's number is used again.)
 */
function refuseDuplicates(
  containers: readonly ContainerView[],
  tasks: readonly TaskStatusView[],
  names: ReadonlyMap<string, string>,
): void {
  const slots = new Map<string, string>();
  for (const container of containers) {
    if (container.State !== "running") continue;
    const task = tasks.find(({ ID }) => ID === taskOf(container));
    const name = task && names.get(task.ServiceID);
    if (!task || name === undefined || name.startsWith("over") || task.DesiredState === "remove") continue;
    const slot = `${name}.${task.Slot}`;
    assert.equal(slots.get(slot), undefined, `${slot} runs twice: ${slots.get(slot)} and ${container.Names[0]}`);
    slots.set(slot, container.Names[0] ?? container.Id);
  }
}

/** Waits until everything is as wanted. */
async function settled(wanted: ReadonlyMap<string, Wanted>): Promise<void> {
  let wrong: string[] = [];
  let broken: assert.AssertionError | undefined;
  await eventually(
    {
      what: "the services settle",
      limitMs: settleMs,
      intervalMs: 100,
      details: async () => `${wrong.join("\n")}\n${await tasksAsText()}\n${tailOf(node.daemonLog, 30)}`,
      giveUp: () => {
        if (broken) throw broken;
      },
    },
    async () => {
      try {
        wrong = await unsettled(wanted);
      } catch (error) {
        if (error instanceof assert.AssertionError) broken = error;
        throw error;
      }
      return wrong.length === 0;
    },
  );
}

async function tasksAsText(): Promise<string> {
  const tasks = await api.tasks();
  return tasks
    .map(({ ID, ServiceID, Slot, DesiredState, Status, Spec }) => {
      const { State, Message = "", Err = "" } = Status;
      return `task ${ID} of ${ServiceID} slot ${Slot} ${Spec.ContainerSpec.Env?.[0]}: ${State}, wanted ${DesiredState}: ${Message} ${Err}`;
    })
    .join("\n");
}

/** Starts the daemon; `killAfterMs` kills this one too, wherever its start is by then. */
async function restart(killAfterMs: number | undefined): Promise<void> {
  if (killAfterMs !== undefined) {
    const started = machine()
      .startDaemon()
      .catch(() => undefined); // it is killed while it is waited for
    await pause(killAfterMs);
    await playground.kill("node-1", "daemon");
    await started;
  }
  await playground.start("node-1");
}

test("kill -9 at random moments while services are made, scaled, updated and removed", async (t) => {
  t.diagnostic(`SHOAL_TEST_SEED=${seed}`);
  await api.post("/swarm/init", initBody);
  const names = { anna: ["anna", "over-anna"], bert: ["bert", "over-bert"] };
  const workload = new Workload(random, Object.values(names).flat());
  const anchor: Wanted = { replicas: 2, mark: "MARK=anchor" };
  await api.post("/services/create", specOf("anchor", anchor));
  await settled(new Map([["anchor", anchor]]));
  const anchored = await running();

  for (let round = 1; round <= 12; round++) {
    const stopped = round % 4 === 0;
    const killAfterMs = between(random, 50, 1500);
    const again = round % 3 === 0 ? between(random, 0, 700) : undefined;
    const startedAt = performance.now();
    const clients = Object.values(names).map((own) => workload.run(api, own));
    await Promise.race([pause(killAfterMs), Promise.all(clients)]);
    if (stopped) await machine().stopDaemon();
    else await playground.kill("node-1", "daemon");
    await Promise.all(clients);
    const atKill = await running();
    await restart(again);

    const tasks = await api.tasks();
    const wanted = new Map(workload.check(await api.services()));
    const answeredMs = performance.now() - startedAt - killAfterMs;
    wanted.set("anchor", anchor);
    await settled(wanted);
    const now = await running();
    for (const [id, { startedAt }] of anchored) {
      assert.equal(now.get(id)?.startedAt, startedAt, `round ${round}: the untouched container ${id} was touched`);
    }
    await assertAdopted(tasks, wanted, atKill, now);
    const how = `${stopped ? "stopped" : "killed"}${again === undefined ? "" : " twice"}`;
    t.diagnostic(
      `round ${round}: ${how} after ${Math.round(killAfterMs)} ms with ${atKill.size} containers; ` +
        `answers after ${Math.round(answeredMs)} ms, settled after ${Math.round(performance.now() - startedAt - killAfterMs)} ms`,
    );
  }
  t.diagnostic(`${workload.changes} changes were answered`);
  assert.ok(workload.changes >= 60, `only ${workload.changes} changes were answered: too few to prove anything`);
  for (const name of [...workload.names, "anchor"]) {
    const { status } = await api.ask("DELETE", `/services/${name}`);
    assert.ok(status === 200 || status === 404, `DELETE /services/${name}: ${status}`);
  }
  await settled(new Map());
  await eventually({ what: "all tasks and containers are gone", limitMs: settleMs }, async () => {
    return (await api.tasks()).length === 0 && (await engine.containers()).length === 0;
  });
});

/** Of the containers that ran at the kill and are still wanted as they are, as many run on as the service has room. */
async function assertAdopted(
  tasks: readonly TaskStatusView[],
  wanted: ReadonlyMap<string, Wanted>,
  atKill: ReadonlyMap<string, RunningContainer>,
  now: ReadonlyMap<string, RunningContainer>,
): Promise<void> {
  for (const { ID: service, Spec } of await api.services()) {
    const { replicas, mark } = wanted.get(Spec.Name)!;
    const fit = [...atKill].filter(([, container]) => {
      const task = tasks.find(({ ID }) => ID === container.task);
      const isWanted = task?.DesiredState === "running" && task.Spec.ContainerSpec.Env?.includes(mark);
      return container.service === service && isWanted;
    });
    const kept = fit.filter(([id, { startedAt }]) => now.get(id)?.startedAt === startedAt);
    assert.ok(
      kept.length >= Math.min(fit.length, replicas),
      `${Spec.Name}: of ${fit.length} containers that fit, ${kept.length} were kept; wanted are ${replicas}`,
    );
  }
}

/** No membership, no containers, nothing on the disk. */
async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(
    (await engine.containers()).map(({ Names }) => Names[0]),
    [],
  );
  const directory = `${node.dataDir}/shoal`;
  assert.deepEqual(existsSync(directory) ? readdirSync(directory, { recursive: true }) : [], []);
  assert.equal((await api.ask("GET", "/swarm")).status, 503);
}

/** Sends a request and kills the daemon `afterMs` later; the answer, if it came. Then the daemon is started again. */
async function killDuring(path: string, body: unknown, afterMs: number): Promise<Answer | undefined> {
  const asked = api.ask("POST", path, body).catch(() => undefined); // killed while it is waited for
  await pause(afterMs);
  await playground.kill("node-1", "daemon");
  const answer = await asked;
  await playground.start("node-1");
  return answer;
}

test("kill -9 while a swarm is made or left: the next start is clean either way", async (t: TestContext) => {
  t.diagnostic(`SHOAL_TEST_SEED=${seed}`);
  await leave();
  const outcomes: string[] = [];
  for (let round = 1; round <= 8; round++) {
    const made = await killDuring("/swarm/init", initBody, between(random, 0, 250));
    let state = await localState();
    outcomes.push(`init ${made?.status ?? "unanswered"}: ${state}`);
    if (made) assert.deepEqual([made.status, state], [200, "active"], made.message);
    if (state === "inactive") {
      await assertNothingLeft();
      await api.post("/swarm/init", initBody);
    } else assert.equal(state, "active");
    const wanted: Wanted = { replicas: 2, mark: "MARK=leave" };
    await api.post("/services/create", specOf("web", wanted));
    await settled(new Map([["web", wanted]]));

    const left = await killDuring("/swarm/leave?force=true", undefined, between(random, 0, 150));
    state = await localState();
    outcomes.push(`leave ${left?.status ?? "unanswered"}: ${state}`);
    if (left) assert.deepEqual([left.status, state], [200, "inactive"], left.message);
    if (state === "active") {
      await settled(new Map([["web", wanted]])); // it had not begun
      await leave();
    } else assert.equal(state, "inactive");
    await assertNothingLeft();
  }
  t.diagnostic(outcomes.join("; "));
});

test("a leave that the Engine keeps from ending says so; it is ended by another, or by the next start", async () => {
  for (const next of ["leave", "start", "start and leave"]) {
    await api.post("/swarm/init", initBody);
    const wanted: Wanted = { replicas: 2, mark: "MARK=stuck" };
    await api.post("/services/create", specOf("web", wanted));
    await settled(new Map([["web", wanted]]));
    await playground.kill("node-1", "engine");
    const { status, message } = await api.ask("POST", "/swarm/leave?force=true");
    assert.equal(status, 503, message);
    assert.match(message, /^Cannot connect to the Docker Engine at /);
    assert.equal((await api.ask("POST", "/swarm/init", initBody)).status, 503);
    if (next !== "leave") await playground.kill("node-1", "daemon");
    if (next === "start and leave") await machine().startDaemon();
    await machine().startEngine();
    await machine().startDaemon();
    if (next !== "start") await leave();
    await assertNothingLeft();
  }
});

async function leave(): Promise<void> {
  await api.post("/swarm/leave?force=true");
}

function isOpen(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection({ host, port });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

/** Resident memory of the daemon in MiB, and the number of its open files. */
function held(): { readonly memoryMib: number; readonly files: number } {
  const directory = `/proc/${machine().find("daemon")?.pid}`;
  const status = readFileSync(`${directory}/status`, "utf8");
  const memoryMib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  return { memoryMib, files: readdirSync(`${directory}/fd`).length };
}

/** LMDB and OpenSSL keep about 1 MiB for each swarm that was left (measured; it is reused only after a long time). */
const keptPerSwarmMib = 2;

test("leave and init again, sixty times in a row", async (t) => {
  const rounds = 60;
  const startedAt = performance.now();
  const first = held();
  for (let round = 1; round <= rounds; round++) {
    await api.post("/swarm/init", initBody);
    assert.ok(await isOpen(node.address, 2377));
    if (round % 10 === 0) {
      const wanted: Wanted = { replicas: 2, mark: `MARK=${round}` };
      await api.post("/services/create", specOf("web", wanted));
      await settled(new Map([["web", wanted]]));
    }
    await leave();
    assert.equal(await isOpen(node.address, 2377), false);
    await assertNothingLeft();
  }
  const last = held();
  const took = `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
  t.diagnostic(`${took}; before ${JSON.stringify(first)}, after ${JSON.stringify(last)}`);
  assert.ok(last.memoryMib - first.memoryMib < rounds * keptPerSwarmMib, "memory grew");
  assert.ok(last.files - first.files < 10, `open files grew from ${first.files} to ${last.files}`);
});
