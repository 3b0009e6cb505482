/**
 * The keys that this node's files are sealed with, in `<data-dir>/swarm/data-key.json`: the node's own (its TLS key,
 * the agent's tasks), and on a manager the cluster's data key (the store). Without autolock they stand there as they
 * are, readable by root alone; with it the file is sealed with the cluster's unlock key, and nothing of the node can
 * be read before somebody gives that.
 *
 * One file, so that locking, unlocking and changing the unlock key are one rename each: at any moment, also after a
 * crash, all of the node's files open by the same unlock key, the one before or the one after.
 */
import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { parseUnlockKey } from "../ca/unlock-key.ts";
import { assert, isShoalError, ShoalError } from "../lib/errors.ts";
import { writeFileDurably } from "../lib/files.ts";
import type { Random } from "../lib/random.ts";
import type { Sealer } from "../lib/seal.ts";
import { dataKeyBytes, ValueCipher } from "../store/encryption.ts";

type KeyFile =
  | { readonly version: 1; readonly seal: "none"; readonly keys: KeyTexts }
  /** `sealed`: base64 of the keys' JSON under the unlock key (AES-256-GCM). */
  | { readonly version: 1; readonly seal: "unlock-key"; readonly sealed: string };

/** Base64, 32 bytes each. */
interface KeyTexts {
  readonly node: string;
  readonly data?: string;
}

const place = "data-key.json";

interface Opened {
  readonly texts: KeyTexts;
  readonly cipher: ValueCipher;
  /** Undefined: the file is not locked. */
  readonly unlockKey: string | undefined;
}

export class NodeKeys implements Sealer {
  readonly #path: string;
  readonly #random: Random;
  #opened: Opened | undefined;
  /** Changes of the file come one after the other. */
  #changing: Promise<void> = Promise.resolve();

  constructor(path: string, random: Random) {
    this.#path = path;
    this.#random = random;
  }

  /**
   * Fresh keys for a node that enters a swarm, in memory alone: it is known only later with what they are to be sealed.
   * `beManager` or `beWorker` writes them.
   */
  make(): void {
    this.#take({ node: this.#newKey() }, undefined);
  }

  /** `locked` when only the unlock key opens the file. DataLoss where it is missing or damaged. */
  async load(): Promise<"open" | "locked"> {
    const file = await this.#read();
    if (file.seal === "unlock-key") return "locked";
    this.#take(file.keys, undefined);
    return "open";
  }

  /** Throws InvalidArgument for what is no key, Unauthenticated for the key of another lock. Swarm's texts. */
  async unlock(unlockKey: string): Promise<void> {
    const key = parseUnlockKey(unlockKey);
    const file = await this.#read();
    if (file.seal === "none") return this.#take(file.keys, undefined);
    let texts: KeyTexts;
    try {
      texts = JSON.parse(new ValueCipher(key, this.#random).open(Buffer.from(file.sealed, "base64"), place).toString());
    } catch (cause) {
      if (!isShoalError(cause, "DataLoss")) throw cause;
      throw new ShoalError("Unauthenticated", "swarm could not be unlocked: invalid key provided", { cause });
    }
    this.#take(texts, unlockKey);
  }

  /** Seals the file with this key, or (undefined) leaves it open. Nothing happens where it already is so. */
  protect(unlockKey: string | undefined): Promise<void> {
    return this.#change(async () => {
      const { texts, unlockKey: present } = this.#present();
      if (present !== unlockKey) await this.#write(texts, unlockKey);
    });
  }

  /** The cluster's data key. FailedPrecondition on a node that is no manager. */
  get dataKey(): Uint8Array {
    const { data } = this.#present().texts;
    if (data === undefined) throw new ShoalError("FailedPrecondition", "this node has no data key: it is no manager");
    return Buffer.from(data, "base64");
  }

  /** Whether they are a manager's: sealed as its cluster wants it. */
  get areManagers(): boolean {
    return this.#present().texts.data !== undefined;
  }

  /** The node becomes a manager of the cluster with this data key and (undefined: autolock is off) unlock key. */
  beManager(dataKey: Uint8Array, unlockKey: string | undefined): Promise<void> {
    const data = Buffer.from(dataKey).toString("base64");
    return this.#change(() => this.#write({ node: this.#present().texts.node, data }, unlockKey));
  }

  /** The node is a worker: it has no key of the cluster's, and nothing to lock. */
  beWorker(): Promise<void> {
    return this.#change(() => this.#write({ node: this.#present().texts.node }, undefined));
  }

  seal(plain: Uint8Array, what: string): Buffer {
    return this.#present().cipher.seal(plain, what);
  }

  open(sealed: Uint8Array, what: string): Buffer {
    return this.#present().cipher.open(sealed, what);
  }

  /** The node has left; the file goes with the rest of its state. */
  forget(): void {
    this.#opened = undefined;
  }

  #present(): Opened {
    assert(this.#opened, "the node's keys are open");
    return this.#opened;
  }

  #newKey(): string {
    return Buffer.from(this.#random.bytes(dataKeyBytes)).toString("base64");
  }

  #take(texts: KeyTexts, unlockKey: string | undefined): void {
    this.#opened = { texts, cipher: new ValueCipher(Buffer.from(texts.node, "base64"), this.#random), unlockKey };
  }

  #change(change: () => Promise<void>): Promise<void> {
    const changed = this.#changing.then(change);
    this.#changing = changed.catch(() => undefined); // its own caller hears of it
    return changed;
  }

  async #write(keys: KeyTexts, unlockKey: string | undefined): Promise<void> {
    const file: KeyFile =
      unlockKey === undefined
        ? { version: 1, seal: "none", keys }
        : { version: 1, seal: "unlock-key", sealed: this.#sealed(keys, unlockKey) };
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    await writeFileDurably(this.#path, JSON.stringify(file), 0o600);
    this.#take(keys, unlockKey);
  }

  #sealed(keys: KeyTexts, unlockKey: string): string {
    const cipher = new ValueCipher(parseUnlockKey(unlockKey), this.#random);
    return cipher.seal(Buffer.from(JSON.stringify(keys)), place).toString("base64");
  }

  async #read(): Promise<KeyFile> {
    try {
      const file: KeyFile = JSON.parse(await readFile(this.#path, "utf8"));
      if (file.version === 1 && isWhole(file)) return file;
    } catch (cause) {
      throw new ShoalError("DataLoss", `the node's keys ${this.#path} cannot be read`, { cause });
    }
    throw new ShoalError("DataLoss", `the node's keys ${this.#path} are damaged`);
  }
}

function isWhole(file: KeyFile): boolean {
  if (file.seal === "unlock-key") return typeof file.sealed === "string";
  const isKey = (text: string | undefined) => text === undefined || Buffer.from(text, "base64").length === dataKeyBytes;
  return file.seal === "none" && typeof file.keys.node === "string" && isKey(file.keys.node) && isKey(file.keys.data);
}
