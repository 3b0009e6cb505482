/** `shoal doctor --audit`: whether a node's kernel is as the managers have it, asked of the node's own daemon. */
import type { Audit } from "../api/audit.ts";
import { ShoalError } from "../lib/errors.ts";
import { exchangeJson } from "../playground/http.ts";

/** A full comparison of a large table takes some seconds. */
const answerLimitMs = 60_000;

/** Prints what differs, a line each. Exit status 1 where anything does. @param host unix:///PATH of the daemon */
export async function audit(host: string): Promise<void> {
  const [, socketPath] = /^unix:\/\/(\/.+)$/.exec(host) ?? [];
  if (!socketPath) throw new ShoalError("InvalidArgument", `--host takes unix:///PATH, not ${host}`);
  const { Differences: differences } = await exchangeJson<Audit>({
    to: { socket: socketPath },
    path: "/shoal/audit",
    limitMs: answerLimitMs,
  });
  for (const difference of differences) process.stdout.write(`${difference}\n`);
  process.stdout.write(`${differences.length} differences\n`);
  if (differences.length > 0) process.exitCode = 1;
}
