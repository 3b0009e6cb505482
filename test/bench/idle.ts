/**
 * `npm run bench -- idle`: what a daemon costs that has nothing to do: resident memory and CPU over 30 s. The process
 * is the one that listens on the side's socket.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { median, printTable, type Row } from "./figures.ts";
import { type Side, withSides } from "./sides.ts";

/** After a start a daemon still tidies up; that is not idling. */
const settleMs = 5_000;
const sampleEveryMs = 1_000;
const ticksPerSecond = 100; // USER_HZ: the kernel's unit in /proc, on every Linux

interface Usage {
  readonly residentMiB: number;
  readonly cpuPercent: number;
}

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: { host: { type: "string" }, against: { type: "string" }, seconds: { type: "string", default: "30" } },
  });
  return withSides(values, async (sides) => {
    await delay(settleMs);
    // At the same time: neither does anything.
    const usages = await Promise.all(sides.map((side) => measure(side, Number(values.seconds))));
    return printTable(`Idle for ${values.seconds} s`, rowsOf(usages));
  });
}

function rowsOf([shoal, other]: readonly Usage[]): Row[] {
  return [
    {
      what: "resident memory (median)",
      unit: "MiB",
      shoal: shoal!.residentMiB,
      ...(other ? { other: other.residentMiB } : {}),
      target: 150,
    },
    {
      what: "CPU, of one core",
      unit: "%",
      shoal: shoal!.cpuPercent,
      ...(other ? { other: other.cpuPercent } : {}),
      target: 1,
    },
  ];
}

async function measure(side: Side, seconds: number): Promise<Usage> {
  const pid = listenerOf(side.socket);
  const resident: number[] = [];
  const ticksBefore = cpuTicks(pid);
  const startedAt = performance.now();
  while (performance.now() - startedAt < seconds * 1000) {
    await delay(sampleEveryMs);
    resident.push(residentMiB(pid));
  }
  const elapsedSeconds = (performance.now() - startedAt) / 1000;
  const cpuSeconds = (cpuTicks(pid) - ticksBefore) / ticksPerSecond;
  return { residentMiB: median(resident), cpuPercent: (cpuSeconds / elapsedSeconds) * 100 };
}

function residentMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}

function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** The process that listens on a unix socket, in whatever namespace it lives. */
function listenerOf(path: string): number {
  const inodesByNamespace = new Map<string, ReadonlySet<string>>();
  for (const pid of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    const namespace = attempt(() => readlinkSync(`/proc/${pid}/ns/net`));
    if (namespace === undefined) continue;
    const inodes = inodesByNamespace.get(namespace) ?? listeningInodes(pid, path);
    inodesByNamespace.set(namespace, inodes);
    if (inodes.size === 0) continue;
    for (const descriptor of attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      const inode = /^socket:\[(\d+)\]$/.exec(attempt(() => readlinkSync(`/proc/${pid}/fd/${descriptor}`)) ?? "")?.[1];
      if (inode !== undefined && inodes.has(inode)) return Number(pid);
    }
  }
  throw new Error(`no process listens on ${path}`);
}

/** Inodes of the listening sockets of this path in the network namespace of `pid`. */
function listeningInodes(pid: string, path: string): ReadonlySet<string> {
  const accepts = 0x10000; // __SO_ACCEPTCON
  const inodes = new Set<string>();
  for (const line of (attempt(() => readFileSync(`/proc/${pid}/net/unix`, "utf8")) ?? "").split("\n")) {
    const [, , , flags = "0", , , inode, name] = line.trim().split(/\s+/);
    if (name === path && inode !== undefined && (Number.parseInt(flags, 16) & accepts) !== 0) inodes.add(inode);
  }
  return inodes;
}

/** undefined where the process has ended in the meantime, or is not ours to look at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
