/** The node's own name servers: what /etc/resolv.conf says, read anew when it may have changed. */
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import type { Clock } from "../../lib/clock.ts";

const readAgainAfterMs = 5_000;

/** @returns a function that gives the servers' addresses; none where there is no such file */
export function serversIn(path: string, clock: Clock): () => Promise<readonly string[]> {
  let known: readonly string[] = [];
  let readAt = Number.NEGATIVE_INFINITY;
  return async () => {
    if (clock.now() - readAt < readAgainAfterMs) return known;
    readAt = clock.now();
    const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    known = nameservers(text);
    return known;
  };
}

export function nameservers(text: string): string[] {
  const found: string[] = [];
  for (const line of text.split("\n")) {
    const [word, address = ""] = line.trim().split(/\s+/);
    const [plain = ""] = address.split("%");
    if (word === "nameserver" && isIP(plain)) found.push(address);
  }
  return found;
}
