/** The cluster's data key on this manager's disk: `<data-dir>/swarm/data-key.json`, readable by root alone. */
import { readFile } from "node:fs/promises";
import { ShoalError } from "../lib/errors.ts";
import { writeFileDurably } from "../lib/files.ts";
import { dataKeyBytes } from "../store/encryption.ts";

interface DataKeyFile {
  readonly version: 1;
  /** `none`: the key stands as it is. Autolock will add a form sealed with the unlock key. */
  readonly seal: "none";
  /** Base64. */
  readonly key: string;
}

export async function saveDataKey(path: string, key: Uint8Array): Promise<void> {
  const content: DataKeyFile = { version: 1, seal: "none", key: Buffer.from(key).toString("base64") };
  await writeFileDurably(path, JSON.stringify(content), 0o600);
}

/** DataLoss where the file is missing or damaged: without it the store cannot be read. */
export async function loadDataKey(path: string): Promise<Uint8Array> {
  try {
    const content: DataKeyFile = JSON.parse(await readFile(path, "utf8"));
    const key = Buffer.from(content.key, "base64");
    if (content.version === 1 && content.seal === "none" && key.length === dataKeyBytes) return key;
  } catch (cause) {
    throw new ShoalError("DataLoss", `the store's data key ${path} cannot be read`, { cause });
  }
  throw new ShoalError("DataLoss", `the store's data key ${path} is damaged`);
}
