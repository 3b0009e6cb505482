/** The secrets and configs that a container's spec asks for, as one list: most of what happens to them is the same. */
import type { ContainerSpec } from "./types.ts";

export interface PayloadReference {
  readonly table: "secrets" | "configs";
  readonly id: string;
  readonly name: string;
  /** Absent: a config that is not for the container, but for what runs it. */
  readonly file: PayloadFile | undefined;
}

export interface PayloadFile {
  /** Absolute, or below `/run/secrets` (a secret), or `/` (a config). */
  readonly Name?: string;
  readonly UID?: string;
  readonly GID?: string;
  /** Permissions; absent and 0 are none. */
  readonly Mode?: number;
}

/** Secrets, then configs, in the spec's order. */
export function payloadReferences(container: ContainerSpec | undefined): PayloadReference[] {
  const secrets = (container?.Secrets ?? []).map(
    ({ SecretID: id = "", SecretName: name = "", File: file }): PayloadReference => ({
      table: "secrets",
      id,
      name,
      file,
    }),
  );
  const configs = (container?.Configs ?? []).map(
    ({ ConfigID: id = "", ConfigName: name = "", File: file }): PayloadReference => ({
      table: "configs",
      id,
      name,
      file,
    }),
  );
  return [...secrets, ...configs];
}
