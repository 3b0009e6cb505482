/**
 * `npm run bench -- converge`: from an API call to the state that it asks for, on one node. Tasks run a shell that obeys
 * SIGTERM (`sleep` as pid 1 ignores it, and every stop would take the whole grace time).
 *
 * Both sides do the same, by turns, each alone; what is given is the median. What "there" means: tasks as the API shows
 * them for running, containers as the Engine lists them for gone.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ensureSampleImage, sampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { type DockerClient, filtersOf } from "./client.ts";
import { median, printTable, type Row } from "./figures.ts";
import { inTurns, type Side, withSides } from "./sides.ts";

/** How often is looked: fine where little is measured, coarse where looking costs the daemon something. */
const fineMs = 10;
const coarseMs = 25;
const limitMs = 120_000;
/** Between two runs: the kernel still takes down what the last one left (namespaces), and the next is not to pay. */
const restMs = 1_000;

interface Case {
  readonly what: string;
  readonly runs: number;
  /** Milliseconds by the name of what was measured. */
  run(client: DockerClient, name: string): Promise<Record<string, number>>;
}

interface TaskBody {
  readonly ID: string;
  readonly DesiredState: string;
  readonly Status: {
    readonly State: string;
    readonly Err?: string;
    readonly ContainerStatus?: { readonly ContainerID?: string };
  };
}

/** The ratios that SPECIFICATION.md promises. */
const targets: Readonly<Record<string, number>> = {
  "create 1, all running": 0.8,
  "rm 1, no container": 0.8,
  "kill 1, replaced (delay 0)": 0.8,
  "create 50, all running": 1.0,
};

const cases: readonly Case[] = [
  { what: "create and rm 1", runs: 7, run: (client, name) => createAndRemove(client, name, 1, fineMs) },
  { what: "kill 1", runs: 7, run: killOne },
  { what: "create and rm 10", runs: 5, run: (client, name) => createAndRemove(client, name, 10, coarseMs) },
  { what: "scale 10, 30, 10", runs: 3, run: scale },
  { what: "create and rm 50", runs: 5, run: (client, name) => createAndRemove(client, name, 50, coarseMs) },
];

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: { host: { type: "string" }, against: { type: "string" }, runs: { type: "string" } },
  });
  return withSides(values, async (sides) => {
    for (const { socket, client } of sides) {
      await ensureSampleImage(socket);
      await createAndRemove(client, "bench-warm-up", 1, fineMs);
    }
    const measured = new Map<string, Map<Side, number[]>>();
    for (const { what, runs, run: runCase } of cases) {
      const wanted = Number(values.runs ?? runs);
      for (let index = 1; index <= wanted; index++) {
        for (const side of inTurns(sides, index)) {
          await delay(restMs);
          const figures = await runCase(side.client, `bench-${index}`);
          for (const [figure, ms] of Object.entries(figures)) note(measured, figure, side, ms);
        }
      }
      console.log(`${what}: ${wanted} runs done`);
    }
    return printTable("Convergence on one node", rowsOf(measured, sides));
  });
}

function note(measured: Map<string, Map<Side, number[]>>, figure: string, side: Side, ms: number): void {
  const bySide = measured.get(figure) ?? new Map<Side, number[]>();
  measured.set(figure, bySide);
  bySide.set(side, [...(bySide.get(side) ?? []), ms]);
}

function rowsOf(measured: ReadonlyMap<string, ReadonlyMap<Side, number[]>>, sides: readonly Side[]): Row[] {
  const [shoal, other] = sides;
  return [...measured].map(([what, bySide]) => ({
    what,
    unit: "ms",
    shoal: median(bySide.get(shoal!) ?? []),
    ...(other ? { other: median(bySide.get(other) ?? []) } : {}),
    ...(targets[what] !== undefined ? { ratioTarget: targets[what] } : {}),
  }));
}

async function createAndRemove(client: DockerClient, name: string, replicas: number, everyMs: number) {
  const startedAt = performance.now();
  const id = await create(client, name, replicas);
  const answeredAt = performance.now();
  await allRunning(client, name, replicas, everyMs);
  const runningAt = performance.now();
  const removed = await removeService(client, id, name, everyMs);
  return {
    [`create ${replicas}, answer`]: answeredAt - startedAt,
    [`create ${replicas}, all running`]: runningAt - startedAt,
    [`rm ${replicas}, no container`]: removed,
  };
}

async function killOne(client: DockerClient, name: string) {
  const id = await create(client, name, 1);
  const [task] = await allRunning(client, name, 1, fineMs);
  const container = task?.Status.ContainerStatus?.ContainerID;
  if (!task || !container) throw new Error(`the running task of ${name} has no container`);
  const startedAt = performance.now();
  await client.call("POST", `/containers/${container}/kill?signal=KILL`);
  await eventually(wait(`the killed task of ${name} is replaced`, fineMs), async () =>
    (await runningTasks(client, name)).some((other) => other.ID !== task.ID),
  );
  const replacedAt = performance.now();
  await removeService(client, id, name, fineMs);
  return { "kill 1, replaced (delay 0)": replacedAt - startedAt };
}

async function scale(client: DockerClient, name: string) {
  const id = await create(client, name, 10);
  await allRunning(client, name, 10, coarseMs);
  const upAt = performance.now();
  await setReplicas(client, id, 30);
  await allRunning(client, name, 30, coarseMs);
  const downAt = performance.now();
  await setReplicas(client, id, 10);
  await containersAre(client, name, 10, coarseMs);
  const doneAt = performance.now();
  await removeService(client, id, name, coarseMs);
  return { "scale 10 to 30, all running": downAt - upAt, "scale 30 to 10, 10 containers": doneAt - downAt };
}

async function create(client: DockerClient, name: string, replicas: number): Promise<string> {
  const Command = ["sh", "-c", 'trap "exit 0" TERM; sleep 1000000 & wait'];
  const body = {
    Name: name,
    TaskTemplate: {
      ContainerSpec: { Image: sampleImage, Command },
      RestartPolicy: { Condition: "any", Delay: 0 },
    },
    Mode: { Replicated: { Replicas: replicas } },
  };
  return (await client.call<{ ID: string }>("POST", "/services/create", body)).ID;
}

async function setReplicas(client: DockerClient, id: string, Replicas: number): Promise<void> {
  const { Version, Spec } = await client.call<{ Version: { Index: number }; Spec: object }>("GET", `/services/${id}`);
  await client.call("POST", `/services/${id}/update?version=${Version.Index}`, {
    ...Spec,
    Mode: { Replicated: { Replicas } },
  });
}

/** Resolves to how long it took until no container of the service is left. */
async function removeService(client: DockerClient, id: string, name: string, everyMs: number): Promise<number> {
  const startedAt = performance.now();
  await client.call("DELETE", `/services/${id}`);
  await containersAre(client, name, 0, everyMs);
  return performance.now() - startedAt;
}

function allRunning(client: DockerClient, name: string, replicas: number, everyMs: number): Promise<TaskBody[]> {
  return eventually(
    wait(`${replicas} tasks of ${name} run`, everyMs, () => describe(client, name)),
    async () => {
      const running = await runningTasks(client, name);
      return running.length === replicas && running;
    },
  );
}

async function runningTasks(client: DockerClient, name: string): Promise<TaskBody[]> {
  const filters = filtersOf({ service: [name], "desired-state": ["running"] });
  const tasks = await client.call<TaskBody[]>("GET", `/tasks?${filters}`);
  return tasks.filter((task) => task.Status.State === "running");
}

/** Containers of the service's tasks, stopped ones too. */
function containersAre(client: DockerClient, name: string, count: number, everyMs: number): Promise<boolean> {
  const filters = filtersOf({ label: [`com.docker.swarm.service.name=${name}`] });
  return eventually(wait(`${name} has ${count} containers`, everyMs), async () => {
    return (await client.call<unknown[]>("GET", `/containers/json?all=true&${filters}`)).length === count;
  });
}

function wait(what: string, intervalMs: number, details?: () => Promise<string>) {
  return { what, limitMs, intervalMs, ...(details ? { details } : {}) };
}

async function describe(client: DockerClient, name: string): Promise<string> {
  const tasks = await client.call<TaskBody[]>("GET", `/tasks?${filtersOf({ service: [name] })}`);
  return tasks
    .map(({ ID, DesiredState, Status }) => `${ID} ${DesiredState} ${Status.State} ${Status.Err ?? ""}`)
    .join("\n");
}
