/** `shoal doctor --audit`: whether a node's kernel is as the managers have it, asked of the node's own daemon. */
import { request } from "node:http";
import type { Audit } from "../api/audit.ts";
import { ShoalError } from "../lib/errors.ts";

/** A full comparison of a large table takes some seconds. */
const answerLimitMs = 60_000;

/** Prints what differs, a line each. Exit status 1 where anything does. @param host unix:///PATH of the daemon */
export async function audit(host: string): Promise<void> {
  const [, socketPath] = /^unix:\/\/(\/.+)$/.exec(host) ?? [];
  if (!socketPath) throw new ShoalError("InvalidArgument", `--host takes unix:///PATH, not ${host}`);
  const { Differences: differences } = await ask(socketPath);
  for (const difference of differences) process.stdout.write(`${difference}\n`);
  process.stdout.write(`${differences.length} differences\n`);
  if (differences.length > 0) process.exitCode = 1;
}

function ask(socketPath: string): Promise<Audit> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path: "/shoal/audit", timeout: answerLimitMs }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => {
        const body = JSON.parse(Buffer.concat(chunks).toString()) as Audit & { readonly message?: string };
        if (answer.statusCode === 200) resolve(body);
        else reject(new ShoalError("Unavailable", body.message ?? `status ${answer.statusCode}`));
      });
    });
    call.on("timeout", () => call.destroy(new ShoalError("DeadlineExceeded", "the daemon does not answer")));
    call.on("error", reject);
    call.end();
  });
}
