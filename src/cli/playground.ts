/**
 * `shoal playground`: a cluster on this machine, from the shell. What it does is in `playground/`. Failures are
 * ShoalErrors, for `main` to print.
 */
import { ShoalError } from "../lib/errors.ts";
import type { NodePart } from "../playground/machine.ts";
import { Playground, type PlaygroundNode } from "../playground/playground.ts";
import {
  ensureSampleImage,
  ensureSampleStack,
  sampleImage,
  samplePort,
  sampleService,
  sampleStack,
} from "../playground/sample.ts";

export interface UpCommandOptions {
  readonly nodes: number;
  readonly managers: number;
  /** False leaves the nodes without a swarm. */
  readonly swarm?: boolean;
  /** Deploys the sample stack, and says how to go on. */
  readonly sample?: boolean;
}

/** Starts the nodes and makes them a swarm; what is up already stays. */
export async function up(options: UpCommandOptions): Promise<void> {
  const { nodes, managers, swarm = true, sample = false } = options;
  if (sample && !swarm) throw new ShoalError("InvalidArgument", "--sample needs a swarm: leave --no-swarm away");
  const playground = new Playground();
  await playground.up({ nodes, managers });
  if (swarm) await playground.formSwarm();
  if (sample) await deploySample(playground);
  else print(table(await playground.list()));
}

export async function ls(options: { readonly format: "table" | "json" }): Promise<void> {
  const nodes = await new Playground().list();
  print(options.format === "json" ? JSON.stringify(nodes, null, 2) : table(nodes));
}

/** Removes the nodes with everything on them. */
export function down(): Promise<void> {
  return new Playground().down();
}

/** Ends a node as if its power were cut, or one part of it alone. */
export function kill(node: string, options: { readonly part: NodePart }): Promise<void> {
  return new Playground().kill(node, options.part);
}

/** Starts a node, or whatever of it does not run. */
export function start(node: string): Promise<void> {
  return new Playground().start(node);
}

/** Cuts a node off the others and off this machine. */
export function partition(node: string): Promise<void> {
  return new Playground().partition(node);
}

export function heal(node: string): Promise<void> {
  return new Playground().heal(node);
}

async function deploySample(playground: Playground): Promise<void> {
  const nodes = (await playground.list()).map(({ name }) => playground.layout.nodeByName(name));
  await Promise.all(nodes.map(({ engineSocket }) => ensureSampleImage(engineSocket)));
  await ensureSampleStack(nodes);
  print(`${table(await playground.list())}

The stack "${sampleStack}" (image ${sampleImage}) answers on every node, whichever runs it:
${nodes.map(({ address }) => `  http://${address}:${samplePort}/`).join("\n")}

Point docker at the swarm:
  export DOCKER_HOST=unix://${nodes[0]!.socket}
  docker node ls
  docker service ps ${sampleService}`);
}

function table(nodes: readonly PlaygroundNode[]): string {
  const rows = [["NAME", "ADDRESS", "ROLE", "STATE", "STATUS", "SOCKET"]];
  for (const { name, address, role, state, status, socket } of nodes) {
    rows.push([name, address, role, state, status, socket]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("   ")
        .trimEnd(),
    )
    .join("\n");
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
