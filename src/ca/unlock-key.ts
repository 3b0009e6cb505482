/** The key that unlocks a manager after a restart: `SWMKEY-1-` and 32 random bytes in base 64, as Swarm writes it. */
import { ShoalError } from "../lib/errors.ts";
import type { Random } from "../lib/random.ts";

const prefix = "SWMKEY-1-";
const keyBytes = 32;
const form = /^SWMKEY-1-[A-Za-z0-9+/]{43}$/;

export function newUnlockKey(random: Random): string {
  return prefix + Buffer.from(random.bytes(keyBytes)).toString("base64").replace(/=+$/, "");
}

/** The key's 32 bytes. Throws InvalidArgument "invalid key string" for anything that is not one. */
export function parseUnlockKey(text: string): Uint8Array {
  if (!form.test(text)) throw new ShoalError("InvalidArgument", "invalid key string");
  return Buffer.from(text.slice(prefix.length), "base64");
}
