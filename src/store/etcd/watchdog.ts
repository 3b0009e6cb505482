/**
 * Ends etcd when this manager stands still: stopped, starved, or stuck in a loop. Raft's leader is an etcd member, which
 * would go on without its manager and keep the lead, with nobody there to act on it. So a small process beside etcd hears
 * from this one twice a second, over a pipe; when it has heard nothing for five seconds it kills etcd, and the other
 * managers have a leader as after any death. A manager that goes on finds its etcd dead, and starts it again.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Clock, Timer } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";

const beatMs = 500;
/** More than any turn of a manager that works. */
const silenceSeconds = 5;
const hasKilled = 3;

/** The process is looked at once more before it is killed: pids come again. `read` also ends when this manager dies. */
const script = `
while read -r -t ${silenceSeconds}; do :; done
mapfile -d '' -t words < "/proc/$1/cmdline" || exit
for word in "\${words[@]}"; do
  if [[ $word == "$2" ]]; then kill -KILL "$1" && exit ${hasKilled}; fi
done`;

export interface WatchdogOptions {
  /** Path of bash: the one shell that can wait for input for a limited time. */
  readonly bash: string;
  /** Of etcd. */
  readonly pid: number;
  /** An argument that no other process has. */
  readonly argument: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** For one life of etcd: to be stopped when that has ended. */
export class Watchdog {
  readonly #options: WatchdogOptions;
  #child: ChildProcess | undefined;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#beat();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#child?.kill("SIGKILL");
  }

  #beat(): void {
    this.#child ??= this.#start();
    this.#child.stdin?.write("\n");
    this.#timer = this.#options.clock.after(beatMs, () => this.#beat());
  }

  #start(): ChildProcess {
    const { bash, pid, argument, log } = this.#options;
    const child = spawn(bash, ["-c", script, "shoal-etcd-watchdog", String(pid), argument], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    // What it does not read any more, its end tells of.
    child.stdin?.on("error", (error) => log.debug("the watchdog does not listen", { error: messageOf(error) }));
    child.once("error", (error) => log.warn("etcd runs without a watchdog", { error: messageOf(error) }));
    child.once("exit", (code) => {
      if (this.#stopped) return;
      if (code === hasKilled) log.warn("this manager stood still for too long, and its etcd was ended");
      else this.#child = undefined; // the next beat starts another one
    });
    return child;
  }
}
