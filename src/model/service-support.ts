/**
 * What a spec may ask for that this version does not have yet: each answers 501 with one sentence that says what is
 * missing, and where there is one, the way around. Everything here goes when its capability lands; COMPATIBILITY.md
 * lists the same.
 */
import { ShoalError } from "../lib/errors.ts";
import type { ServiceSpec } from "./types.ts";

/** @throws ShoalError Unimplemented, in the Engine's words, for the first member of the spec that is not supported */
export function requireSupported(spec: ServiceSpec): void {
  const { ContainerSpec: container, Runtime: runtime } = spec.TaskTemplate ?? {};
  if (runtime === "plugin" || !container) refuse("plugin services are not supported yet");
  if (container.Privileges?.CredentialSpec) refuse("credential specs are for Windows, which is not supported");
  const { Isolation: isolation } = container;
  if (isolation && isolation !== "default") {
    refuse(`isolation ${isolation} is for Windows, which is not supported`);
  }
  if (container.Mounts?.some((mount) => mount.Type === "cluster")) {
    refuse("cluster volumes (CSI) are not supported; use a volume or bind mount");
  }
}

function refuse(message: string): never {
  throw new ShoalError("Unimplemented", message);
}
