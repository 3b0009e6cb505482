/**
 * The networks of a service's spec: whatever a client names them by, they are stored by id. Only networks that the
 * swarm knows can be used; one that only this node's Engine knows is refused with a text that says so, as Swarm does.
 */
import { isShoalError, ShoalError } from "../lib/errors.ts";
import { networkLock } from "../manager/allocator/subnets.ts";
import { attachmentsOf, needsIngress } from "../model/networks.ts";
import type { Network, NetworkAttachmentConfig, ServiceSpec } from "../model/types.ts";
import type { Transaction, View } from "../store/store.ts";
import type { ApiContext } from "./context.ts";
import { ask, type EngineNetwork, parsed, swarmIdOf } from "./engine-networks.ts";
import { DaemonError } from "./errors.ts";
import { lookupNetwork } from "./lookup.ts";

/**
 * Puts ids in place of the names, in `attachments` itself.
 * @throws 400 for the ingress network, 403 for one of the Engine's own, 404 for one that nobody knows
 */
export async function resolveNetworks(
  attachments: NetworkAttachmentConfig[],
  view: View,
  context: ApiContext,
  signal: AbortSignal,
): Promise<void> {
  for (const attachment of attachments) {
    const network = await resolveNetwork(attachment.Target ?? "", view, context, signal);
    if (network.Spec?.Ingress) {
      const text = `Service cannot be explicitly attached to the ingress network ${JSON.stringify(network.Name)}`;
      throw new ShoalError("InvalidArgument", text);
    }
    attachment.Target = network.ID;
  }
}

async function resolveNetwork(target: string, view: View, context: ApiContext, signal: AbortSignal): Promise<Network> {
  try {
    return lookupNetwork(view, target);
  } catch (error) {
    if (!isShoalError(error, "NotFound")) throw error;
    const known = target === "" ? undefined : await engineNetwork(target, context, signal);
    if (known === undefined) throw error;
    const meant = view.network(swarmIdOf(known) ?? "");
    if (meant && !meant.Removed) return meant;
    const predefined = view.networkByName(known.Name);
    if (predefined?.Predefined) return predefined;
    throw new DaemonError(
      "PermissionDenied",
      `The network ${known.Name} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.`,
    );
  }
}

/** The Engine's network that `target` (a name or an id) means; undefined where it has none. */
async function engineNetwork(
  target: string,
  context: ApiContext,
  signal: AbortSignal,
): Promise<EngineNetwork | undefined> {
  const answer = await ask(context, `/networks/${encodeURIComponent(target)}`, signal);
  return answer.status === 200 ? parsed<EngineNetwork>(answer) : undefined;
}

/**
 * What has to hold of the spec's networks when it is written: they are there, and stay as long as it asks for them
 * (whoever removes a network takes the same locks). `before`: the spec that it replaces, whose networks are safe.
 * @throws ShoalError NotFound; FailedPrecondition where it needs the routing mesh and there is none
 */
export function holdNetworks(tx: Transaction, spec: ServiceSpec, before?: ServiceSpec): void {
  const held = new Set((before ? attachmentsOf(before) : []).map(({ Target }) => Target));
  for (const { Target = "" } of attachmentsOf(spec)) {
    if (held.has(Target)) continue;
    tx.takeLock(networkLock(Target));
    const network = tx.network(Target);
    if (!network || network.Removed) throw new ShoalError("NotFound", `network ${Target} not found`);
  }
  if (!needsIngress(spec.EndpointSpec) || needsIngress(before?.EndpointSpec)) return;
  const ingress = tx.ingressNetwork();
  if (!ingress) {
    const text = "service needs ingress network, but no ingress network is present";
    throw new ShoalError("FailedPrecondition", text);
  }
  tx.takeLock(networkLock(ingress.ID));
}
