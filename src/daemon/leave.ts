/** Leaving a swarm: this node's task containers are removed from the Engine, with their secrets, then its networks
 * from the kernel. */
import { DockerExecutor } from "../agent/executor/docker.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Clock } from "../lib/clock.ts";
import { isShoalError, messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { DataPlane } from "../network/data-plane.ts";
import { nodeDataPlane, nodeTaskFiles } from "./node-parts.ts";
import type { NodeState } from "./state-file.ts";

export interface RemoveOptions {
  readonly engineSocket: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Removes every container of this node's tasks, running or not, with its anonymous volumes, and every network. */
export async function removeWhatRuns(options: RemoveOptions, state: NodeState): Promise<void> {
  const engine = dockerEngine(options.engineSocket);
  const parts = { ...options, engine };
  const plane = nodeDataPlane(parts, state);
  try {
    // The Engine takes a container off its networks with the help of their driver, and waits long for one.
    await plane.start();
    await new DockerExecutor({ ...parts, nodeId: state.nodeId }).removeAll();
    await nodeTaskFiles(state).clear();
    await removeNetworks(plane, options.log);
  } finally {
    await plane.stop();
    engine.close();
  }
}

async function removeNetworks(plane: DataPlane, log: Logger): Promise<void> {
  try {
    await plane.remove();
  } catch (error) {
    // The Engine is there, so it is a program for networks that is not: then there never were any.
    if (!isShoalError(error, "Unavailable")) throw error;
    log.warn("no network is looked for", { error: messageOf(error) });
  }
}
