/** What the data plane needs of a node, and what to install where it is not there. */
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Commands } from "./commands.ts";

/** The programs, how each is asked whether it is there, and the package that it is in on most distributions. */
const programs = [
  { program: "ip", args: ["-V"], package: "iproute2" },
  { program: "bridge", args: ["-V"], package: "iproute2" },
  { program: "nft", args: ["--version"], package: "nftables" },
  { program: "conntrack", args: ["--version"], package: "conntrack" },
  { program: "nsenter", args: ["--version"], package: "util-linux" },
] as const;

const probe = "shoalprobe0";
/** The largest: no network has it. */
const probeVxlanId = 2 ** 24 - 1;

/** Kinds of links that networks are made of, each with how one is asked for. */
const kinds = [
  { kind: "vxlan", line: `link add ${probe} type vxlan id ${probeVxlanId} dstport 4789` },
  { kind: "bridge", line: `link add ${probe} type bridge` },
  { kind: "veth", line: `link add ${probe} type veth peer name shoalprobe1` },
] as const;

/** FailedPrecondition with everything that is missing, and how to get it. */
export async function checkRequirements(commands: Commands): Promise<void> {
  const missing: string[] = [];
  await Promise.all(
    programs.map(async ({ program, args, package: name }) => {
      try {
        await commands.run(program, args);
      } catch (error) {
        if (!isShoalError(error, "Unavailable")) throw error;
        missing.push(`${program} (package ${name})`);
      }
    }),
  );
  if (missing.length > 0) {
    const what = `this node lacks ${missing.sort().join(", ")}`;
    throw new ShoalError("FailedPrecondition", `${what}: networks of the swarm need it`);
  }
  for (const { kind, line } of kinds) await checkKind(commands, kind, line);
}

async function checkKind(commands: Commands, kind: string, line: string): Promise<void> {
  try {
    await commands.run("ip", ["-batch", "-"], `${line}\nlink del ${probe}\n`);
  } catch (error) {
    if (!/File exists/.test(messageOf(error))) {
      const what = `the kernel of this node has no ${kind} links, or does not let us make them`;
      throw new ShoalError("FailedPrecondition", `${what}: ${messageOf(error)}`, { cause: error });
    }
    // One that a probe left that was cut short.
    await commands.run("ip", ["link", "del", probe]);
  }
}
