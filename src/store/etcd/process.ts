/**
 * The etcd program as a child of this manager. It is started with its whole configuration on the command line, watched
 * and started again when it dies, and never outlives its manager: the kernel kills it with us, and one that was left
 * behind all the same (by its pid file) is ended before a new one starts.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants, existsSync } from "node:fs";
import { access, type FileHandle, mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { Backoff } from "../../lib/backoff.ts";
import { type Clock, sleep, type Timer, within } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Random } from "../../lib/random.ts";
import { requestBytes } from "./client.ts";
import type { KeyedCertificate } from "./options.ts";

/** What a failed start repeats with, at most every 5 s: a full disk or a taken port may be free again. */
const restartBackoff = { baseMs: 100, maxMs: 5_000 };
/** Who has run for this long has started well: the next death is a new one. */
const settledMs = 10_000;
const terminateMs = 3_000;
const killMs = 5_000;
const pollMs = 20;
/** A unix socket's path is at most 107 bytes long. */
const longestSocketPath = 107;
/** etcd takes no path in a URL: it is started in its directory, and makes the socket there. */
const socketName = "client:0";

/** How the member finds its cluster at its very first start; etcd ignores it afterwards. */
export interface Bootstrap {
  readonly state: "new" | "existing";
  /** All members, itself among them: name to peer URL. */
  readonly members: readonly { readonly name: string; readonly url: string }[];
}

export interface EtcdProcessOptions {
  /** Absolute; the process's own: data, certificates, socket and pid file are in it. */
  readonly directory: string;
  readonly name: string;
  readonly peerUrl: string;
  readonly listenPeerUrl: string;
  readonly certificate: KeyedCertificate;
  /** PEM. */
  readonly trustedCA: string;
  readonly bootstrap: Bootstrap;
  /** For the first start only: makes the member's data a cluster of this member alone. */
  readonly forceNewCluster: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** The cluster has removed this member: it is not started again. */
  readonly onRemoved: () => void;
}

type State =
  | { readonly kind: "stopped" }
  | { readonly kind: "running"; readonly child: ChildProcess; readonly ended: Promise<void> }
  /** Died; to be started again. */
  | { readonly kind: "waiting"; readonly timer: Timer }
  | { readonly kind: "removed" };

export function dataDirectory(directory: string): string {
  return join(directory, "data");
}

export function clientSocket(directory: string): string {
  return join(directory, socketName);
}

function pidFile(directory: string): string {
  return join(directory, "etcd.pid");
}

/** Path of the program. FailedPrecondition, with the package to install, where there is none. */
export async function findEtcd(): Promise<string> {
  const found = await findProgram("etcd");
  if (found) return found;
  throw new ShoalError(
    "FailedPrecondition",
    "a swarm with several managers needs the program etcd on each of them: install the package etcd-server",
  );
}

async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of [...(process.env.PATH ?? "").split(delimiter), "/usr/bin", "/usr/local/bin"]) {
    const path = join(folder, name);
    if (folder !== "" && (await isExecutable(path))) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

export class EtcdProcess {
  readonly #options: EtcdProcessOptions;
  readonly #program: string;
  /** Makes the kernel end etcd when we end; part of Debian's base system. */
  readonly #setpriv: string | undefined;
  /** The private key of its peer connections: etcd reads it through a descriptor that it inherits. */
  readonly #key: FileHandle;
  readonly #backoff: Backoff;
  #state: State = { kind: "stopped" };
  #forceNewCluster: boolean;
  #stopping = false;
  #lastFatal = "";
  /** How often it has died in a row. */
  #deaths = 0;

  private constructor(options: EtcdProcessOptions, program: string, setpriv: string | undefined, key: FileHandle) {
    this.#key = key;
    this.#options = options;
    this.#program = program;
    this.#setpriv = setpriv;
    this.#backoff = new Backoff(restartBackoff, options.random);
    this.#forceNewCluster = options.forceNewCluster;
  }

  /** Writes its files, ends an orphan, and starts it; it does not answer yet when this resolves. */
  static async start(options: EtcdProcessOptions): Promise<EtcdProcess> {
    const program = await findEtcd();
    const { directory } = options;
    if (Buffer.byteLength(clientSocket(directory)) > longestSocketPath) {
      throw new ShoalError("InvalidArgument", `the path of the data directory is too long for a socket: ${directory}`);
    }
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await endOrphan(directory, options.clock, options.log);
    await writeTlsFiles(options);
    const key = await unnamedFile(directory, options.certificate.key);
    const process = new EtcdProcess(options, program, await findProgram("setpriv"), key);
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
    const { directory, log } = this.#options;
    // etcd would take a socket that was left behind for another etcd's.
    await rm(clientSocket(directory), { force: true });
    if (this.#stopping) return;
    const command = [this.#program, ...this.#arguments()];
    if (this.#setpriv) command.unshift(this.#setpriv, "--pdeathsig", "KILL");
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
    const startedAt = this.#options.clock.now();
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
    void ended.then(() => this.#onEnded(startedAt));
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

  #arguments(): string[] {
    const { directory, name, peerUrl, listenPeerUrl, bootstrap } = this.#options;
    const tls = tlsPaths(directory);
    const flags: Record<string, string> = {
      name,
      "data-dir": dataDirectory(directory),
      "listen-client-urls": `unix://${socketName}`,
      "advertise-client-urls": `unix://${socketName}`,
      "listen-peer-urls": listenPeerUrl,
      "initial-advertise-peer-urls": peerUrl,
      "initial-cluster-token": "shoal",
      "initial-cluster-state": bootstrap.state,
      "initial-cluster": bootstrap.members.map((member) => `${member.name}=${member.url}`).join(","),
      "peer-cert-file": tls.certificate,
      "peer-key-file": "/proc/self/fd/3", // see `unnamedFile`
      "peer-trusted-ca-file": tls.trustedCA,
      "peer-client-cert-auth": "true",
      // A manager may speak from another address than the one that it is reached at; its certificate is enough.
      "experimental-peer-skip-client-san-verification": "true",
      "heartbeat-interval": "100",
      "election-timeout": "1000",
      // A member that comes back from a partition must not unseat a leader that has a quorum.
      "pre-vote": "true",
      // Our own checks (membership.ts) know better: etcd's would refuse a third manager within 5 s of the second.
      "strict-reconfig-check": "false",
      "max-txn-ops": "100000",
      "max-request-bytes": String(requestBytes),
      "quota-backend-bytes": String(8 * 1024 ** 3),
      // Entries that stay in memory; etcd keeps 5,000 more for members that lag.
      "snapshot-count": "5000",
      "max-snapshots": "2",
      "max-wals": "2",
      "enable-grpc-gateway": "false",
      "experimental-backend-bbolt-freelist-type": "map",
      logger: "zap",
      "log-outputs": "stderr",
      "log-level": "warn",
    };
    if (this.#forceNewCluster) flags["force-new-cluster"] = "true";
    return Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
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

function tlsPaths(directory: string) {
  return {
    certificate: join(directory, "peer.crt"),
    trustedCA: join(directory, "peer-ca.crt"),
  };
}

async function writeTlsFiles({ directory, certificate, trustedCA }: EtcdProcessOptions): Promise<void> {
  const paths = tlsPaths(directory);
  const write = async (path: string, content: string) => {
    await rm(path, { force: true }); // so that the mode is that of a new file
    await writeFile(path, content, { mode: 0o600 });
  };
  await write(paths.certificate, certificate.certificate);
  await write(paths.trustedCA, trustedCA);
}

/**
 * A file that has no name any more, in memory where the machine has a place for that: etcd takes its key only from a
 * file, and it must not be found on the disk of a locked manager, nor of one that lost its power.
 */
async function unnamedFile(directory: string, content: string): Promise<FileHandle> {
  const memory = "/dev/shm";
  const place = await access(memory, constants.W_OK).then(
    () => memory,
    () => directory,
  );
  const path = join(await mkdtemp(join(place, "shoal-")), "key");
  try {
    await writeFile(path, content, { mode: 0o600, flag: "wx" });
    return await open(path, "r");
  } finally {
    await rm(dirname(path), { recursive: true, force: true });
  }
}

/** Ends an etcd that a killed manager left behind on this directory. */
export async function endOrphan(directory: string, clock: Clock, log: Logger): Promise<void> {
  const path = pidFile(directory);
  if (!existsSync(path)) return;
  const pid = Number.parseInt(await readFile(path, "utf8"), 10);
  if (await isOurs(pid, directory)) {
    log.warn("an etcd of an earlier run is ended", { pid });
    process.kill(pid, "SIGKILL");
    const end = clock.now() + killMs;
    while (await isOurs(pid, directory)) {
      if (clock.now() >= end)
        throw new ShoalError("Unavailable", `etcd (pid ${pid}) of an earlier run cannot be ended`);
      await sleep(clock, pollMs);
    }
  }
  await rm(path, { force: true });
}

/** Whether that process runs etcd on our directory: pids come again. */
async function isOurs(pid: number, directory: string): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid <= 1) return false;
  try {
    const command = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
    return command.includes(`--data-dir=${dataDirectory(directory)}`);
  } catch (error) {
    // Gone, or never there.
    if (isShoalError(error)) throw error;
    return false;
  }
}
