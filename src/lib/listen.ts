/** Servers' beginnings: rejected where the address can't be had, rather than an `error` that nobody hears. */
import { once } from "node:events";
import { mkdir, rm } from "node:fs/promises";
import { connect, type ListenOptions, type Server } from "node:net";
import { dirname } from "node:path";
import { ShoalError } from "./errors.ts";

/** Resolves when the server listens. */
export async function listening(server: Server, options: ListenOptions): Promise<void> {
  server.listen(options);
  await once(server, "listening");
}

/**
 * The same on a unix socket. One that nobody answers on is left from before, and goes; FailedPrecondition with `taken`
 * where somebody does.
 */
export async function listeningOnSocket(server: Server, path: string, taken: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  if (await answers(path)) throw new ShoalError("FailedPrecondition", taken);
  await rm(path, { force: true });
  await listening(server, { path });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}
