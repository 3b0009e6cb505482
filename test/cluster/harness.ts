/**
 * What the tests on a real node share: a playground of their own (beside the user's, never instead of it), docker CLIs
 * run with a bound, and what to print when something did not happen.
 */
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { NodeLayout } from "../../src/playground/layout.ts";
import { playgroundLayout } from "../../src/playground/layout.ts";
import { defaultMachineOptions } from "../../src/playground/machine.ts";
import { Playground } from "../../src/playground/playground.ts";
import { tailOf } from "../../src/playground/process.ts";
import { ensureSampleImage, sampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";

export { sampleImage as image };

/**
 * The tests' playground: its names, paths and addresses are not the user's. SHOAL_TEST_DAEMON names another program to
 * run as the nodes' daemon (see stock-swarm.sh).
 * @param name files that name another one than the default may run beside each other
 */
export function testPlayground(name = "test", subnet = "10.78.0"): Playground {
  const daemonProgram = process.env.SHOAL_TEST_DAEMON ?? defaultMachineOptions.daemonProgram;
  return new Playground(playgroundLayout(name, subnet), { ...defaultMachineOptions, daemonProgram });
}

/** A fresh node that is in no swarm, with the sample image. Ends what an aborted run left. */
export async function freshNode(playground: Playground): Promise<NodeLayout> {
  await playground.down();
  await playground.up({ nodes: 1, managers: 1 });
  const node = playground.layout.node(1);
  await ensureSampleImage(node.engineSocket);
  return node;
}

export interface Output {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Default 60 s; then the CLI is killed and the call fails. */
  readonly limitMs?: number;
  readonly input?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

const defaultLimitMs = 60_000;
/** Of a command that is overtaken each time. */
const overtakenTries = 10;
/** How long a condition of the swarm may take: a loaded two-core machine needs some seconds for each container. */
export const settleMs = 90_000;

/** One docker CLI, pointed at one socket. */
export class Docker {
  readonly program: string;
  readonly node: NodeLayout;
  readonly host: string;

  /** @param host a socket's path; by default the node's daemon */
  constructor(program: string, node: NodeLayout, host: string = node.socket) {
    this.program = program;
    this.node = node;
    this.host = host;
  }

  /** The same CLI, speaking to the node's Engine past Shoal. */
  get engine(): Docker {
    return new Docker(this.program, this.node, this.node.engineSocket);
  }

  /** Whatever the status is. */
  run(args: readonly string[], options: RunOptions = {}): Promise<Output> {
    return this.#spawn(this.program, args, options);
  }

  /** Standard output, trimmed; fails with all output on a status other than 0. */
  async ok(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const output = await this.#answered(args, options);
    if (output.status !== 0) throw new Error(`docker ${args.join(" ")}: status ${output.status}\n${render(output)}`);
    return output.stdout.trim();
  }

  /** Standard error of a command that must fail. */
  async refused(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const output = await this.#answered(args, options);
    if (output.status === 0) throw new Error(`docker ${args.join(" ")} should have failed\n${render(output)}`);
    return output.stderr.trim();
  }

  /**
   * The CLI reads an object and writes it back with what is to be changed: the swarm itself may have written it in
   * between (a node that has just come back, a service that is being updated), and users ask again then.
   */
  async #answered(args: readonly string[], options: RunOptions): Promise<Output> {
    for (let tries = 1; ; tries++) {
      const output = await this.run(args, options);
      const isOvertaken = output.status !== 0 && output.stderr.includes("update out of sequence");
      if (!isOvertaken || tries === overtakenTries) return output;
    }
  }

  /** Lines of the output, without empty ones. */
  async lines(args: readonly string[], options: RunOptions = {}): Promise<string[]> {
    return (await this.ok(args, options)).split("\n").filter((line) => line !== "");
  }

  /** `docker inspect` of anything, parsed. */
  async inspect<T>(...what: readonly string[]): Promise<T> {
    return JSON.parse(await this.ok(["inspect", ...what])) as T;
  }

  /** On a terminal of its own (util-linux's script). Both streams come as one. `input` is what the user types. */
  onTerminal(args: readonly string[], options: RunOptions = {}): Promise<Output> {
    // A terminal that nobody looks at has no size, and docker draws no progress bars on it.
    const line = `stty rows 50 cols 120; exec ${[this.program, ...args].map(quote).join(" ")}`;
    return this.#spawn("script", ["--quiet", "--return", "--command", line, "/dev/null"], options);
  }

  /** A command that runs until it is stopped (`logs -f`, `events`); its lines as they come. */
  follow(args: readonly string[]): Following {
    const child = spawn(this.program, [...args], { env: this.#environment({}), stdio: ["ignore", "pipe", "pipe"] });
    const following = new Following(child);
    return following;
  }

  #environment(extra: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
    const { PATH, HOME } = process.env;
    return { PATH, HOME, TERM: "xterm", DOCKER_HOST: `unix://${this.host}`, ...extra };
  }

  #spawn(program: string, args: readonly string[], options: RunOptions): Promise<Output> {
    const limitMs = options.limitMs ?? defaultLimitMs;
    return new Promise((resolve, reject) => {
      const child = spawn(program, [...args], { env: this.#environment(options.environment ?? {}) });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
        stdout += chunk;
      });
      child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
        stderr += chunk;
      });
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        const output = render({ status: null, stdout, stderr });
        reject(new Error(`${program} ${args.join(" ")}: no end within ${limitMs / 1000} s\n${output}`));
      }, limitMs);
      child.on("error", reject);
      child.on("close", (status) => {
        clearTimeout(timer);
        resolve({ status, stdout, stderr });
      });
      child.stdin.on("error", (error: NodeJS.ErrnoException) => {
        if (error.code !== "EPIPE") reject(error); // a command may end without reading what it was given
      });
      // A terminal's user does not hang up: it stays open until the command ends.
      if (program === "script") child.stdin.write(options.input ?? "");
      else child.stdin.end(options.input ?? "");
      child.on("exit", () => child.stdin.destroy());
    });
  }
}

type FollowedProcess = ReturnType<typeof spawn>;

/** A running command whose lines can be waited for. */
export class Following implements AsyncDisposable {
  readonly #child: FollowedProcess;
  readonly #ended: Promise<void>;
  #text = "";
  #errors = "";

  constructor(child: FollowedProcess) {
    this.#child = child;
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#text += chunk;
    });
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      this.#errors += chunk;
    });
    this.#ended = new Promise((resolve) => {
      child.on("close", () => resolve());
    });
  }

  /** Whole lines so far. */
  get lines(): string[] {
    return this.#text.split("\n").slice(0, -1);
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Waits until the lines are as wanted. */
  until(what: string, wanted: (lines: readonly string[]) => boolean, limitMs = settleMs): Promise<boolean> {
    return eventually({ what, limitMs, details: () => `${this.#text}\n${this.#errors}` }, () => wanted(this.lines));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }
}

/** Every docker CLI on this machine, by path, one for each version. Fails where there is none. */
export async function dockerPrograms(): Promise<readonly { readonly program: string; readonly version: string }[]> {
  const found = new Map<string, string>();
  for (const directory of [...(process.env.PATH ?? "").split(delimiter), "/usr/local/bin", "/usr/bin"]) {
    const candidate = join(directory, "docker");
    if (directory === "" || !existsSync(candidate)) continue;
    const program = realpathSync(candidate);
    const version = await versionOf(program);
    if (!found.has(version)) found.set(version, program);
  }
  if (found.size === 0) throw new Error("there is no docker CLI on this machine: run npm test, which installs one");
  return [...found].map(([version, program]) => ({ program, version }));
}

function versionOf(program: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ["--version"], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    child.on("error", reject);
    child.on("close", () => {
      const version = /version ([^ ,]+)/.exec(text)?.[1];
      if (version) resolve(version);
      else reject(new Error(`${program} --version says "${text}"`));
    });
  });
}

/** A task as `GET /tasks` has it (what the tests look at). */
export interface TaskView {
  readonly ID: string;
  readonly Slot: number;
  readonly CreatedAt: string;
  readonly DesiredState: string;
  readonly Status: {
    readonly State: string;
    readonly Err?: string;
    readonly Timestamp: string;
    readonly ContainerStatus?: { readonly ContainerID?: string; readonly ExitCode?: number };
  };
}

/** All tasks of a service, history included. */
export async function tasksOf(docker: Docker, service: string): Promise<TaskView[]> {
  const ids = await docker.lines(["service", "ps", "--quiet", "--no-trunc", service]);
  return ids.length === 0 ? [] : docker.inspect<TaskView[]>("--type", "task", ...ids);
}

export function runningOf(tasks: readonly TaskView[]): TaskView[] {
  return tasks.filter((task) => task.Status.State === "running" && task.DesiredState === "running");
}

/** Full ids of a service's containers on the node, asked of its Engine; `all`: also ones that do not run. */
export function containersOf(docker: Docker, service: string, all = false): Promise<string[]> {
  const filter = `label=com.docker.swarm.service.name=${service}`;
  return docker.engine.lines(["ps", "--quiet", "--no-trunc", ...(all ? ["--all"] : []), "--filter", filter]);
}

/** Waits until `count` tasks of the service run, and nothing else of it does. */
export function converged(docker: Docker, service: string, count: number): Promise<TaskView[]> {
  return eventually(
    {
      what: `${count} tasks of ${service} run`,
      limitMs: settleMs,
      intervalMs: 200,
      details: () => diagnose(docker, service),
    },
    async () => {
      const running = runningOf(await tasksOf(docker, service));
      const containers = await containersOf(docker, service);
      return running.length === count && containers.length === count && running;
    },
  );
}

/** Waits for a condition of the swarm; says how things stand when it does not come. */
export function until<T>(
  docker: Docker,
  what: string,
  probe: () => Promise<T | undefined | false>,
  options: { readonly limitMs?: number; readonly service?: string } = {},
): Promise<T> {
  const { limitMs = settleMs, service } = options;
  return eventually({ what, limitMs, intervalMs: 200, details: () => diagnose(docker, service) }, probe);
}

/** How the node stands, for an error's text. Never fails: what cannot be asked is said. */
export async function diagnose(docker: Docker, service?: string): Promise<string> {
  const parts: string[] = [];
  const commands = [
    ["service", "ls"],
    ...(service === undefined ? [] : [["service", "ps", "--no-trunc", service]]),
    ["ps", "--all", "--no-trunc"],
  ];
  for (const command of commands) {
    const asked = docker.run(command, { limitMs: 10_000 }).then(render, (error: Error) => error.message);
    parts.push(`$ docker ${command.join(" ")}\n${await asked}`);
  }
  parts.push(tailOf(docker.node.daemonLog, 40));
  return parts.join("\n");
}

function render({ status, stdout, stderr }: Output): string {
  const parts = [stdout.trimEnd(), stderr.trimEnd()].filter((part) => part !== "");
  return [...parts, ...(status === 0 ? [] : [`(status ${status})`])].join("\n");
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
