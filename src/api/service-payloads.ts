/**
 * Which service uses which secret or config, inside transactions: a service is only written with those that are there,
 * and one that a service uses stays. Who begins to use one and who removes it take the same lock.
 *
 * Differs from Swarm: what a service may be rolled back to while its update is under way counts as used, and a rollback
 * to what is no longer there is refused instead of failing on the nodes.
 */
import { ShoalError } from "../lib/errors.ts";
import { payloadReferences } from "../model/payload-references.ts";
import type { ServiceSpec } from "../model/types.ts";
import type { Transaction, View } from "../store/store.ts";
import { wantedSpecs } from "./service-use.ts";

type PayloadTable = "secrets" | "configs";

function payloadLock(table: PayloadTable, id: string): string {
  return `${table} ${id}`;
}

function referencesOf(spec: ServiceSpec) {
  return payloadReferences(spec.TaskTemplate?.ContainerSpec);
}

/**
 * What has to hold of the spec's secrets and configs when it is written. `before`: the spec that it replaces.
 * @throws ShoalError InvalidArgument with Swarm's text where one is not there, or is called otherwise
 */
export function holdPayloads(tx: Transaction, spec: ServiceSpec, before?: ServiceSpec): void {
  const held = new Set((before ? referencesOf(before) : []).map(({ table, id }) => payloadLock(table, id)));
  for (const [table, word] of [
    ["secrets", "secret"],
    ["configs", "config"],
  ] as const) {
    const references = referencesOf(spec).filter((reference) => reference.table === table);
    const missing = references.filter(({ id, name }) => tx.get(table, id)?.Spec.Name !== name);
    if (missing.length > 0) {
      const names = missing.map(({ name }) => name).join(", ");
      throw new ShoalError("InvalidArgument", `${missing.length === 1 ? word : table} not found: ${names}`);
    }
    for (const { id } of references) {
      const lock = payloadLock(table, id);
      if (!held.has(lock)) tx.takeLock(lock);
      held.add(lock);
    }
  }
}

/** Removes a secret or a config. @throws ShoalError InvalidArgument with Swarm's text where a service uses it */
export function removePayload(tx: Transaction, table: PayloadTable, id: string): void {
  const word = table === "secrets" ? "secret" : "config";
  const payload = tx.get(table, id);
  if (!payload) throw new ShoalError("NotFound", `could not find ${word} ${id}`);
  tx.takeLock(payloadLock(table, id));
  const users = usersOf(tx, table, id);
  if (users.length > 0) {
    const services = users.length === 1 ? "service" : "services";
    const text = `${word} '${payload.Spec.Name}' is in use by the following ${services}: ${users.join(", ")}`;
    throw new ShoalError("InvalidArgument", text);
  }
  tx.delete(table, id);
}

/** Names of the services that use it, in order. */
function usersOf(view: View, table: PayloadTable, id: string): string[] {
  const names: string[] = [];
  for (const service of view.all("services")) {
    const uses = (spec: ServiceSpec) => referencesOf(spec).some((one) => one.table === table && one.id === id);
    if (wantedSpecs(view, service).some(uses)) names.push(service.Name);
  }
  return names.sort();
}
