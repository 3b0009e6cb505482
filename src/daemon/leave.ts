/** Leaving a swarm: this node's task containers are removed from the Engine. */
import { DockerExecutor } from "../agent/executor/docker.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";

export interface RemoveOptions {
  readonly engineSocket: string;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Removes every container of this node's tasks, running or not, with its anonymous volumes. */
export async function removeTaskContainers(options: RemoveOptions): Promise<void> {
  const engine = dockerEngine(options.engineSocket);
  try {
    await new DockerExecutor({ ...options, engine }).removeAll();
  } finally {
    engine.close();
  }
}
