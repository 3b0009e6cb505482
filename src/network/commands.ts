/**
 * The programs that change the kernel (ip, bridge, nft, conntrack, wg, sysctl), run with a limit. They are forked, so
 * callers hand in batches (`ip -batch -`, `nft -f -`) instead of calling often.
 */
import { spawn } from "node:child_process";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { namespacePath } from "./names.ts";

export interface Commands {
  /**
   * Standard output of the program once it has ended well.
   * @param input for its standard input
   * @throws Unavailable where the program is not installed; Internal with its standard error where it failed
   */
  run(program: string, args: readonly string[], input?: string): Promise<string>;
}

/** None of them waits for anything but the kernel: one that takes longer hangs. */
const limitMs = 30_000;
/** A dump of the largest tables is a few megabytes. */
const outputLimitBytes = 64 * 1024 * 1024;

export const systemCommands: Commands = {
  run(program, args, input = "") {
    return new Promise((resolve, reject) => {
      const child = spawn(program, args, { timeout: limitMs, killSignal: "SIGKILL" });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      let bytes = 0;
      child.stdout.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > outputLimitBytes) child.kill("SIGKILL");
        else out.push(chunk);
      });
      child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
      child.stdin.on("error", () => undefined); // it ended without reading all of it: its exit says why
      child.on("error", (error) => reject(new ShoalError("Unavailable", `${program}: ${messageOf(error)}`)));
      child.on("close", (code, killed) => {
        if (code === 0) return resolve(Buffer.concat(out).toString());
        const said = Buffer.concat(err).toString().trim();
        const how = killed ? `ended by ${killed}` : `exit ${code}`;
        reject(new ShoalError("Internal", `${program} ${args.join(" ")}: ${said || how}`));
      });
      child.stdin.end(input);
    });
  },
};

/** Names of the namespaces of this node, ours and others'. */
export async function namespaceNames(commands: Commands): Promise<readonly string[]> {
  const lines = (await commands.run("ip", ["netns", "list"])).split("\n");
  return lines.filter(Boolean).map((line) => line.split(" ", 1)[0]!);
}

/**
 * What `ip -json` and `bridge -json` print: nothing, rather than an empty list, where there is nothing; and empty
 * objects for what they omit.
 */
export function parsedList<T extends object>(json: string): T[] {
  const list = json.trim() === "" ? [] : (JSON.parse(json) as T[]);
  return list.filter((item) => Object.keys(item).length > 0);
}

/** The same in the namespace of that name. Not by `ip netns exec`: that mounts /sys anew each time. */
export function inNamespace(commands: Commands, namespace: string): Commands {
  const enter = `--net=${namespacePath(namespace)}`;
  return { run: (program, args, input) => commands.run("nsenter", [enter, program, ...args], input) };
}
