/**
 * The etcd program as a child of this manager. It is started with its whole configuration on the command line, watched
 * and started again when it dies, and never outlives its manager: the kernel kills it with us, and one that was left
 * behind all the same (by its pid file) is ended before a new one starts.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { type FileHandle, mkdir, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";
import { Backoff } from "../../lib/backoff.ts";
import { type Clock, type Timer, within } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { etcdArguments, type MemberConfiguration } from "./arguments.ts";
import { checkDirectory, clientSocket, dataArgument, pidFile } from "./directory.ts";
import type { KeyedCertificate } from "./options.ts";
import { endOrphan } from "./orphan.ts";
import { findEtcd, findProgram } from "./program.ts";
import { unnamedFile, writeTlsFiles } from "./tls-files.ts";
import { Watchdog } from "./watchdog.ts";

/** What a failed start repeats with, at most every 5 s: a full disk or a taken port may be free again. */
const restartBackoff = { baseMs: 100, maxMs: 5_000 };
/** Who has run for this long has started well: the next death is a new one. */
const settledMs = 10_000;
const terminateMs = 3_000;

/** `forceNewCluster` is for the first start only. */
export interface EtcdProcessOptions extends MemberConfiguration {
  readonly certificate: KeyedCertificate;
  /** PEM. */
  readonly trustedCA: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The cluster has removed this member: it is not started again. */
  readonly onRemoved: () => void;
}

interface Programs {
  readonly etcd: string;
  /** Makes the kernel end etcd when we end; part of Debian's base system. */
  readonly setpriv: string | undefined;
  /** Runs the watchdog; likewise. */
  readonly bash: string | undefined;
}

type State =
  | { readonly kind: "stopped" }
  | { readonly kind: "running"; readonly child: ChildProcess; readonly ended: Promise<void> }
  /** Died; to be started again. */
  | { readonly kind: "waiting"; readonly timer: Timer }
  | { readonly kind: "removed" };

export class EtcdProcess {
  readonly #options: EtcdProcessOptions;
  readonly #programs: Programs;
  /** The private key of its peer connections: etcd reads it through a descriptor that it inherits. */
  readonly #key: FileHandle;
  readonly #backoff: Backoff;
  #state: State = { kind: "stopped" };
  #forceNewCluster: boolean;
  #stopping = false;
  #lastFatal = "";
  /** How often it has died in a row. */
  #deaths = 0;

  private constructor(options: EtcdProcessOptions, programs: Programs, key: FileHandle) {
    this.#key = key;
    this.#options = options;
    this.#programs = programs;
    this.#backoff = new Backoff(restartBackoff, options.random);
    this.#forceNewCluster = options.forceNewCluster;
  }

  /** Writes its files, ends an orphan, and starts it; it does not answer yet when this resolves. */
  static async start(options: EtcdProcessOptions): Promise<EtcdProcess> {
    const etcd = await findEtcd();
    const { directory } = options;
    checkDirectory(directory);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await endOrphan(directory, options.clock, options.log);
    await writeTlsFiles(directory, options.certificate, options.trustedCA);
    const key = await unnamedFile(directory, options.certificate.key);
    const [setpriv, bash] = [await findProgram("setpriv"), await findProgram("bash")];
    if (bash === undefined) options.log.warn("without the program bash, a manager that hangs keeps the lead");
    const process = new EtcdProcess(options, { etcd, setpriv, bash }, key);
    await process.#spawn();
    return process;
  }

  get pid(): number | undefined {
    return this.#state.kind === "running" ? this.#state.child.pid : undefined;
  }

  /** The reason of the last death, as etcd gave it. */
  get lastFatal(): string {
    return this.#lastFatal;
  }

  /** Why it cannot run, where it dies again and again: a full disk, say. */
  get trouble(): string | undefined {
    return this.#deaths > 1 ? this.#lastFatal || "etcd cannot be started" : undefined;
  }

  /** Ends it: asked first, which hands a lead over; killed if it does not. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const state = this.#state;
    if (state.kind === "waiting") state.timer.cancel();
    if (state.kind === "running") {
      const { clock, log } = this.#options;
      state.child.kill("SIGTERM");
      const done = state.ended.then(() => true);
      const ended = await within(clock, terminateMs, done, () => false);
      if (!ended) {
        log.warn("etcd does not end, it is killed");
        state.child.kill("SIGKILL");
        await state.ended;
      }
    }
    this.#state = { kind: "stopped" };
    await this.#key.close();
    await rm(pidFile(this.#options.directory), { force: true });
  }

  async #spawn(): Promise<void> {
    const { directory, clock, log } = this.#options;
    // etcd would take a socket that was left behind for another etcd's.
    await rm(clientSocket(directory), { force: true });
    if (this.#stopping) return;
    const { etcd, setpriv, bash } = this.#programs;
    const command = [etcd, ...etcdArguments({ ...this.#options, forceNewCluster: this.#forceNewCluster })];
    if (setpriv) command.unshift(setpriv, "--pdeathsig", "KILL");
    const child = spawn(command[0]!, command.slice(1), {
      cwd: directory,
      stdio: ["ignore", "ignore", "pipe", this.#key.fd],
      env: {
        PATH: process.env.PATH,
        // It shares the machine with the tasks: a few threads, and memory rather collected than kept.
        GOMAXPROCS: String(Math.min(4, Math.max(2, availableParallelism()))),
        GOGC: "50",
      },
    });
    this.#forceNewCluster = false;
    const startedAt = clock.now();
    const ended = new Promise<void>((resolve) => {
      child.once("error", (error) => {
        log.error("etcd cannot be started", { error: messageOf(error) });
        resolve();
      });
      child.once("exit", (code, signal) => {
        if (!this.#stopping) log.error("etcd has ended", { code, signal, reason: this.#lastFatal });
        resolve();
      });
    });
    createInterface({ input: child.stderr! }).on("line", (line) => this.#heard(line));
    this.#state = { kind: "running", child, ended };
    const watchdog =
      bash !== undefined && child.pid !== undefined
        ? new Watchdog({ bash, pid: child.pid, argument: dataArgument(directory), clock, log })
        : undefined;
    void ended.then(() => {
      watchdog?.stop();
      this.#onEnded(startedAt);
    });
    if (child.pid !== undefined) await writeFile(pidFile(directory), `${child.pid}\n`, { mode: 0o600 });
  }

  #onEnded(startedAt: number): void {
    if (this.#stopping || this.#state.kind === "removed") return;
    const { clock, log } = this.#options;
    if (clock.now() - startedAt > settledMs) {
      this.#backoff.reset();
      this.#deaths = 0;
    }
    this.#deaths++;
    const timer = clock.after(this.#backoff.nextMs(), () => {
      this.#spawn().catch((error) => log.error("etcd cannot be started again", { error: messageOf(error) }));
    });
    this.#state = { kind: "waiting", timer };
  }

  /** One line of etcd's log, JSON. What it warns of is of use to us alone; errors are for everybody. */
  #heard(line: string): void {
    const { log } = this.#options;
    const { level, msg, error, ts: _, caller: __, stacktrace: ___, ...rest } = parseLogLine(line);
    const fields = error ? { ...rest, error } : rest;
    if (level === "fatal" || level === "panic") this.#lastFatal = error ? `${msg}: ${error}` : msg;
    if (level === "warn" || level === "info" || level === "debug") log.debug(msg, fields);
    else log.warn(`etcd: ${msg}`, fields);
    if (/has been (permanently )?removed/.test(`${msg} ${error}`) && this.#state.kind === "running") {
      const { child } = this.#state;
      this.#state = { kind: "removed" };
      child.kill("SIGKILL");
      log.warn("this manager has been removed from the store's cluster");
      this.#options.onRemoved();
    }
  }
}

function parseLogLine(line: string): { level: string; msg: string; error: string; [field: string]: unknown } {
  try {
    const parsed = JSON.parse(line);
    return { ...parsed, level: String(parsed.level), msg: String(parsed.msg), error: String(parsed.error ?? "") };
  } catch {
    return { level: "debug", msg: line, error: "" }; // a line of Go's runtime: a panic's trace
  }
}
