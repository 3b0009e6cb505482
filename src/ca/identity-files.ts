/**
 * The node's identity on its disk: `certificates/swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key` (0600), as
 * Swarm names them. At any moment, also after a crash, what is loaded is one whole identity: the old or the new one.
 * Each file is replaced by a rename, and as key and certificate are two files, the new key waits beside the old one
 * until its certificate is in place; `load` finishes what a crash has left half done.
 * The key is sealed, where the node has keys to do so: who has only the disk of a locked manager can't speak for it.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { type FileHandle, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { ShoalError } from "../lib/errors.ts";
import type { Sealer } from "../lib/seal.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { readNodeCertificate } from "./chain.ts";

/** Where a node keeps its identity. */
export interface IdentityStore {
  /** Undefined when there is none; FailedPrecondition when what is there is broken. Expiry is not checked. */
  load(): Promise<NodeIdentity | undefined>;
  save(identity: NodeIdentity): Promise<void>;
  /** Leaving the swarm: nothing stays behind. */
  remove(): Promise<void>;
}

/** First line of a sealed key's file. */
const sealedHeader = "shoal sealed key 1";
const keyPlace = "swarm-node.key";

export class IdentityFiles implements IdentityStore {
  readonly #folder: string;
  readonly #sealer: Sealer | undefined;

  /**
   * @param directory the node's swarm state; the files are in its `certificates`
   * @param sealer for the private key; without it the key is written as PEM
   */
  constructor(directory: string, sealer?: Sealer) {
    this.#folder = join(directory, "certificates");
    this.#sealer = sealer;
  }

  async load(): Promise<NodeIdentity | undefined> {
    const rootCA = await this.#read("swarm-root-ca.crt");
    const chain = await this.#read("swarm-node.crt");
    if (rootCA === undefined || chain === undefined) return undefined;
    const key = (await this.#keyOf(chain, "swarm-node.key")) ?? (await this.#finishSave(chain));
    if (key === undefined) throw new ShoalError("FailedPrecondition", `no key in ${this.#folder} is the certificate's`);
    const { nodeId, clusterId, role } = readNodeCertificate(chain);
    return { nodeId, clusterId, role, chain, key, rootCA };
  }

  async save(identity: NodeIdentity): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await this.#replace("swarm-root-ca.crt", identity.rootCA, 0o644);
    await this.#replace("swarm-node.key.next", this.#sealed(identity.key), 0o600);
    await this.#replace("swarm-node.crt", identity.chain, 0o644);
    await this.#takeNextKey();
  }

  async remove(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** The key that was waiting when a save was cut off after its certificate; undefined when there is none. */
  async #finishSave(chain: string): Promise<string | undefined> {
    const key = await this.#keyOf(chain, "swarm-node.key.next");
    if (key !== undefined) await this.#takeNextKey();
    return key;
  }

  async #takeNextKey(): Promise<void> {
    await rename(join(this.#folder, "swarm-node.key.next"), join(this.#folder, "swarm-node.key"));
    await this.#syncFolder();
  }

  async #keyOf(chain: string, name: string): Promise<string | undefined> {
    const text = await this.#read(name);
    if (text === undefined) return undefined;
    try {
      const key = this.#opened(text);
      return new X509Certificate(chain).checkPrivateKey(createPrivateKey(key)) ? key : undefined;
    } catch (cause) {
      throw new ShoalError("FailedPrecondition", `${join(this.#folder, name)} or its certificate is broken`, { cause });
    }
  }

  #sealed(key: string): string {
    if (!this.#sealer) return key;
    const sealed = this.#sealer.seal(Buffer.from(key), keyPlace);
    return `${sealedHeader}\n${sealed.toString("base64")}\n`;
  }

  #opened(text: string): string {
    const [header, sealed = ""] = text.split("\n");
    if (header !== sealedHeader || !this.#sealer) return text;
    return this.#sealer.open(Buffer.from(sealed, "base64"), keyPlace).toString();
  }

  async #read(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.#folder, name), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  async #replace(name: string, content: string, mode: number): Promise<void> {
    const temporary = join(this.#folder, `${name}.tmp`);
    await rm(temporary, { force: true }); // one that a crash has left would keep its own mode
    await write(await open(temporary, "wx", mode), content);
    await rename(temporary, join(this.#folder, name));
    await this.#syncFolder();
  }

  /** A rename is on disk when its folder is. */
  async #syncFolder(): Promise<void> {
    const folder = await open(this.#folder, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

async function write(file: FileHandle, content: string): Promise<void> {
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}
