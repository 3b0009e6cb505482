/**
 * `npm run bench -- rolling`: a rolling update of 20 tasks on one node, from the API call until all new tasks run and no
 * old container is left, and until the swarm says that the update is completed (a monitoring period later). Tasks obey
 * SIGTERM at once, and there is no delay between slots: what is measured is the way from one step to the next.
 *
 * Both sides do the same, by turns, each alone; what is given is the median.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ensureSampleImage, sampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { type DockerClient, filtersOf } from "./client.ts";
import { median, printTable, type Row } from "./figures.ts";
import { inTurns, type Side, withSides } from "./sides.ts";

const replicas = 20;
const second = 1e9;
const lookEveryMs = 25;
const limitMs = 180_000;
/** Between two updates: the kernel still takes down what the last one left, and the next is not to pay. */
const restMs = 1_500;

interface Case {
  readonly what: string;
  readonly runs: number;
  readonly parallelism: number;
  readonly order: "stop-first" | "start-first";
  /** Promised: of the other side's time until all new tasks run. */
  readonly ratioTarget?: number;
}

const cases: readonly Case[] = [
  { what: "parallelism 5, stop-first", runs: 3, parallelism: 5, order: "stop-first", ratioTarget: 0.5 },
  { what: "parallelism 5, start-first", runs: 3, parallelism: 5, order: "start-first", ratioTarget: 0.9 },
  { what: "parallelism 1, stop-first", runs: 1, parallelism: 1, order: "stop-first", ratioTarget: 0.33 },
  { what: "all at once, stop-first", runs: 3, parallelism: 0, order: "stop-first" },
];

interface ServiceBody {
  readonly Version: { readonly Index: number };
  readonly Spec: { readonly TaskTemplate: { readonly ForceUpdate?: number } };
  readonly UpdateStatus?: { readonly State: string; readonly Message?: string };
}

interface TaskBody {
  readonly ID: string;
  readonly DesiredState: string;
  readonly Spec: { readonly ForceUpdate?: number };
  readonly Status: { readonly State: string; readonly Err?: string };
}

/** Milliseconds since the update was asked for. */
interface Times {
  readonly running: number;
  readonly completed: number;
}

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      host: { type: "string" },
      against: { type: "string" },
      runs: { type: "string" },
      only: { type: "string" },
    },
  });
  return withSides(values, async (sides) => {
    const rows: Row[] = [];
    for (const { socket } of sides) await ensureSampleImage(socket);
    const chosen = cases.filter(({ what }) => what.includes(values.only ?? ""));
    for (const one of chosen) {
      const measured = new Map<Side, Times[]>();
      const services = new Map<Side, string>();
      const wanted = Number(values.runs ?? one.runs);
      for (let index = 1; index <= wanted; index++) {
        for (const side of inTurns(sides, index)) {
          const id = services.get(side) ?? (await createService(side.client, one));
          services.set(side, id);
          await delay(restMs);
          const times = await update(side.client, id);
          measured.set(side, [...(measured.get(side) ?? []), times]);
          console.log(`${one.what}: ${side.name} ${Math.round(times.running)} ms, ${Math.round(times.completed)} ms`);
        }
      }
      for (const [{ client }, id] of services) await removeService(client, id);
      rows.push(...rowsOf(one, measured, sides));
    }
    return printTable(`Rolling update of ${replicas} tasks on one node`, rows);
  });
}

function rowsOf(
  { what, ratioTarget }: Case,
  measured: ReadonlyMap<Side, readonly Times[]>,
  sides: readonly Side[],
): Row[] {
  const [shoal, other] = sides;
  const figure = (name: keyof Times, title: string, target?: number): Row => {
    const of = (side: Side) => median((measured.get(side) ?? []).map((times) => times[name]));
    return {
      what: `${what}: ${title}`,
      unit: "ms",
      shoal: of(shoal!),
      ...(other ? { other: of(other) } : {}),
      ...(target === undefined ? {} : { ratioTarget: target }),
    };
  };
  return [figure("running", "all new running", ratioTarget), figure("completed", "completed")];
}

async function createService(client: DockerClient, { parallelism, order }: Case): Promise<string> {
  const Command = ["sh", "-c", 'trap "exit 0" TERM; sleep 1000000 & wait'];
  const body = {
    Name: "bench-rolling",
    TaskTemplate: {
      ContainerSpec: { Image: sampleImage, Command, StopGracePeriod: second },
      RestartPolicy: { Condition: "any", Delay: 0 },
    },
    Mode: { Replicated: { Replicas: replicas } },
    UpdateConfig: { Parallelism: parallelism, Order: order, Delay: 0 },
  };
  const { ID } = await client.call<{ ID: string }>("POST", "/services/create", body);
  await newRunning(client, ID, 0);
  return ID;
}

async function update(client: DockerClient, id: string): Promise<Times> {
  const { Version, Spec } = await client.call<ServiceBody>("GET", `/services/${id}`);
  const ForceUpdate = (Spec.TaskTemplate.ForceUpdate ?? 0) + 1;
  const changed = { ...Spec, TaskTemplate: { ...Spec.TaskTemplate, ForceUpdate } };
  const startedAt = performance.now();
  await client.call("POST", `/services/${id}/update?version=${Version.Index}`, changed);
  await newRunning(client, id, ForceUpdate);
  const running = performance.now() - startedAt;
  await eventually({ what: "the update is completed", limitMs, intervalMs: lookEveryMs }, async () => {
    const { UpdateStatus } = await client.call<ServiceBody>("GET", `/services/${id}`);
    if (UpdateStatus?.State === "paused") throw new Error(`the update is paused: ${UpdateStatus.Message}`);
    return UpdateStatus?.State === "completed";
  });
  return { running, completed: performance.now() - startedAt };
}

/** All tasks that are wanted are of the version, and run. */
function newRunning(client: DockerClient, id: string, forceUpdate: number): Promise<boolean> {
  const filters = filtersOf({ service: [id], "desired-state": ["running", "ready"] });
  const tasks = () => client.call<TaskBody[]>("GET", `/tasks?${filters}`);
  const details = async () => (await tasks()).map(({ ID, Status }) => `${ID} ${Status.State} ${Status.Err}`).join("\n");
  const what = `${replicas} new tasks run`;
  return eventually({ what, limitMs, intervalMs: lookEveryMs, details }, async () => {
    const all = await tasks();
    return (
      all.length === replicas &&
      all.every(
        ({ DesiredState, Status, Spec }) =>
          DesiredState === "running" && Status.State === "running" && (Spec.ForceUpdate ?? 0) === forceUpdate,
      )
    );
  });
}

async function removeService(client: DockerClient, id: string): Promise<void> {
  await client.call("DELETE", `/services/${id}`);
  const filters = filtersOf({ label: [`com.docker.swarm.service.id=${id}`] });
  await eventually({ what: "its containers are gone", limitMs, intervalMs: lookEveryMs }, async () => {
    return (await client.call<unknown[]>("GET", `/containers/json?all=true&${filters}`)).length === 0;
  });
}
