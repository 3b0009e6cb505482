/**
 * What a node remembers of its swarm between starts, in `<data-dir>/swarm/state.json`. The file's presence is the
 * membership: it is written last when a node enters a swarm and renamed first when it leaves, so that a crash in
 * between is seen at the next start and cleaned up.
 */
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { ShoalError } from "../lib/errors.ts";
import { writeFileDurably } from "../lib/files.ts";
import type { NodeRole } from "../model/types.ts";

export interface NodeState {
  readonly version: 1;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly role: NodeRole;
  /** host:port that the manager listens on. */
  readonly listenAddress: string;
  /** host:port that others reach this node at. */
  readonly advertiseAddress: string;
  /** Address that containers' traffic of this node is to use; absent: that of `advertiseAddress`. */
  readonly dataPathAddress?: string;
  /** Where the managers' store is on this node; absent on a worker, and on a manager that has yet to enter it. */
  readonly store?: "lmdb" | "etcd";
  /** host:port of the known managers; the node id is "" until a manager has said it. */
  readonly managers: readonly { readonly nodeId: string; readonly address: string }[];
}

/** In place of one that is damaged: what it takes to leave the swarm. Its addresses are nobody's. */
export function stateToLeave({ nodeId, clusterId, role }: Pick<NodeState, "nodeId" | "clusterId" | "role">): NodeState {
  const nowhere = "0.0.0.0:2377";
  return { version: 1, nodeId, clusterId, role, listenAddress: nowhere, advertiseAddress: nowhere, managers: [] };
}

/** Where the node's certificate, data key and membership are. */
export function swarmDirectory(dataDirectory: string): string {
  return join(dataDirectory, "swarm");
}

export class StateFile {
  readonly #directory: string;
  readonly #path: string;
  readonly #leavingPath: string;
  /** What is saved is written in the order of the calls, one after the other. */
  #saving: Promise<void> = Promise.resolve();

  constructor(dataDirectory: string) {
    this.#directory = swarmDirectory(dataDirectory);
    this.#path = join(this.#directory, "state.json");
    this.#leavingPath = join(this.#directory, "leaving.json");
  }

  /** The membership, `leaving` when a leave was cut short, or undefined outside of any swarm. */
  async load(): Promise<{ kind: "member" | "leaving"; state: NodeState } | undefined> {
    const leaving = await readJson(this.#leavingPath);
    if (leaving) return { kind: "leaving", state: leaving };
    const state = await readJson(this.#path);
    return state && { kind: "member", state };
  }

  save(state: NodeState): Promise<void> {
    const saved = this.#saving.then(async () => {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await writeFileDurably(this.#path, `${JSON.stringify(state, null, 2)}\n`, 0o600);
    });
    this.#saving = saved.catch(() => undefined); // its own caller hears of it
    return saved;
  }

  /** From here on the node counts as gone, whatever happens next. */
  async markLeaving(): Promise<void> {
    await rename(this.#path, this.#leavingPath);
  }

  async clear(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}

async function readJson(path: string): Promise<NodeState | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const state = JSON.parse(text);
    if (state.version !== 1 || typeof state.nodeId !== "string") throw new Error("not a state of this version");
    return state;
  } catch (cause) {
    throw new ShoalError("DataLoss", `${path} is damaged: restore it from a backup, or remove it to leave the swarm`, {
      cause,
    });
  }
}
