/**
 * The networks of a service's spec: whatever a client names them by, they are stored by id. Only networks that the
 * swarm knows can be used; one that only this node's Engine knows is refused with a text that says so, as Swarm does.
 */
import { askEngine } from "../engine/ask.ts";
import { isShoalError, ShoalError } from "../lib/errors.ts";
import type { Network, NetworkAttachmentConfig } from "../model/types.ts";
import type { View } from "../store/store.ts";
import { DaemonError } from "./errors.ts";
import { lookupNetwork } from "./lookup.ts";

export interface NetworkSource {
  readonly view: View;
  /** Path of the Engine's unix socket; asked only about a network that the swarm does not know. */
  readonly engineSocket: string;
  readonly signal: AbortSignal;
}

/**
 * Puts ids in place of the names, in `attachments` itself.
 * @throws 400 for the ingress network, 403 for one of the Engine's own, 404 for one that nobody knows
 */
export async function resolveNetworks(attachments: NetworkAttachmentConfig[], source: NetworkSource): Promise<void> {
  for (const attachment of attachments) {
    const network = await resolveNetwork(attachment.Target ?? "", source);
    attachment.Target = network.ID;
  }
}

async function resolveNetwork(target: string, source: NetworkSource): Promise<Network> {
  try {
    return lookupNetwork(source.view, target);
  } catch (error) {
    if (!isShoalError(error, "NotFound")) throw error;
    if (target === "ingress") {
      const text = `Service cannot be explicitly attached to the ingress network ${JSON.stringify(target)}`;
      throw new ShoalError("InvalidArgument", text);
    }
    const name = target === "" ? undefined : await engineNetworkName(target, source);
    if (name === undefined) throw error;
    const predefined = source.view.networkByName(name);
    if (predefined?.Predefined) return predefined;
    throw new DaemonError(
      "PermissionDenied",
      `The network ${name} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.`,
    );
  }
}

/** The name of the Engine's network that `target` (a name or an id) means; undefined where it has none. */
async function engineNetworkName(target: string, { engineSocket, signal }: NetworkSource): Promise<string | undefined> {
  const path = `/networks/${encodeURIComponent(target)}`;
  const { status, body } = await askEngine(engineSocket, { method: "GET", path }, signal);
  if (status !== 200) return undefined;
  return (JSON.parse(body.toString("utf8")) as { readonly Name?: string }).Name;
}
