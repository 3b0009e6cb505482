/**
 * The playground's wires: a bridge in a namespace of its own, a cable from it to the machine itself and one to each
 * node. A node's namespace has no route out: what leaves the playground fails at once, rather than hanging in a
 * time-out.
 */
import { existsSync } from "node:fs";
import { ShoalError } from "../lib/errors.ts";
import type { NodeLayout, PlaygroundLayout } from "./layout.ts";
import { run } from "./process.ts";

/** Makes the switch and the machine's cable to it, where they are missing. */
export async function ensureSwitch(layout: PlaygroundLayout): Promise<void> {
  const { switchNamespace, machineInterface, machineAddress, prefixLength } = layout;
  if (namespaceExists(switchNamespace) && (await hasInterface(machineInterface))) return;
  await removeSwitch(layout); // half of one, after an interrupted start
  await refuseTakenAddresses(layout);
  await ipBatch([
    `netns add ${switchNamespace}`,
    `link add ${machineInterface} type veth peer name machine netns ${switchNamespace}`,
    `addr add ${machineAddress}/${prefixLength} dev ${machineInterface}`,
    `link set ${machineInterface} up`,
  ]);
  await ipBatch(
    ["link set lo up", "link add switch type bridge", "link set switch up", "link set machine master switch up"],
    switchNamespace,
  );
}

/** A second route to the same addresses would send the playground's packets elsewhere. */
async function refuseTakenAddresses({ machineAddress, prefixLength }: PlaygroundLayout): Promise<void> {
  const routes = (await run("ip", ["-4", "-o", "route", "show", "to", "match", machineAddress])).split("\n");
  const taken = routes.find((route) => route !== "" && !route.startsWith("default"));
  if (taken === undefined) return;
  throw new ShoalError(
    "FailedPrecondition",
    `the playground needs the addresses around ${machineAddress}/${prefixLength}, but this machine has a route there already: ${taken.trim()}`,
  );
}

/** Makes the node's namespace, its cable and its address, where they are missing. */
export async function ensureCable(layout: PlaygroundLayout, node: NodeLayout): Promise<void> {
  if (!namespaceExists(node.namespace)) await ipBatch([`netns add ${node.namespace}`]);
  if (await hasInterface(node.port, layout.switchNamespace)) return;
  await ipBatch(
    [
      `link add ${node.port} type veth peer name eth0 netns ${node.namespace}`,
      `link set ${node.port} master switch up`,
    ],
    layout.switchNamespace,
  );
  await ipBatch(
    ["link set lo up", `addr add ${node.address}/${layout.prefixLength} dev eth0`, "link set eth0 up"],
    node.namespace,
  );
}

/** Pulls the node's cable out, or plugs it in again. */
export async function setCable(layout: PlaygroundLayout, node: NodeLayout, state: "up" | "down"): Promise<void> {
  await run("ip", ["-n", layout.switchNamespace, "link", "set", node.port, state]);
}

export async function isCut(layout: PlaygroundLayout, node: NodeLayout): Promise<boolean> {
  if (!namespaceExists(layout.switchNamespace)) return false;
  const line = await run("ip", ["-n", layout.switchNamespace, "-o", "link", "show", "dev", node.port]);
  return !/<[^>]*\bUP\b/.test(line);
}

/** The node's cable goes with its namespace. */
export async function removeNodeNetwork(node: NodeLayout): Promise<void> {
  if (namespaceExists(node.namespace)) await run("ip", ["netns", "del", node.namespace]);
}

export async function removeSwitch(layout: PlaygroundLayout): Promise<void> {
  const { switchNamespace, machineInterface } = layout;
  if (await hasInterface(machineInterface)) await run("ip", ["link", "del", machineInterface]);
  if (namespaceExists(switchNamespace)) await run("ip", ["netns", "del", switchNamespace]);
}

export function namespaceExists(name: string): boolean {
  return existsSync(`/run/netns/${name}`);
}

/** Pids of all processes in a network namespace. */
export async function pidsInNamespace(name: string): Promise<number[]> {
  if (!namespaceExists(name)) return [];
  const lines = await run("ip", ["netns", "pids", name]);
  return lines.split("\n").filter(Boolean).map(Number);
}

/** Asked of `ip`: /sys/class/net shows the interfaces of the namespace that mounted it, which may be another. */
async function hasInterface(name: string, namespace?: string): Promise<boolean> {
  const where = namespace === undefined ? [] : ["-n", namespace];
  const lines = await run("ip", [...where, "-o", "link", "show"]);
  return lines.split("\n").some((line) => line.split(": ")[1]?.split("@")[0] === name);
}

/** One fork for many commands: a fork of `ip` costs far more than what it does. */
async function ipBatch(lines: readonly string[], namespace?: string): Promise<void> {
  const where = namespace === undefined ? [] : ["-n", namespace];
  await run("ip", [...where, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}
