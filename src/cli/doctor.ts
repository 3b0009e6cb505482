/**
 * `shoal doctor`: what this machine lacks, and what that costs. Kernel features are tried, in namespaces that vanish
 * with the trial, rather than looked up: a configuration file does not know what a container runtime forbids.
 */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import prerequisites from "../../scripts/prerequisites.json" with { type: "json" };
import { messageOf } from "../lib/errors.ts";
import { chainsInTheWay, linksTooSmall, mtuOfLink, swarmPorts, takenBy } from "./doctor-network.ts";

interface Finding {
  /** What was looked for: "kernel: vxlan", "program: nft", "port: 2377/tcp". */
  readonly subject: string;
  readonly state: "ok" | "missing" | "unknown";
  /** What was seen where it is not ok. */
  readonly detail: string;
  /** What does not work without it. */
  readonly cost: string;
}

const trialLimitMs = 10_000;

interface Trial {
  readonly subject: string;
  readonly cost: string;
  /** Run by `sh -e` in fresh network and mount namespaces; any failure means that the feature is missing. */
  readonly script: string;
}

const trials: readonly Trial[] = [
  {
    subject: "kernel: veth",
    cost: "no container can have a network",
    script: "ip link add trial0 type veth peer name trial1",
  },
  { subject: "kernel: bridge", cost: "no container can have a network", script: "ip link add trial0 type bridge" },
  {
    subject: "kernel: vxlan",
    cost: "no overlay networks: services on different nodes cannot reach each other",
    script: "ip link add trial0 type vxlan id 4096 dstport 4789 local 127.0.0.1",
  },
  {
    subject: "kernel: nftables with NAT",
    cost: "no service addresses and no published ports of the cluster",
    script: `printf '%s\\n' 'table ip trial {' ' chain pre {' '  type nat hook prerouting priority dstnat;' \
'  meta l4proto tcp dnat to numgen inc mod 2 map { 0 : 127.0.0.1, 1 : 127.0.0.2 }' ' }' '}' | nft -f -`,
  },
  {
    subject: "kernel: bridge netfilter",
    cost: "no service addresses: packets between containers are not looked at",
    script: "modprobe br_netfilter 2>/dev/null || true; test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
  },
  {
    subject: "encryption: WireGuard in the kernel, or the program wireguard-go",
    cost: "this node refuses tasks on encrypted networks",
    script: "command -v wg; ip link add trial0 type wireguard 2>/dev/null || command -v wireguard-go",
  },
  {
    subject: "kernel: overlayfs",
    cost: "the Engine copies whole images for each container (slow, and much disk)",
    script: `mount -t tmpfs tmpfs /mnt; mkdir /mnt/lower /mnt/upper /mnt/work /mnt/merged
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged`,
  },
];

/** Looks at everything; never fails, what cannot be known is "unknown". */
async function diagnose(): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const trial of trials) findings.push(await tryOut(trial));
  findings.push(controlGroups());
  for (const { program, cost } of prerequisites.programs) {
    findings.push(
      finding(
        `program: ${program}`,
        cost,
        isOnPath(program) ? undefined : "not found on PATH or in the sbin directories",
      ),
    );
  }
  for (const one of swarmPorts) {
    const { port, protocol, cost } = one;
    findings.push(finding(`port: ${port}/${protocol}`, cost, takenBy(port, protocol)));
    findings.push(await firewall(one));
  }
  const small = linksTooSmall(await output("ip", ["-4", "route", "show", "default"]), mtuOfLink);
  findings.push(finding("network: MTU", "overlay networks lose large packets", small.join("; ") || undefined));
  return findings;
}

/** A firewall that seems to be in the port's way: what its rules mean in the end can't be known. */
async function firewall(port: (typeof swarmPorts)[number]): Promise<Finding> {
  const subject = `firewall: ${port.port}/${port.protocol}`;
  const cost = "other nodes cannot reach this one";
  try {
    const chains = chainsInTheWay(await output("nft", ["--json", "list", "ruleset"]), port);
    if (chains.length === 0) return finding(subject, cost, undefined);
    const detail = `${chains.join(", ")} drops by default, and no rule beside it names the port`;
    return { subject, state: "unknown", detail, cost };
  } catch (error) {
    return { subject, state: "unknown", detail: messageOf(error), cost };
  }
}

function output(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: trialLimitMs, maxBuffer: 64 * 1024 * 1024 };
    execFile(program, args, limits, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });
}

/** Prints what is not fine. Exit status 1 where something is missing. */
export async function doctor(): Promise<void> {
  const findings = await diagnose();
  const bad = findings.filter(({ state }) => state !== "ok");
  for (const { subject, state, detail, cost } of bad) {
    process.stdout.write(
      `${state === "missing" ? "MISSING" : "UNKNOWN"}  ${subject} (${detail}): without it, ${cost}\n`,
    );
  }
  const missing = bad.filter(({ state }) => state === "missing").length;
  process.stdout.write(`${findings.length - bad.length} of ${findings.length} checks are fine\n`);
  if (missing > 0) process.exitCode = 1;
}

function finding(subject: string, cost: string, problem: string | undefined): Finding {
  return { subject, state: problem === undefined ? "ok" : "missing", detail: problem ?? "", cost };
}

function tryOut({ subject, cost, script }: Trial): Promise<Finding> {
  if (process.getuid?.() !== 0) {
    return Promise.resolve({ subject, state: "unknown", detail: "only root can try it", cost });
  }
  return new Promise((resolve) => {
    execFile(
      "unshare",
      ["--net", "--mount", "sh", "-e", "-c", script],
      { timeout: trialLimitMs, killSignal: "SIGKILL" },
      (error, _stdout, stderr) => {
        if (!error) return resolve(finding(subject, cost, undefined));
        // Without the program that tries it, nothing is known about the kernel.
        const known = !/not found|ENOENT/.test(`${stderr}${error.message}`);
        const detail = stderr.trim().split("\n").at(-1) || error.message;
        resolve({ subject, state: known ? "missing" : "unknown", detail, cost });
      },
    );
  });
}

function controlGroups(): Finding {
  const mounts = readFileSync("/proc/self/mounts", "utf8");
  const mounted = /^\S+ \S+ cgroup2? /m.test(mounts);
  return finding("kernel: control groups", "the Engine does not start", mounted ? undefined : "none are mounted");
}

function isOnPath(program: string): boolean {
  const directories = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"];
  return directories.some((directory) => directory !== "" && existsSync(join(directory, program)));
}
