/**
 * The networks of a task's container, as the Engine knows them. Three kinds, in this order: overlay networks are the data
 * plane's; other networks of the swarm (macvlan and its like) are made on the Engine as the swarm's object says, and go
 * when no container uses them; the Engine's own (`bridge`, `host`, `none`) are simply there.
 */
import type { Engine } from "../../engine/engine.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { AssignedTask, Network } from "../../model/types.ts";
import type { ContainerNetwork, NetworkPlane } from "../../network/plane.ts";

/** On the Engine's networks that are made here, with the swarm's id. The data plane's have a label of their own. */
const madeLabel = "shoal.swarm-network";

export interface TaskNetworks {
  /** The first is given with the create, the others are connected before the start. Empty: the Engine's default. */
  readonly networks: readonly ContainerNetwork[];
  /** Where the container's names are looked up; absent where its Engine knows them all. */
  readonly nameserver?: string;
}

export interface DockerNetworksOptions {
  readonly engine: Engine;
  readonly plane: NetworkPlane | undefined;
  readonly log: Logger;
}

export class DockerNetworks {
  readonly #options: DockerNetworksOptions;
  /** Whether the Engine may have networks that were made here. */
  #mayHaveMade = true;

  constructor(options: DockerNetworksOptions) {
    this.#options = options;
  }

  /**
   * Resolves when they are there. Repeatable, with the same answer.
   * @throws Unavailable for what another try may mend, else for good
   */
  async of(task: AssignedTask, signal: AbortSignal): Promise<TaskNetworks> {
    const overlay = task.Networks.find(({ Network }) => kindOf(Network) === "overlay");
    const attached = overlay && (await this.#plane(overlay.Network).attach(task, signal));
    const networks = [...(attached?.networks ?? [])];
    for (const { Network } of task.Networks) {
      const kind = kindOf(Network);
      if (kind === "overlay") continue;
      if (kind === "made") await this.#ensure(Network);
      networks.push({ engineNetwork: Network.Name, driverOptions: {} });
    }
    return { networks, ...(attached && { nameserver: attached.nameserver }) };
  }

  /** Removes those that were made here and that no container is on. A failure is only logged: the next removal tries again. */
  async collect(): Promise<void> {
    if (!this.#mayHaveMade) return;
    const { engine, log } = this.#options;
    try {
      const made = await engine.listNetworks([madeLabel]);
      this.#mayHaveMade = made.length > 0;
      for (const { Id = "" } of made) await this.#remove(Id);
    } catch (error) {
      log.info("networks that are no longer used stay on the Engine for now", { error: messageOf(error) });
    }
  }

  async #remove(id: string): Promise<void> {
    try {
      await this.#options.engine.removeNetwork(id);
    } catch (error) {
      // PermissionDenied: a container is on it.
      if (!isShoalError(error, "PermissionDenied") && !isShoalError(error, "NotFound")) throw error;
    }
  }

  #plane({ Name }: Network): NetworkPlane {
    const { plane } = this.#options;
    if (plane) return plane;
    throw new ShoalError(
      "FailedPrecondition",
      `network ${Name}: this node has no data plane for networks of the swarm`,
    );
  }

  async #ensure({ ID, Name, Driver, Labels, Spec }: Network): Promise<void> {
    const { engine } = this.#options;
    const [made] = await engine.listNetworks([`${madeLabel}=${ID}`]);
    if (made) return;
    this.#mayHaveMade = true;
    const { Internal = false, Attachable = false, EnableIPv6 = false, ConfigFrom, Options = {}, IPAM } = Spec ?? {};
    const addresses = IPAM && {
      IPAM: {
        Driver: IPAM.Driver,
        Options: { ...IPAM.Options },
        Config: IPAM.Config.map((config) => ({ ...config })),
      },
    };
    try {
      await engine.createNetwork({
        Name,
        // Older Engines make a second network of a name unless they are told to look.
        ...{ CheckDuplicate: true },
        Driver,
        Internal,
        Attachable,
        EnableIPv6,
        Labels: { ...Labels, [madeLabel]: ID },
        ...(ConfigFrom ? { ConfigFrom: { Network: ConfigFrom } } : { Options: { ...Options }, ...addresses }),
      });
    } catch (error) {
      const [other] = isShoalError(error, "AlreadyExists") ? await engine.listNetworks([`${madeLabel}=${ID}`]) : [];
      if (!other) throw error; // else another task was faster
    }
  }
}

function kindOf({ Predefined, Driver }: Network): "engine" | "overlay" | "made" {
  if (Predefined) return "engine";
  return Driver === "overlay" ? "overlay" : "made";
}
