/**
 * A node's part as a manager, over time: it begins with the node, or when the node is promoted, and ends when the node
 * is demoted or the other managers have taken it out of their store. Begin and end come one after the other; a node
 * that is to be a manager tries until it is one.
 */
import { Backoff } from "../lib/backoff.ts";
import { type Clock, pause, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { NodeRole } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import type { NodeKeys } from "./data-key.ts";
import { ManagerPart } from "./manager-part.ts";
import { removeStore } from "./open-store.ts";
import type { NodeState, StateFile } from "./state-file.ts";

export interface ManagingOptions {
  readonly dataDirectory: string;
  /** Of this node, open. */
  readonly keys: NodeKeys;
  readonly stateFile: StateFile;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** As it is now. */
  readonly identity: () => NodeIdentity;
  /** Writes it; not called before the keys that seal it are sealed as a manager's are to be. */
  readonly saveIdentity: () => Promise<void>;
  /** As it is now, and the way to change it. */
  readonly state: () => NodeState;
  readonly setState: (state: NodeState) => void;
  /** Aborts when the node stops or leaves. */
  readonly stopped: AbortSignal;
}

/** A manager whose fellows are there has its store well within this. */
const resumeLimitMs = 5_000;
const removedPauseMs = 3_000;
const promotionRetry = { baseMs: 500, maxMs: 10_000 };
/** To say goodbye to the other managers. */
const leaveLimitMs = 8_000;

export class Managing {
  readonly #options: ManagingOptions;
  #part: ManagerPart | undefined;
  #turning: Promise<void> = Promise.resolve();
  /** Becoming a manager, which ends when the node is no longer to be one. */
  #attempt = new AbortController();
  /** The others have taken this manager out of the store. */
  #removed = false;
  #trouble = "";

  constructor(options: ManagingOptions) {
    this.#options = options;
  }

  /** While the node is a manager, and its store is open. */
  get part(): ManagerPart | undefined {
    return this.#part;
  }

  /** Why the node, which is to be a manager, is none yet; "" where it is one, or not known. */
  get trouble(): string {
    return this.#part ? "" : this.#trouble;
  }

  /** What the certificate says counts: a change of role may have been cut short. */
  async start(entering: boolean): Promise<void> {
    const { identity, keys } = this.#options;
    const state = this.#options.state();
    if (identity().role === "worker") {
      if (state.role === "manager" || keys.areManagers) await this.#end();
    } else if (entering || state.store === "lmdb") await this.#begin(this.#options.stopped);
    else await this.#resume();
  }

  /** The node has a new certificate. */
  renewed(before: NodeRole, { role }: NodeIdentity): void {
    const { identity, log } = this.#options;
    if (role === "manager") this.#part?.setIdentity(identity());
    // Demoted and promoted in one breath: the others have taken it out of the store, and it was never given a worker's
    // certificate that would have told it so.
    const isBack = role === "manager" && this.#removed;
    if (role === before && !isBack) return;
    log.info("this node has another role now", { role });
    this.#attempt.abort(new ShoalError("Canceled", "the node is to have another role"));
    this.#turn(() => (role === "manager" ? this.#become() : this.#end()));
  }

  /** Takes this manager out of the others' store before it leaves the swarm; limited, and only where it can be. */
  async leaveStore(): Promise<void> {
    const { clock, log, state } = this.#options;
    const { nodeId } = state();
    const others = [...(this.#part?.store.view.all("nodes") ?? [])].some((n) => n.ManagerStatus && n.ID !== nodeId);
    if (!this.#part || !others) return;
    try {
      await within(clock, leaveLimitMs, this.#part.leaveStore(), () => {
        throw new ShoalError("DeadlineExceeded", "the other managers did not answer in time");
      });
    } catch (error) {
      log.warn("this manager leaves without the others' knowledge", { error: messageOf(error) });
    }
  }

  /** Ends it for now: the node remains a manager. `stopped` has aborted. */
  async stop(): Promise<void> {
    await this.#turning;
    await this.#close();
  }

  #turn(change: () => Promise<void>): void {
    this.#turning = this.#turning
      .then(change)
      .catch((error) => this.#options.log.error("changing the node's role failed", { error: messageOf(error) }));
  }

  async #begin(signal: AbortSignal): Promise<void> {
    const { stateFile, saveIdentity, state, setState } = this.#options;
    setState({ ...state(), role: "manager" });
    this.#part = await ManagerPart.start({
      ...this.#options,
      state: state(),
      signal,
      saveStore: async (store) => {
        if (state().store === undefined) await saveIdentity();
        setState({ ...state(), store });
        await stateFile.save(state());
      },
      onRemoved: () => {
        this.#removed = true;
        // Most often its role is about to be taken away; if it is not, it comes back.
        this.#turn(() => this.#close());
        this.#turn(() => this.#become(removedPauseMs));
      },
    });
  }

  /** A manager among others, which may take long where they are not there: the agent and the API don't wait for it. */
  async #resume(): Promise<void> {
    this.#turn(() => this.#become());
    await within(this.#options.clock, resumeLimitMs, this.#turning, () => undefined);
  }

  /** Tries until the node is a manager, or is no longer to be one. */
  async #become(pauseMs = 0): Promise<void> {
    const { clock, random, log, identity, state, setState, stopped } = this.#options;
    this.#attempt = new AbortController();
    const signal = AbortSignal.any([stopped, this.#attempt.signal]);
    const backoff = new Backoff(promotionRetry, random);
    await pause(clock, pauseMs, signal);
    while (!signal.aborted && identity().role === "manager" && !this.#part) {
      try {
        if (this.#removed) setState(withoutStore(state())); // if it is still to be one, it enters anew
        this.#removed = false;
        await this.#begin(signal);
      } catch (error) {
        this.#trouble = messageOf(error);
        log.error("this node cannot become a manager yet", { error: messageOf(error) });
        await pause(clock, backoff.nextMs(), signal);
      }
    }
  }

  async #close(): Promise<void> {
    const part = this.#part;
    this.#part = undefined;
    await part?.stop();
  }

  /** The node was demoted: nothing of the store stays on its disk. */
  async #end(): Promise<void> {
    const { keys, stateFile, state, setState } = this.#options;
    await this.#close();
    await removeStore(this.#options);
    await keys.beWorker();
    this.#removed = false;
    this.#trouble = "";
    setState({ ...withoutStore(state()), role: "worker" });
    await stateFile.save(state());
  }
}

function withoutStore({ store: _, ...rest }: NodeState): NodeState {
  return rest;
}
