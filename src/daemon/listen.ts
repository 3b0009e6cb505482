/** Opening and closing the API's sockets: `unix://PATH` and `tcp://HOST:PORT` (TLS when certificates are given). */
import { chmodSync, chownSync, readFileSync, statSync } from "node:fs";
import type { Server } from "node:http";
import { ShoalError } from "../lib/errors.ts";
import { listening, listeningOnSocket } from "../lib/listen.ts";

export type HostAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** Certificates for TCP, as dockerd's --tlsverify takes them. */
export interface TlsFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** `unix:///run/x.sock` or `tcp://127.0.0.1:2375`; InvalidArgument for anything else. */
export function parseHost(text: string): HostAddress {
  if (text.startsWith("unix://")) {
    const path = text.slice("unix://".length);
    if (path.startsWith("/")) return { kind: "unix", path };
  } else if (text.startsWith("tcp://")) {
    const url = URL.parse(text);
    if (url?.hostname && url.port !== "") {
      return { kind: "tcp", host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) };
    }
  }
  throw new ShoalError("InvalidArgument", `invalid bind address (${text}): must be unix:///PATH or tcp://HOST:PORT`);
}

/** Throws unless the address may be opened without client certificates. */
export function requireSafe(address: HostAddress, tls: TlsFiles | undefined): void {
  if (address.kind === "unix" || tls || isLoopback(address.host)) return;
  throw new ShoalError(
    "InvalidArgument",
    `refusing to listen on tcp://${address.host}:${address.port} without client certificates: whoever reaches it is root on this machine (use --tlscacert, --tlscert and --tlskey, or a loopback address)`,
  );
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

export function readTls(files: TlsFiles) {
  return {
    ca: readFileSync(files.ca),
    cert: readFileSync(files.certificate),
    key: readFileSync(files.key),
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.2" as const,
  };
}

/** Resolves when `server` listens. A stale unix socket is removed; one that answers belongs to another daemon. */
export async function listen(server: Server, address: HostAddress): Promise<void> {
  if (address.kind === "tcp") return listening(server, { host: address.host, port: address.port });
  const { path } = address;
  await listeningOnSocket(server, path, `another daemon is already listening on unix://${path}`);
  restrict(path);
}

/** As dockerd's socket: root and the group `docker` (where there is one) may use it. */
function restrict(path: string): void {
  chmodSync(path, 0o660);
  const group = readFileSync("/etc/group", "utf8").match(/^docker:[^:]*:(\d+):/m)?.[1];
  if (group) chownSync(path, statSync(path).uid, Number(group));
}
