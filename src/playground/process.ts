/**
 * Processes of the playground: programs that are run to their end (bounded), and ones that stay, known by pid and start
 * time. A pid alone is never trusted: the number may have gone to another process since, and ending that one would hurt
 * somebody else's work.
 */
import { execFile, spawn } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { ShoalError } from "../lib/errors.ts";
import { eventually } from "./wait.ts";

const programLimitMs = 30_000;
const outputLimitBytes = 16 * 1024 * 1024;

/**
 * The environment of everything that runs on a node: the same wherever the playground is started from. No proxies: a
 * node has no way out, so that registry look-ups fail at once.
 */
export const nodeEnvironment: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
};

/** Standard output of a program. Internal with its standard error when it fails or takes longer than `limitMs`. */
export function run(
  program: string,
  args: readonly string[],
  options: { readonly input?: string; readonly limitMs?: number } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const limitMs = options.limitMs ?? programLimitMs;
    const child = execFile(
      program,
      [...args],
      { timeout: limitMs, killSignal: "SIGKILL", maxBuffer: outputLimitBytes },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout);
        const why = error.killed ? `no end within ${limitMs / 1000} s` : stderr.trim() || error.message;
        reject(new ShoalError("Internal", `${program} ${args.join(" ")}: ${why}`, { cause: error }));
      },
    );
    child.stdin?.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") reject(error); // a program may end without reading; its exit status tells
    });
    child.stdin?.end(options.input ?? "");
  });
}

/** One process, for good: a pid with the time at which it started (clock ticks since boot). */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: string;
}

/** The process that has this pid now; undefined where there is none, or only a zombie. */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The second field is the name in parentheses and may hold anything, so fields are counted from its end.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTicks = fields[19];
  if (startTicks === undefined || state === "Z" || state === "X") return undefined;
  return { pid, startTicks };
}

export function isAlive(process: ProcessIdentity | undefined): process is ProcessIdentity {
  return process !== undefined && identify(process.pid)?.startTicks === process.startTicks;
}

export function writePidFile(path: string, process: ProcessIdentity): void {
  writeFileSync(path, `${process.pid} ${process.startTicks}\n`);
}

/** What the file says, alive or not; undefined where there is no (readable) file. */
export function readPidFile(path: string): ProcessIdentity | undefined {
  const match = /^(\d+) (\d+)$/.exec(readProc(path)?.trim() ?? "");
  return match ? { pid: Number(match[1]), startTicks: match[2]! } : undefined;
}

/** Sends a signal to that very process. False when it has ended already. */
export function signal(target: ProcessIdentity, name: NodeJS.Signals): boolean {
  if (!isAlive(target)) return false;
  try {
    return process.kill(target.pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** Sends a signal and waits for the end; DeadlineExceeded when the process is still there after `limitMs`. */
export async function end(target: ProcessIdentity, name: NodeJS.Signals, limitMs: number): Promise<void> {
  if (!signal(target, name)) return;
  await eventually(
    { what: `process ${target.pid} ends after ${name}`, limitMs, intervalMs: 10 },
    () => !isAlive(target),
  );
}

/** Starts a program that outlives this one; what it prints is appended to `logFile`. */
export function spawnDetached(program: string, args: readonly string[], logFile: string): number {
  const log = openSync(logFile, "a");
  try {
    const child = spawn(program, [...args], {
      detached: true,
      stdio: ["ignore", log, log],
      env: { ...nodeEnvironment },
      cwd: "/",
    });
    child.on("error", () => {
      // No pid then, which is reported below; without a listener the event would end this process.
    });
    child.unref();
    if (child.pid === undefined) throw new ShoalError("Internal", `${program} cannot be started`);
    return child.pid;
  } finally {
    closeSync(log);
  }
}

/** All processes in the pid namespace whose first process is `init`; itself included. */
export function processesOf(init: ProcessIdentity): ProcessIdentity[] {
  const namespace = readLink(`/proc/${init.pid}/ns/pid`);
  if (namespace === undefined) return [];
  const found: ProcessIdentity[] = [];
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry) || readLink(`/proc/${entry}/ns/pid`) !== namespace) continue;
    const identity = identify(Number(entry));
    if (identity) found.push(identity);
  }
  return found;
}

/** The pid that a process has in its own pid namespace. */
export function innerPid(target: ProcessIdentity): number | undefined {
  const line = /^NSpid:(.*)$/m.exec(readProc(`/proc/${target.pid}/status`) ?? "")?.[1];
  const last = line?.trim().split(/\s+/).at(-1);
  return last === undefined ? undefined : Number(last);
}

/** The program's short name (at most 15 characters); "" when it has ended. */
export function commandName(target: ProcessIdentity): string {
  return readProc(`/proc/${target.pid}/comm`)?.trim() ?? "";
}

export function removeFile(path: string): void {
  rmSync(path, { force: true });
}

/** The last lines of a file, for an error message; says so where there is no such file. */
export function tailOf(path: string, lines = 20): string {
  const text = readProc(path);
  if (text === undefined) return `(no ${path})`;
  return `last lines of ${path}:\n${text.trimEnd().split("\n").slice(-lines).join("\n")}`;
}

/** A file's text; undefined where it (or the process that it is about) is gone. */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    return gone(error);
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    return gone(error);
  }
}

function gone(error: unknown): undefined {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOENT" || code === "ESRCH" || code === "EACCES") return undefined;
  throw error;
}
