/**
 * One node of a playground: namespaces of its own (network, mount, UTS, pid), in them an Engine and Shoal's daemon.
 *
 * The first process of the pid namespace is the machine: killing it is pulling the plug, since the kernel then ends
 * everything on the node at once, and its mounts go with it. So nothing of a node can be left over, whatever the Engine
 * was doing. What a real machine would have on a tmpfs (/run) is gone afterwards too; its disk (`dataDir`) stays.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ShoalError } from "../lib/errors.ts";
import { exchange } from "./http.ts";
import type { NodeLayout } from "./layout.ts";
import { pidsInNamespace } from "./network.ts";
import {
  commandName,
  end,
  identify,
  innerPid,
  isAlive,
  nodeEnvironment,
  type ProcessIdentity,
  processesOf,
  readPidFile,
  removeFile,
  run,
  spawnDetached,
  tailOf,
  writePidFile,
} from "./process.ts";
import { eventually } from "./wait.ts";

/** Generous: a loaded two-core machine starts an Engine in 1 s, and after a power cut it first replays its disk. */
const startLimitMs = 60_000;
const killLimitMs = 10_000;
/** An Engine gives each container 10 s to end; the daemon is ended first, so that it restarts none of them. */
const stopLimitMs = 30_000;

/** What runs on a node. `machine` is the node itself; without it there are no others. */
export type NodePart = "machine" | "engine" | "daemon";

/** `daemon`: the program to run, so that a test can run another; by default this checkout's `bin/shoal`. */
export interface MachineOptions {
  readonly daemonProgram: string;
  /** Further arguments of `shoal daemon`. */
  readonly daemonArgs: readonly string[];
}

export const defaultMachineOptions: MachineOptions = {
  daemonProgram: fileURLToPath(new URL("../../bin/shoal", import.meta.url)),
  daemonArgs: [],
};

export class Machine {
  readonly node: NodeLayout;
  readonly #options: MachineOptions;

  constructor(node: NodeLayout, options: MachineOptions) {
    this.node = node;
    this.#options = options;
  }

  /** The part's process, as its pid file says, if it is still that process. */
  find(part: NodePart): ProcessIdentity | undefined {
    const known = readPidFile(this.#pidFile(part));
    return isAlive(known) ? known : undefined;
  }

  /** Starts what is not running. The node's network namespace must be there. */
  async start(): Promise<void> {
    mkdirSync(this.node.runDir, { recursive: true });
    mkdirSync(this.node.dataDir, { recursive: true });
    await this.#startMachine();
    await this.startEngine();
    await this.startDaemon();
  }

  /** Resolves when the Engine answers. */
  async startEngine(): Promise<void> {
    const { node } = this;
    if (this.find("engine")) return;
    const init = this.#running();
    // An Engine that was killed leaves these, and the next one would wait for a containerd that is no more.
    await this.#shell("rm -f /run/docker/dockerd.pid /run/docker/containerd/containerd.pid");
    removeFile(node.engineSocket);
    await this.#spawn("engine", "dockerd", node.engineLog, [
      "--data-root",
      `${node.dataDir}/engine`,
      "--exec-root",
      "/run/docker",
      "--pidfile",
      "/run/docker/dockerd.pid",
      "--host",
      `unix://${node.engineSocket}`,
      // systemd knows other pids than this namespace's, so the Engine makes its cgroups itself.
      "--exec-opt",
      "native.cgroupdriver=cgroupfs",
      "--cgroup-parent",
      `/${node.cgroup}`,
    ]);
    await this.#answers("engine", init, node.engineSocket, node.engineLog, startLimitMs);
  }

  /** Resolves when the daemon answers `/_ping`. */
  async startDaemon(): Promise<void> {
    const { node } = this;
    if (this.find("daemon")) return;
    const init = this.#running();
    await this.#spawn("daemon", this.#options.daemonProgram, node.daemonLog, [
      "daemon",
      "--data-dir",
      `${node.dataDir}/shoal`,
      "--host",
      `unix://${node.socket}`,
      "--engine",
      `unix://${node.engineSocket}`,
      ...this.#options.daemonArgs,
    ]);
    await this.#answers("daemon", init, node.socket, node.daemonLog, startLimitMs);
  }

  /**
   * kill -9 of the node (as if its power were cut), of its daemon alone (containers run on), or of its Engine alone
   * (containers' processes run on until the next Engine finds them).
   */
  async kill(part: NodePart): Promise<void> {
    if (part === "machine") {
      for (const target of await this.#firstProcesses()) await end(target, "SIGKILL", killLimitMs);
    } else if (part === "engine") {
      for (const target of processesOf(this.#running())) {
        if (["dockerd", "containerd"].includes(commandName(target))) await end(target, "SIGKILL", killLimitMs);
      }
    } else {
      const target = this.find(part);
      if (target) await end(target, "SIGKILL", killLimitMs);
    }
    const ended: readonly NodePart[] = part === "machine" ? ["machine", "engine", "daemon"] : [part];
    for (const one of ended) removeFile(this.#pidFile(one));
  }

  /** Ends the daemon alone, in order: SIGTERM, and its end. Containers run on. */
  async stopDaemon(): Promise<void> {
    const target = this.find("daemon");
    if (target) await end(target, "SIGTERM", stopLimitMs);
    removeFile(this.#pidFile("daemon"));
  }

  /** Pulls the plug and wipes the disk. */
  async destroy(): Promise<void> {
    await this.kill("machine");
    removeCgroups(this.node.cgroup);
    // A dying mount namespace may hold a directory for a moment longer.
    rmSync(this.node.dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    rmSync(this.node.runDir, { recursive: true, force: true });
  }

  /** Runs a shell line on the node; its standard output. */
  async #shell(line: string): Promise<string> {
    return run("nsenter", [...this.#inside(this.#running()), "sh", "-c", line]);
  }

  async #startMachine(): Promise<void> {
    const { node } = this;
    if (this.find("machine")) return;
    await this.kill("machine"); // one whose pid file was lost
    for (const directory of ["etc-docker", "engine", "shoal"]) {
      mkdirSync(`${node.dataDir}/${directory}`, { recursive: true });
    }
    // Nobody answers on port 53 there, so look-ups of registries fail at once instead of after 10 s.
    writeFileSync(`${node.dataDir}/resolv.conf`, "nameserver 127.0.0.1\n");
    const ready = `${node.runDir}/ready`;
    removeFile(ready);
    // The pid namespace's first process is a child of unshare, which only waits for it.
    const parent = spawnDetached(
      "nsenter",
      [
        `--net=/run/netns/${node.namespace}`,
        "unshare",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--mount-proc",
        "sh",
        "-c",
        machineScript,
        node.name,
        node.name,
        node.dataDir,
        ready,
      ],
      node.machineLog,
    );
    const unshare = identify(parent);
    const init = await eventually(
      {
        what: `${node.name}'s namespaces are there`,
        limitMs: startLimitMs,
        intervalMs: 5,
        details: () => tailOf(node.machineLog),
        giveUp: () => failUnlessAlive(unshare, `${node.name} did not start`, node.machineLog),
      },
      async () => existsSync(ready) && (await this.#firstProcesses())[0],
    );
    writePidFile(this.#pidFile("machine"), init);
  }

  /**
   * The machine's first process: by its pid file, and by looking into the network namespace, which nobody else uses.
   */
  async #firstProcesses(): Promise<ProcessIdentity[]> {
    const found = (await pidsInNamespace(this.node.namespace)).map(identify).filter((one) => one !== undefined);
    const known = this.find("machine");
    if (known && !found.some((one) => one.pid === known.pid)) found.push(known);
    return found.filter((one) => innerPid(one) === 1);
  }

  /** Starts a program on the node, in the background, and records its process. */
  async #spawn(part: NodePart, program: string, logFile: string, args: readonly string[]): Promise<void> {
    const init = this.#running();
    // The shell puts it into the background and says its pid; its parent is then the machine's first process.
    const script = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!';
    const inner = Number(
      await run("nsenter", [
        ...this.#inside(init),
        "env",
        "-i",
        ...Object.entries(nodeEnvironment).map(([name, value]) => `${name}=${value}`),
        "sh",
        "-c",
        script,
        "sh",
        logFile,
        program,
        ...args,
      ]),
    );
    const started = processesOf(init).find((one) => innerPid(one) === inner);
    if (!started) throw new ShoalError("Internal", `${program} ended at once on ${this.node.name}\n${tailOf(logFile)}`);
    writePidFile(this.#pidFile(part), started);
  }

  #answers(part: NodePart, init: ProcessIdentity, socket: string, logFile: string, limitMs: number): Promise<boolean> {
    const started = this.find(part);
    const name = `${part} of ${this.node.name}`;
    return eventually(
      {
        what: `${name} answers on ${socket}`,
        limitMs,
        details: () => tailOf(logFile),
        giveUp: () => {
          failUnlessAlive(init, `${this.node.name} has died`, this.node.machineLog);
          failUnlessAlive(started, `the ${name} ended`, logFile);
        },
      },
      async () => existsSync(socket) && (await exchange({ to: { socket }, path: "/_ping" })).status === 200,
    );
  }

  /** The machine's first process. FailedPrecondition when the node is down. */
  #running(): ProcessIdentity {
    const init = this.find("machine");
    if (!init) throw new ShoalError("FailedPrecondition", `${this.node.name} is down`);
    return init;
  }

  #inside(init: ProcessIdentity): string[] {
    return ["--target", String(init.pid), "--mount", "--uts", "--net", "--pid", "--"];
  }

  #pidFile(part: NodePart): string {
    return `${this.node.runDir}/${part}.pid`;
  }
}

/**
 * The machine's first process. $1 name, $2 disk, $3 the file that says that it is ready. It reaps whatever is left to
 * it, as an init must: `wait` of a child that sleeps reaps the others too.
 */
const machineScript = `
set -e
mkdir -p /run/docker /run/containerd /run/shoal/tasks /etc/docker
mount --make-rprivate /
hostname "$1"
for directory in /run/docker /run/containerd /run/netns /run/shoal/tasks; do mount -t tmpfs -o mode=0711 tmpfs "$directory"; done
mount --bind "$2/etc-docker" /etc/docker
mount --bind "$2/resolv.conf" /etc/resolv.conf
: >"$3"
while :; do
  sleep 86400 &
  wait $!
done
`;

function failUnlessAlive(target: ProcessIdentity | undefined, what: string, logFile: string): void {
  if (!isAlive(target)) throw new ShoalError("Unavailable", `${what}\n${tailOf(logFile)}`);
}

/** Removes a cgroup and those below it, in every hierarchy (version 1) or the only one (version 2). */
export function removeCgroups(cgroup: string): void {
  const root = "/sys/fs/cgroup";
  if (!existsSync(root)) return;
  for (const hierarchy of ["", ...readdirSync(root)]) removeCgroup(`${root}/${hierarchy}/${cgroup}`);
}

function removeCgroup(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroup(`${path}/${entry.name}`);
  }
  rmdirSync(path);
}
