/**
 * A node's data plane in the simulation: the kernel with its tables, which outlives the daemon but not the machine's
 * power, and the daemon's side of it, one life after another. What the managers say takes effect after a while, message
 * by message, and sometimes only in part.
 */
import { sleep } from "../../src/lib/clock.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import type { DataPath, NetworkChange, NetworksMessage } from "../../src/model/network-state.ts";
import type { AssignedTask } from "../../src/model/types.ts";
import type { ContainerNetworks, NetworkPlane } from "../../src/network/plane.ts";
import { NetworkTable } from "../../src/network/table.ts";
import type { Dice } from "./dice.ts";
import type { Life } from "./timeline.ts";

const attachWithinMs = 30_000;

/** What a node's kernel and name server lead to, as the last message left it. */
export class SimulatedKernel {
  readonly #tables = new Map<string, NetworkTable>();

  get tables(): ReadonlyMap<string, NetworkTable> {
    return this.#tables;
  }

  /** Whether whoever asks on this node is led to the task, on any network. */
  leadsTo(taskId: string): boolean {
    for (const { endpoints } of this.#tables.values()) if (endpoints.get(taskId)?.active) return true;
    return false;
  }

  /** Tasks that it leads to. */
  *ledTo(): Generator<string> {
    for (const { endpoints } of this.#tables.values()) {
      for (const [taskId, { active }] of endpoints) if (active) yield taskId;
    }
  }

  clear(): void {
    this.#tables.clear();
  }

  change(change: NetworkChange): void {
    switch (change.kind) {
      case "key":
        return;
      case "remove-network":
        this.#tables.delete(change.networkId);
        return;
      case "network":
        if (!this.#tables.has(change.network.id)) {
          this.#tables.set(change.network.id, new NetworkTable(change.network));
          return;
        }
        break;
    }
    const id = change.kind === "network" ? change.network.id : change.networkId;
    const table = this.#tables.get(id);
    if (!table) throw new Error(`${change.kind} of a network that the node was not told of`);
    table.apply(change);
  }
}

export class SimulatedPlane implements NetworkPlane {
  readonly #kernel: SimulatedKernel;
  readonly #life: Life;
  readonly #dice: Dice;
  readonly #address: string;
  readonly #waiting = new Set<() => void>();
  #heard = false;
  #applying: Promise<void> = Promise.resolve();

  /** @param address of the node's data path */
  constructor(kernel: SimulatedKernel, life: Life, dice: Dice, address: string) {
    this.#kernel = kernel;
    this.#life = life;
    this.#dice = dice;
    this.#address = address;
  }

  async describe(): Promise<DataPath> {
    await this.#work();
    return { address: this.#address };
  }

  apply(message: NetworksMessage): Promise<void> {
    const applied = this.#applying.then(() => this.#apply(message));
    this.#applying = applied.catch(() => undefined);
    return applied;
  }

  async #apply({ type, changes }: NetworksMessage): Promise<void> {
    await this.#work();
    if (type === "complete") this.#kernel.clear();
    for (const [index, change] of changes.entries()) {
      if (this.#dice.chance(0.001)) throw new ShoalError("Internal", `change ${index} can't be made`);
      this.#kernel.change(change);
    }
    this.#heard = true;
    for (const look of [...this.#waiting]) look();
  }

  async attach(task: AssignedTask, signal: AbortSignal): Promise<ContainerNetworks> {
    await this.#work();
    const limit = new AbortController();
    const timer = this.#life.clock.after(attachWithinMs, () => limit.abort());
    try {
      while (!this.#isThere(task)) await this.#told(AbortSignal.any([signal, limit.signal]));
    } catch (error) {
      if (signal.aborted) throw new ShoalError("Canceled", "the task is no longer wanted", { cause: error });
      throw new ShoalError("Unavailable", "no manager has told of the task's networks yet");
    } finally {
      timer.cancel();
    }
    return { networks: [{ engineNetwork: "overlay", driverOptions: {} }], nameserver: "10.0.0.1" };
  }

  async drained(_: AssignedTask, limitMs: number): Promise<void> {
    await sleep(this.#life.clock, Math.min(limitMs, this.#dice.spread(1, 3_000)));
  }

  /** The managers know of the task's addresses, and the kernel does too. */
  #isThere(task: AssignedTask): boolean {
    return (
      this.#heard &&
      task.Networks.every(
        ({ Network, Addresses }) =>
          Addresses.length === 0 || this.#kernel.tables.get(Network.ID)?.endpoints.has(task.ID) === true,
      )
    );
  }

  #told(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (done: () => void) => {
        this.#waiting.delete(onTold);
        signal.removeEventListener("abort", onAbort);
        done();
      };
      const onTold = () => settle(resolve);
      const onAbort = () => settle(() => reject(signal.reason));
      this.#waiting.add(onTold);
      if (signal.aborted) onAbort();
      else signal.addEventListener("abort", onAbort);
    });
  }

  /** A fork, and what it does. */
  async #work(): Promise<void> {
    await sleep(this.#life.clock, this.#dice.spread(1, 100));
  }
}
