/** DNS over TCP: each message has its length before it, in two bytes. */

export function framed(message: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(2 + message.length);
  frame.writeUInt16BE(message.length, 0);
  message.copy(frame, 2);
  return frame;
}

export class Unframer {
  #left: Buffer = Buffer.alloc(0);

  /** The messages that are whole with this chunk. Holds at most one incomplete message (64 KiB) back. */
  push(chunk: Buffer): Buffer[] {
    this.#left = this.#left.length === 0 ? chunk : Buffer.concat([this.#left, chunk]);
    const messages: Buffer[] = [];
    while (this.#left.length >= 2) {
      const end = 2 + this.#left.readUInt16BE(0);
      if (this.#left.length < end) break;
      messages.push(this.#left.subarray(2, end));
      this.#left = this.#left.subarray(end);
    }
    return messages;
  }
}
