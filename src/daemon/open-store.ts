/** The manager's store in the data directory: LMDB, sealed with the cluster's data key. */
import { join } from "node:path";
import type { Clock } from "../lib/clock.ts";
import type { Random } from "../lib/random.ts";
import { ValueCipher } from "../store/encryption.ts";
import { LmdbBackend } from "../store/lmdb.ts";
import { Store } from "../store/store.ts";
import { loadDataKey } from "./data-key.ts";
import { swarmDirectory } from "./state-file.ts";

export function dataKeyPath(dataDirectory: string): string {
  return join(swarmDirectory(dataDirectory), "data-key.json");
}

export function storeDirectory(dataDirectory: string): string {
  return join(dataDirectory, "store");
}

export async function openStore(dataDirectory: string, clock: Clock, random: Random): Promise<Store> {
  const cipher = new ValueCipher(await loadDataKey(dataKeyPath(dataDirectory)), random);
  const backend = new LmdbBackend({ directory: storeDirectory(dataDirectory), cipher });
  try {
    return await Store.open(backend, clock);
  } catch (error) {
    await backend.close();
    throw error;
  }
}
