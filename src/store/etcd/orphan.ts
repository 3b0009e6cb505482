/** An etcd that outlived its manager all the same: known by its pid file, and by what it was started with. */
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { type Clock, sleep } from "../../lib/clock.ts";
import { isShoalError, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { dataArgument, pidFile } from "./directory.ts";

const killMs = 5_000;
const pollMs = 20;

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
    return command.includes(dataArgument(directory));
  } catch (error) {
    // Gone, or never there.
    if (isShoalError(error)) throw error;
    return false;
  }
}
