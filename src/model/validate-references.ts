/** What the managers check of a spec's references to secrets and configs; whether those exist is for the store to say. */
import { ShoalError } from "../lib/errors.ts";
import type { ContainerSpec } from "./types.ts";

interface Reference {
  readonly kind: "secret" | "config";
  readonly id: string | undefined;
  readonly name: string | undefined;
  readonly file: { readonly Name?: string } | undefined;
  /** A config may be for the runtime alone, without a file. */
  readonly isForRuntime: boolean;
}

/** @throws ShoalError InvalidArgument with Swarm's text for the first fault */
export function validateReferences(container: ContainerSpec): void {
  const secrets = (container.Secrets ?? []).map(
    ({ SecretID: id, SecretName: name, File: file }): Reference => ({
      kind: "secret",
      id,
      name,
      file,
      isForRuntime: false,
    }),
  );
  const configs = (container.Configs ?? []).map(
    ({ ConfigID: id, ConfigName: name, File: file, Runtime: runtime }): Reference => ({
      kind: "config",
      id,
      name,
      file,
      isForRuntime: runtime !== undefined,
    }),
  );
  validateTargets(secrets);
  validateTargets(configs);
  const credentials = container.Privileges?.CredentialSpec?.Config;
  if (!credentials || configs.some(({ id, isForRuntime }) => isForRuntime && id === credentials)) return;
  refuse(
    `CredentialSpec references config '${credentials}', but that config isn't in config references with RuntimeTarget`,
  );
}

function validateTargets(references: readonly Reference[]): void {
  /** From a file's name to whose it is. */
  const taken = new Map<string, string>();
  for (const { kind, id, name, file, isForRuntime } of references) {
    if (!id || !name) refuse(`malformed ${kind} reference`);
    if (!file && !isForRuntime) refuse(`malformed ${kind} reference, no target provided`);
    if (!file) continue;
    if (!file.Name) refuse(`malformed file ${kind} reference, invalid target file name provided`);
    const other = taken.get(file.Name);
    if (other !== undefined) {
      refuse(`${kind} references '${other}' and '${name}' have a conflicting target: '${file.Name}'`);
    }
    taken.set(file.Name, name);
  }
}

function refuse(message: string): never {
  throw new ShoalError("InvalidArgument", message);
}
