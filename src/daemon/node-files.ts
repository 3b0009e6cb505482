/** What a node has of its swarm on its disk. Nobody else writes there; outside of any swarm there is nothing. */
import { rm } from "node:fs/promises";
import { IdentityFiles } from "../ca/identity-files.ts";
import type { Clock } from "../lib/clock.ts";
import { messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import { NodeKeys } from "./data-key.ts";
import { tasksDirectory } from "./node-parts.ts";
import { dataKeyPath, removeStore } from "./open-store.ts";
import { StateFile, swarmDirectory } from "./state-file.ts";

export interface NodeFiles {
  readonly stateFile: StateFile;
  /** What the others are sealed with. */
  readonly keys: NodeKeys;
  readonly identityFiles: IdentityFiles;
}

export function nodeFiles(options: { readonly dataDirectory: string; readonly random: Random }): NodeFiles {
  const { dataDirectory, random } = options;
  const keys = new NodeKeys(dataKeyPath(dataDirectory), random);
  return {
    stateFile: new StateFile(dataDirectory),
    keys,
    identityFiles: new IdentityFiles(swarmDirectory(dataDirectory), keys),
  };
}

/** Of a node whose state is damaged; undefined where its certificate or keys can't be read either. */
export async function identityThatIsLeft({ keys, identityFiles }: NodeFiles, log: Logger) {
  try {
    await keys.load();
    return await identityFiles.load();
  } catch (error) {
    log.warn("who this node was is not known, its tasks' containers are left", { error: messageOf(error) });
    return undefined;
  }
}

/** Removes all of it. Nothing may have it open. What says that there is a membership goes last. */
export async function removeNodeFiles(
  { stateFile, keys }: NodeFiles,
  options: { readonly dataDirectory: string; readonly clock: Clock; readonly log: Logger },
): Promise<void> {
  await removeStore(options);
  await rm(tasksDirectory(options.dataDirectory), { recursive: true, force: true });
  await stateFile.clear();
  keys.forget();
}
