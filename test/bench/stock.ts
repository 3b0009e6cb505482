/**
 * A stock Docker Engine with a swarm of its own, to measure against: in namespaces of its own (network, mount, UTS,
 * pid), so that it meets neither the machine's Docker nor a playground. Its disk is beside the playground's, its
 * settings are those of a playground's Engine, and like that one it does not ask a registry for images that it has.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { exchange, exchangeJson } from "../../src/playground/http.ts";
import { removeCgroups } from "../../src/playground/machine.ts";
import { namespaceExists, pidsInNamespace } from "../../src/playground/network.ts";
import { end, identify, innerPid, run, spawnDetached, tailOf } from "../../src/playground/process.ts";
import { eventually } from "../../src/playground/wait.ts";

const namespace = "bench-stock";
const address = "10.79.0.1";
const cgroup = "shoal-bench-stock";
const directory = "/var/lib/shoal-bench-stock";
const socket = `${directory}/docker.sock`;
const log = `${directory}/dockerd.log`;
const startLimitMs = 60_000;
const killLimitMs = 10_000;

/** The pid namespace's first process: it starts the Engine, and reaps what is left to it, as an init must. */
const script = `
set -e
mkdir -p /run/docker /run/containerd /etc/docker
mount --make-rprivate /
hostname stock
for path in /run/docker /run/containerd; do mount -t tmpfs -o mode=0711 tmpfs "$path"; done
mount --bind ${directory}/etc-docker /etc/docker
mount --bind ${directory}/resolv.conf /etc/resolv.conf
DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 dockerd --data-root ${directory}/engine --exec-root /run/docker \\
  --pidfile /run/docker/dockerd.pid --host unix://${socket} \\
  --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /${cgroup} &
wait $!
`;

/** Starts it, what an earlier run may have left removed. Resolves to its socket's path when the swarm is there. */
export async function startStock(): Promise<string> {
  await stopStock();
  for (const name of ["engine", "etc-docker"]) mkdirSync(`${directory}/${name}`, { recursive: true });
  writeFileSync(`${directory}/resolv.conf`, "nameserver 127.0.0.1\n");
  await run("ip", ["netns", "add", namespace]);
  // A swarm needs an address that is not a loopback's; a bridge without ports holds one.
  const lines = [
    "link set lo up",
    "link add outside type bridge",
    `addr add ${address}/24 dev outside`,
    "link set outside up",
  ];
  await run("ip", ["-n", namespace, "-batch", "-"], { input: `${lines.join("\n")}\n` });
  const unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "sh", "-c", script];
  spawnDetached("nsenter", [`--net=/run/netns/${namespace}`, ...unshare], log);
  const to = { socket };
  await eventually(
    { what: "the stock Engine answers", limitMs: startLimitMs, details: () => tailOf(log) },
    async () => existsSync(socket) && (await exchange({ to, path: "/_ping" })).status === 200,
  );
  const body = { ListenAddr: "0.0.0.0:2377", AdvertiseAddr: address };
  await exchangeJson({ to, method: "POST", path: "/swarm/init", body, limitMs: startLimitMs });
  return socket;
}

/** Ends it as if its power were cut, and removes its disk; nothing happens where there is none. */
export async function stopStock(): Promise<void> {
  for (const pid of await pidsInNamespace(namespace)) {
    const process = identify(pid);
    if (process && innerPid(process) === 1) await end(process, "SIGKILL", killLimitMs);
  }
  if (namespaceExists(namespace)) await run("ip", ["netns", "del", namespace]);
  removeCgroups(cgroup);
  // A dying mount namespace may hold a directory for a moment longer.
  rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
