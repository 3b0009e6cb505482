/** Ids in Swarm's form: 17 random bytes in base 36, 25 characters (the same as swarmkit's, so they mix freely). */
import type { Random } from "./random.ts";

const idBytes = 17;
const idLength = 25;

/** A new id: 25 characters of [0-9a-z], never equal to another but by a chance of 2^-129. */
export function newId(random: Random): string {
  const bytes = random.bytes(idBytes);
  bytes[0] = (bytes[0] ?? 0) | 0x80; // the top bit is always set, so the text always has its full length
  return toBase36(bytes).slice(1, idLength + 1);
}

/** Big-endian bytes as lower-case base 36, padded on the left with zeros to `length`. */
export function toBase36(bytes: Uint8Array, length = 0): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(length, "0");
}
