/**
 * Encryption at rest: every value in a backend is AES-256-GCM under the cluster's data key, bound to its place (table
 * and id), so that a value copied to another key does not open. The nonce is random and stored in front.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from "node:crypto";
import { ShoalError } from "../lib/errors.ts";
import type { Random } from "../lib/random.ts";

export const dataKeyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const noncesAtOnce = 256;

export class ValueCipher {
  /** A KeyObject, made once: from raw bytes each call would make one, at twice the cost of the encryption. */
  readonly #key: KeyObject;
  readonly #random: Random;
  /** Nonces are drawn many at a time: one by one they cost as much as the encryption. */
  #nonces: Uint8Array = new Uint8Array();

  /** @param key 32 bytes, from `random.bytes(dataKeyBytes)` at the cluster's birth */
  constructor(key: Uint8Array, random: Random) {
    if (key.length !== dataKeyBytes) throw new ShoalError("DataLoss", "the store's data key is damaged");
    this.#key = createSecretKey(key);
    this.#random = random;
  }

  /** nonce | ciphertext | tag */
  seal(plain: Uint8Array, place: string): Buffer {
    const nonce = this.#nextNonce();
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(Buffer.from(place));
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  #nextNonce(): Uint8Array {
    if (this.#nonces.length === 0) this.#nonces = this.#random.bytes(nonceBytes * noncesAtOnce);
    const nonce = this.#nonces.subarray(0, nonceBytes);
    this.#nonces = this.#nonces.subarray(nonceBytes);
    return nonce;
  }

  /** DataLoss where the value was changed, moved, or sealed under another key. */
  open(sealed: Uint8Array, place: string): Buffer {
    if (sealed.length < nonceBytes + tagBytes) throw new ShoalError("DataLoss", `the stored value ${place} is damaged`);
    const decipher = createDecipheriv("aes-256-gcm", this.#key, sealed.subarray(0, nonceBytes));
    decipher.setAAD(Buffer.from(place));
    decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
    try {
      return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes)), decipher.final()]);
    } catch (cause) {
      throw new ShoalError("DataLoss", `the stored value ${place} is damaged or belongs to another cluster`, { cause });
    }
  }
}
