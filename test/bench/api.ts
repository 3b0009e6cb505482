/**
 * `npm run bench -- api`: how long the API takes over services, as an SDK's client sees it (one client on a unix socket
 * that stays open, then 32 at once). Services have no replicas, so this is the API, the store and the disk alone.
 *
 * Both sides do the same in alternating rounds, after one round that is not counted, so that what else the machine does meets both.
 */
import { parseArgs } from "node:util";
import { type DockerClient, filtersOf } from "./client.ts";
import { median, percentile, printTable, type Row } from "./figures.ts";
import { inTurns, type Side, withSides } from "./sides.ts";

const serial = 200;
const concurrent = 256;
const clients = 32;
const reads = 100;
const lists = 20;
const updates = 50;

interface Measured {
  readonly ms: Record<Call, number[]>;
  /** Calls per second of each round. */
  readonly perSecond: Record<"create" | "create32" | "delete", number[]>;
}

type Call = "create" | "create32" | "get" | "list" | "byName" | "update" | "delete" | "ping";

interface Created {
  readonly ID: string;
}

interface ServiceBody {
  readonly Version: { readonly Index: number };
  readonly Spec: Readonly<Record<string, unknown>>;
}

const calls: readonly { call: Call; what: string; p50Target?: number }[] = [
  { call: "create", what: "POST services/create", p50Target: 1.0 },
  { call: "create32", what: "POST services/create, 32 at once" },
  { call: "update", what: "GET + POST services/{id}/update" },
  { call: "delete", what: "DELETE services/{id}" },
  { call: "get", what: "GET services/{id}" },
  { call: "byName", what: "GET services, by name" },
  { call: "list", what: `GET services, all ${serial + concurrent}` },
  { call: "ping", what: "GET _ping" },
];

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: { host: { type: "string" }, against: { type: "string" }, rounds: { type: "string", default: "5" } },
  });
  return withSides(values, async (sides) => {
    const measured = new Map<Side, Measured>();
    for (const side of sides) {
      measured.set(side, nothingYet());
      await measureRound(side.client, nothingYet(), "warm"); // not counted: code is compiled as it is used
    }
    for (let round = 1; round <= Number(values.rounds); round++) {
      for (const side of inTurns(sides, round)) await measureRound(side.client, measured.get(side)!, `r${round}`);
      console.log(`round ${round} of ${values.rounds} done`);
    }
    const [shoal, other] = sides.map((side) => measured.get(side)!);
    return printTable("API latency, services without replicas", rowsOf(shoal!, other));
  });
}

function rowsOf(shoal: Measured, other: Measured | undefined): Row[] {
  const rows: Row[] = [];
  for (const { call, what, p50Target } of calls) {
    for (const share of [0.5, 0.99]) {
      rows.push({
        what: `${what}: p${share * 100}`,
        unit: "ms",
        shoal: percentile(shoal.ms[call], share),
        ...(other ? { other: percentile(other.ms[call], share) } : {}),
        ...(p50Target !== undefined && share === 0.5 ? { ratioTarget: p50Target } : {}),
      });
    }
    if (call !== "create" && call !== "create32" && call !== "delete") continue;
    rows.push({
      what: `${what}: per second`,
      unit: "/s",
      shoal: median(shoal.perSecond[call]),
      ...(other ? { other: median(other.perSecond[call]) } : {}),
    });
  }
  return rows;
}

async function measureRound(client: DockerClient, { ms, perSecond }: Measured, round: string): Promise<void> {
  const ids: string[] = [];
  const create = async (name: string) => void ids.push((await client.call<Created>("POST", createPath, spec(name))).ID);

  perSecond.create.push(await inTurn(serial, ms.create, (index) => create(`${round}-a${index}`)));
  perSecond.create32.push(await atOnce(concurrent, ms.create32, (index) => create(`${round}-b${index}`)));
  const idOf = (index: number) => ids[(index * 7) % ids.length]!;
  await inTurn(reads, ms.get, (index) => client.call("GET", `/services/${idOf(index)}`));
  await inTurn(reads, ms.byName, (index) =>
    client.call("GET", `/services?${filtersOf({ name: [`${round}-a${index % serial}`] })}`),
  );
  await inTurn(lists, ms.list, () => client.call("GET", "/services"));
  await inTurn(reads, ms.ping, () => client.call("HEAD", "/_ping"));
  await inTurn(updates, ms.update, (index) => update(client, ids[index]!));
  perSecond.delete.push(await inTurn(serial, ms.delete, (index) => client.call("DELETE", `/services/${ids[index]}`)));
  await removeAll(client, ids.slice(serial));
}

const createPath = "/services/create";

function spec(name: string) {
  return {
    Name: `bench-${name}`,
    TaskTemplate: { ContainerSpec: { Image: "busybox:latest", Command: ["true"] } },
    Mode: { Replicated: { Replicas: 0 } },
  };
}

async function update(client: DockerClient, id: string): Promise<void> {
  const { Version, Spec } = await client.call<ServiceBody>("GET", `/services/${id}`);
  await client.call("POST", `/services/${id}/update?version=${Version.Index}`, { ...Spec, Labels: { changed: "yes" } });
}

/** One after the other; calls per second. */
async function inTurn(count: number, samples: number[], call: (index: number) => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  for (let index = 0; index < count; index++) await timed(samples, () => call(index));
  return (count * 1000) / (performance.now() - startedAt);
}

/** `clients` at a time; calls per second. */
async function atOnce(count: number, samples: number[], call: (index: number) => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const index = next++;
      await timed(samples, () => call(index));
    }
  };
  await Promise.all(Array.from({ length: clients }, worker));
  return (count * 1000) / (performance.now() - startedAt);
}

async function timed(samples: number[], call: () => Promise<unknown>): Promise<void> {
  const startedAt = performance.now();
  await call();
  samples.push(performance.now() - startedAt);
}

async function removeAll(client: DockerClient, ids: readonly string[]): Promise<void> {
  for (const id of ids) await client.call("DELETE", `/services/${id}`);
}

function nothingYet(): Measured {
  return {
    ms: { create: [], create32: [], get: [], list: [], byName: [], update: [], delete: [], ping: [] },
    perSecond: { create: [], create32: [], delete: [] },
  };
}
