/** Files that survive a crash: whole or not at all. */
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** Writes beside the path, syncs, renames, and syncs the directory: after it resolves the content is there for good. */
export async function writeFileDurably(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, "w", mode);
  try {
    await file.writeFile(content);
    await file.chmod(mode); // also where a left-over temporary file had another one
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const directory = await open(dirname(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
