/** What is where in the directory of an etcd member. */
import { join } from "node:path";
import { ShoalError } from "../../lib/errors.ts";

/** A unix socket's path is at most 107 bytes long. */
const longestSocketPath = 107;
/** etcd takes no path in a URL: it is started in its directory, and makes the socket there. */
export const socketName = "client:0";

/** InvalidArgument where its path is too long for what is in it. */
export function checkDirectory(directory: string): void {
  if (Buffer.byteLength(clientSocket(directory)) <= longestSocketPath) return;
  throw new ShoalError("InvalidArgument", `the path of the data directory is too long for a socket: ${directory}`);
}

export function dataDirectory(directory: string): string {
  return join(directory, "data");
}

export function clientSocket(directory: string): string {
  return join(directory, socketName);
}

/** The argument by which an etcd on this directory is known. */
export function dataArgument(directory: string): string {
  return `--data-dir=${dataDirectory(directory)}`;
}

export function pidFile(directory: string): string {
  return join(directory, "etcd.pid");
}

export function tlsPaths(directory: string) {
  return {
    certificate: join(directory, "peer.crt"),
    trustedCA: join(directory, "peer-ca.crt"),
  };
}
