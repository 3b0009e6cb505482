/**
 * The two sides of a benchmark: shoal, and what it is measured against. Either is a socket that the caller names, or
 * one that is brought up for the run and removed after it.
 */
import { playgroundLayout } from "../../src/playground/layout.ts";
import { Playground } from "../../src/playground/playground.ts";
import { DockerClient } from "./client.ts";
import { startStock, stopStock } from "./stock.ts";

export interface SideOptions {
  /** `unix://PATH`, or "stock"; absent: a playground of one node of its own. */
  readonly host?: string;
  /** `unix://PATH`, or "stock": a stock Engine with a swarm of its own. Absent: nothing is compared. */
  readonly against?: string;
}

export interface Side {
  readonly name: "shoal" | "other";
  readonly socket: string;
  readonly client: DockerClient;
}

/** Shoal first. */
export type Sides = readonly [Side] | readonly [Side, Side];

/** The order of the sides in a round: each begins every other one, so that neither always has the better place. */
export function inTurns(sides: Sides, round: number): readonly Side[] {
  return round % 2 === 0 ? [...sides].reverse() : sides;
}

/** Runs `work` on both sides, brought up as the options say, and takes down whatever was brought up. */
export async function withSides<T>(options: SideOptions, work: (sides: Sides) => Promise<T>): Promise<T> {
  const undo: (() => Promise<void> | void)[] = [];
  const interrupted = Promise.withResolvers<never>();
  const onSignal = () => interrupted.reject(new Error("interrupted"));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, onSignal);
  interrupted.promise.catch(() => undefined); // only of interest while there is work
  try {
    const open = async (name: Side["name"], host: string | undefined): Promise<Side> => {
      const socket = await bringUp(host, undo);
      const client = new DockerClient(socket);
      undo.push(() => client.close());
      return { name, socket, client };
    };
    const shoal = await open("shoal", options.host);
    const sides: Sides = options.against ? [shoal, await open("other", options.against)] : [shoal];
    return await Promise.race([work(sides), interrupted.promise]);
  } finally {
    for (const step of undo.reverse()) await step();
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, onSignal);
  }
}

/** The path of the side's socket. */
async function bringUp(host: string | undefined, undo: (() => Promise<void> | void)[]): Promise<string> {
  if (host === undefined) return bringUpPlayground(undo);
  if (host === "stock") {
    undo.push(stopStock);
    return startStock();
  }
  if (!host.startsWith("unix:///")) throw new Error(`a side is unix:///PATH or "stock", not "${host}"`);
  return host.slice("unix://".length);
}

async function bringUpPlayground(undo: (() => Promise<void> | void)[]): Promise<string> {
  const layout = playgroundLayout("bench", "10.76.0");
  const playground = new Playground(layout);
  undo.push(() => playground.down());
  await playground.down(); // what an interrupted run has left
  await playground.up({ nodes: 1, managers: 1 });
  await playground.formSwarm();
  return layout.node(1).socket;
}
