/** Sockets in another network namespace, owned by this process: see bind.ts. */
import { spawn } from "node:child_process";
import type { Socket } from "node:dgram";
import type { Server } from "node:net";
import { fileURLToPath } from "node:url";
import { messageOf, ShoalError } from "../../lib/errors.ts";

export interface BoundSockets {
  readonly udp: Socket;
  readonly tcp: Server;
}

/** A process that starts, binds and ends; a busy machine takes a second for it. */
const limitMs = 20_000;
const program = fileURLToPath(new URL("bind.ts", import.meta.url));

/**
 * @param namespace path of the namespace's file
 * @throws Unavailable where it can't be bound: the address is not there (yet), or somebody has the port
 */
export function bindInNamespace(namespace: string, address: string, port: number): Promise<BoundSockets> {
  return new Promise((resolve, reject) => {
    const args = [`--net=${namespace}`, process.execPath, program, address, String(port)];
    const child = spawn("nsenter", args, {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      timeout: limitMs,
      killSignal: "SIGKILL",
    });
    let udp: Socket | undefined;
    let tcp: Server | undefined;
    const said: Buffer[] = [];
    child.stderr?.on("data", (chunk: Buffer) => said.push(chunk));
    child.on("message", (name, handle) => {
      if (name === "udp") udp = handle as Socket;
      if (name === "tcp") tcp = handle as Server;
    });
    const fail = (why: string) => {
      udp?.close();
      tcp?.close();
      reject(new ShoalError("Unavailable", `no names can be served at ${address}:${port}: ${why}`));
    };
    child.on("error", (error) => fail(messageOf(error)));
    child.on("close", (code) => {
      if (udp && tcp) resolve({ udp, tcp });
      else fail(reasonIn(Buffer.concat(said).toString()) || `exit ${code}`);
    });
  });
}

/** The line of a failed program's output that says why. */
function reasonIn(said: string): string {
  const lines = said.split("\n").filter((line) => line.trim());
  return lines.find((line) => /^(\w*Error|nsenter):/.test(line.trim()))?.trim() ?? lines.at(-1)?.trim() ?? "";
}
