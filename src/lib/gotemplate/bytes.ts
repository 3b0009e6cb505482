/**
 * Go's strings are bytes, of which most are UTF-8; JavaScript's are not. Here a byte that is not part of UTF-8 is one
 * lone surrogate, U+DC80 to U+DCFF, so that every row of bytes has a text, and gets back unchanged from it. Lengths,
 * indexes and comparisons are those of the bytes.
 */

const firstEscape = 0xdc00;

/** The text of any bytes. */
export function fromBytes(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = buffer.toString("utf8");
  if (!text.includes("\uFFFD")) return text;
  let result = "";
  for (let at = 0; at < buffer.length; ) {
    const size = sequenceLength(buffer, at);
    result += size > 0 ? buffer.toString("utf8", at, at + size) : String.fromCharCode(firstEscape + (buffer[at] ?? 0));
    at += size || 1;
  }
  return result;
}

/** The bytes of a text; a lone surrogate that stands for no byte becomes U+FFFD, as in Go. */
export function toBytes(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text);
  const parts: Buffer[] = [];
  for (const character of text) {
    const byte = escapedByte(character);
    parts.push(byte === undefined ? Buffer.from(character) : Buffer.of(byte));
  }
  return Buffer.concat(parts);
}

/** The byte that a character stands for, where it is one that is no UTF-8. */
export function escapedByte(character: string): number | undefined {
  const code = character.charCodeAt(0) - firstEscape;
  return character.length === 1 && code >= 0x80 && code <= 0xff ? code : undefined;
}

export function byteLength(text: string): number {
  return text.isWellFormed() ? Buffer.byteLength(text) : toBytes(text).length;
}

/** Negative, zero or positive, by the bytes. */
export function compareText(one: string, other: string): number {
  return one === other ? 0 : Buffer.compare(toBytes(one), toBytes(other));
}

/** The bytes of the UTF-8 sequence that begins there; 0 when none does. */
function sequenceLength(bytes: Buffer, at: number): number {
  const first = bytes[at] ?? 0;
  if (first < 0x80) return 1;
  const size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (size === 0 || at + size > bytes.length) return 0;
  const text = bytes.toString("utf8", at, at + size);
  // An invalid one is decoded to several replacement characters, U+FFFD itself to one.
  return Buffer.from(text).equals(bytes.subarray(at, at + size)) ? size : 0;
}
