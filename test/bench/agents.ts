/**
 * `npm run bench -- agents [--agents 2000] [--tasks 50000] [--services 50]`: how many agents and tasks one manager
 * carries. The manager and the simulated agents are processes of their own (`agents-manager.ts`, `agents-swarm.ts`, 250
 * agents in each); sessions are real: mutual TLS, gRPC, heartbeats. All of it is on one machine, so the agents take processor time from
 * the manager: what is measured is a lower bound.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { ManagerReady } from "./agents-manager.ts";
import type { SwarmProgress } from "./agents-swarm.ts";
import { DockerClient } from "./client.ts";
import { median, percentile, printTable, type Row } from "./figures.ts";

const agentsPerProcess = 250;
const idleMs = 15_000;
const listEveryMs = 20;
const limitMs = 600_000;
const ticksPerSecond = 100; // USER_HZ: the kernel's unit in /proc, on every Linux
/** As bin/shoal starts a daemon. */
const daemonFlags = ["--max-semi-space-size=2", "--heap-growing-percent=100", "--disable-warning=ExperimentalWarning"];

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      agents: { type: "string", default: "2000" },
      tasks: { type: "string", default: "50000" },
      services: { type: "string", default: "50" },
      /** Writes a CPU profile of the manager into this directory. */
      profile: { type: "string" },
    },
  });
  const [agents, tasks, services] = [Number(values.agents), Number(values.tasks), Number(values.services)];
  const directory = mkdtempSync(join(tmpdir(), "shoal-bench-agents-"));
  const processes: ChildProcess[] = [];
  try {
    const profile = values.profile ? ["--cpu-prof", `--cpu-prof-dir=${values.profile}`] : [];
    const managerProcess = start("agents-manager.ts", [directory, String(agents)], [...daemonFlags, ...profile]);
    processes.push(managerProcess);
    const manager = await firstMessage<ManagerReady>(managerProcess);
    const swarm: ChildProcess[] = [];
    for (let first = 0; first < agents; first += agentsPerProcess) {
      const count = Math.min(agentsPerProcess, agents - first);
      swarm.push(start("agents-swarm.ts", [String(first), String(count)], daemonFlags));
    }
    processes.push(...swarm);
    const rows = await measure({ manager, managerPid: managerProcess.pid!, swarm, agents, tasks, services });
    return printTable(`One manager, ${agents} agents, ${tasks} tasks of ${services} services`, rows);
  } finally {
    for (const child of processes.reverse()) await end(child);
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Setting {
  readonly manager: ManagerReady;
  readonly managerPid: number;
  readonly swarm: readonly ChildProcess[];
  readonly agents: number;
  readonly tasks: number;
  readonly services: number;
}

async function measure({ manager, managerPid, swarm, agents, tasks, services }: Setting): Promise<Row[]> {
  const follow = follower(swarm);
  for (const child of swarm) child.send(manager);
  await follow.until((progress) => progress.certificates === agents);
  const registering = usageSince(managerPid);
  await follow.until((progress) => progress.sessions === agents);
  const registered = registering();
  console.log(`${agents} sessions after ${(registered.wallMs / 1000).toFixed(1)} s`);

  const resting = usageSince(managerPid);
  await delay(idleMs);
  const rest = resting();
  const restMiB = residentMiB(managerPid, "VmRSS");

  const client = new DockerClient(manager.socket);
  const lists = listInLoop(manager.socket);
  const working = usageSince(managerPid);
  const perService = Math.ceil(tasks / services);
  for (let index = 0; index < services; index++) {
    const Replicas = Math.min(perService, tasks - index * perService);
    await client.call("POST", "/services/create", serviceSpec(`web-${index}`, Replicas));
  }
  await follow.until((progress) => progress.running === tasks);
  const worked = working();
  const listMs = await lists.stop();
  client.close();
  if (follow.latest.lost > 0) throw new Error(`${follow.latest.lost} sessions were lost: ${follow.latest.lastError}`);

  const seconds = worked.wallMs / 1000;
  return [
    { what: "sessions opened", unit: "/s", shoal: agents / (registered.wallMs / 1000) },
    { what: "CPU of the manager, agents at rest, of one core", unit: "%", shoal: rest.cpuPercent },
    { what: "memory of the manager, agents at rest", unit: "MiB", shoal: restMiB },
    { what: "tasks, from create to all RUNNING", unit: "ms", shoal: worked.wallMs },
    { what: "tasks per second", unit: "/s", shoal: tasks / seconds },
    { what: "CPU of the manager meanwhile, of one core", unit: "%", shoal: worked.cpuPercent },
    { what: "memory of the manager, most", unit: "MiB", shoal: residentMiB(managerPid, "VmHWM") },
    { what: "GET /services meanwhile, p50", unit: "ms", shoal: median(listMs) },
    { what: "GET /services meanwhile, p99", unit: "ms", shoal: percentile(listMs, 0.99) },
  ];
}

function serviceSpec(Name: string, Replicas: number) {
  return {
    Name,
    Labels: { app: "bench" },
    TaskTemplate: { ContainerSpec: { Image: "registry.example/web:1", Args: ["serve"], Env: ["LEVEL=info"] } },
    Mode: { Replicated: { Replicas } },
  };
}

/** Asks for the list over and over; `stop` gives the latencies. */
function listInLoop(socket: string): { stop(): Promise<number[]> } {
  const client = new DockerClient(socket);
  const samples: number[] = [];
  let stopped = false;
  const done = (async () => {
    while (!stopped) {
      const from = performance.now();
      await client.call("GET", "/services");
      samples.push(performance.now() - from);
      await delay(listEveryMs);
    }
    client.close();
  })();
  done.catch(() => undefined); // of interest to whoever stops it; before that the failure is another one's
  return {
    async stop() {
      stopped = true;
      await done;
      return samples;
    },
  };
}

function follower(swarm: readonly ChildProcess[]) {
  const parts = swarm.map(
    (): SwarmProgress => ({ certificates: 0, sessions: 0, running: 0, lost: 0, lastError: undefined }),
  );
  let latest = sumOf(parts);
  let look = () => {};
  for (const [index, child] of swarm.entries()) {
    child.on("message", (message) => {
      parts[index] = message as SwarmProgress;
      latest = sumOf(parts);
      look();
    });
  }
  return {
    get latest() {
      return latest;
    },
    until(reached: (progress: SwarmProgress) => boolean): Promise<void> {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const timer = setTimeout(() => reject(new Error(`stuck: ${JSON.stringify(latest)}`)), limitMs);
      look = () => {
        if (reached(latest)) resolve();
        else if (latest.lost > 0) reject(new Error(`${latest.lost} sessions were lost: ${latest.lastError}`));
      };
      look();
      return promise.finally(() => clearTimeout(timer));
    },
  };
}

function sumOf(parts: readonly SwarmProgress[]): SwarmProgress {
  const sum = (member: "certificates" | "sessions" | "running" | "lost") =>
    parts.reduce((total, part) => total + part[member], 0);
  return {
    certificates: sum("certificates"),
    sessions: sum("sessions"),
    running: sum("running"),
    lost: sum("lost"),
    lastError: parts.find(({ lastError }) => lastError !== undefined)?.lastError,
  };
}

/** Wall time and CPU of a process from now until the returned function is called. */
function usageSince(pid: number): () => { readonly wallMs: number; readonly cpuPercent: number } {
  const [ticks, from] = [cpuTicks(pid), performance.now()];
  return () => {
    const wallMs = performance.now() - from;
    return { wallMs, cpuPercent: ((cpuTicks(pid) - ticks) / ticksPerSecond / (wallMs / 1000)) * 100 };
  };
}

function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return Number(fields[11]) + Number(fields[12]); // utime and stime, counted from the state
}

function residentMiB(pid: number, field: "VmRSS" | "VmHWM"): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1]) / 1024;
}

function start(file: string, args: readonly string[], execArgv: string[]): ChildProcess {
  const child = fork(join(import.meta.dirname, file), args, { execArgv });
  child.once("exit", (code, signal) => {
    if (child.connected || code !== 0) console.error(`${file} ended with ${signal ?? code}`);
  });
  return child;
}

function firstMessage<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once("message", (message) => resolve(message as T));
    child.once("exit", (code) => reject(new Error(`a process of the benchmark ended with ${code}`)));
  });
}

/** By its own way out, so that a profile is written. */
async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  if (child.connected) child.disconnect();
  await gone;
}
