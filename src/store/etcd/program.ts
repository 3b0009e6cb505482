/** The programs of this machine that an etcd member needs. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { ShoalError } from "../../lib/errors.ts";

/** Path of the program. FailedPrecondition, with the package to install, where there is none. */
export async function findEtcd(): Promise<string> {
  const found = await findProgram("etcd");
  if (found) return found;
  throw new ShoalError(
    "FailedPrecondition",
    "a swarm with several managers needs the program etcd on each of them: install the package etcd-server",
  );
}

/** Path of a program; undefined where there is none. */
export async function findProgram(name: string): Promise<string | undefined> {
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
