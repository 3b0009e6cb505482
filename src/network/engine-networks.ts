/**
 * The Engine's own networks that stand for the swarm's: an Engine lets a container only onto networks that it knows. They
 * have the swarm's name where it is free, our driver, no address management (addresses come with each container), and a
 * label with the swarm's id, by which they are found again.
 */
import type { Engine } from "../engine/engine.ts";
import { isShoalError, messageOf } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { NetworkState } from "../model/network-state.ts";
import { engineNetworkLabel } from "../model/networks.ts";

/** Name of our network driver: the name of its socket. */
export const driverName = "shoal";
/** Of a network's id, behind a name that another network of the Engine has. */
const shortIdLength = 12;

export class EngineNetworks {
  readonly #engine: Engine;
  readonly #log: Logger;
  /** Creations under way, by the swarm's id. */
  readonly #making = new Map<string, Promise<string>>();

  constructor(engine: Engine, log: Logger) {
    this.#engine = engine;
    this.#log = log;
  }

  /** Makes it where it is missing. @returns its name in the Engine */
  ensure(network: NetworkState): Promise<string> {
    const underWay = this.#making.get(network.id);
    if (underWay) return underWay;
    const making = this.#ensure(network).finally(() => this.#making.delete(network.id));
    this.#making.set(network.id, making);
    return making;
  }

  /**
   * Removes those of networks that are not needed, but for those that containers run on.
   * @returns whether none of them is left
   */
  async removeAllBut(isNeeded: (networkId: string) => boolean): Promise<boolean> {
    let isAll = true;
    for (const { Id = "", Name, Labels } of await this.#engine.listNetworks([engineNetworkLabel])) {
      if (isNeeded(Labels?.[engineNetworkLabel] ?? "")) continue;
      try {
        await this.#engine.removeNetwork(Id);
      } catch (error) {
        if (isShoalError(error, "NotFound")) continue;
        isAll = false;
        this.#log.debug("a network stays on the Engine for now", { network: Name, error: messageOf(error) });
      }
    }
    return isAll;
  }

  /** Those that are not needed: a line each. */
  async audit(isNeeded: (networkId: string) => boolean): Promise<string[]> {
    const found = await this.#engine.listNetworks([engineNetworkLabel]);
    return found
      .filter(({ Labels }) => !isNeeded(Labels?.[engineNetworkLabel] ?? ""))
      .map(({ Name }) => `the Engine has a network ${Name} which the node takes no part in`);
  }

  async #ensure(network: NetworkState): Promise<string> {
    const found = await this.#find(network.id);
    if (found !== undefined) return found;
    for (const name of [network.name, `${network.name}-${network.id.slice(0, shortIdLength)}`]) {
      try {
        await this.#create(network, name);
        return name;
      } catch (error) {
        if (!isTaken(error)) throw error;
      }
    }
    // Another call was faster.
    return (await this.#find(network.id)) ?? network.name;
  }

  async #find(networkId: string): Promise<string | undefined> {
    const [found] = await this.#engine.listNetworks([`${engineNetworkLabel}=${networkId}`]);
    return found?.Name;
  }

  async #create({ id, internal }: NetworkState, name: string): Promise<void> {
    await this.#engine.createNetwork({
      Name: name,
      // Older Engines make a second network of a name unless they are told to look.
      ...{ CheckDuplicate: true },
      Driver: driverName,
      Internal: internal,
      IPAM: { Driver: "null" },
      Labels: { [engineNetworkLabel]: id },
    });
  }
}

/** The name is another network's, or the Engine keeps it for itself. */
function isTaken(error: unknown): boolean {
  return isShoalError(error, "AlreadyExists") || isShoalError(error, "PermissionDenied");
}
