/**
 * What a spec may ask for that this version does not have yet: each answers 501 with one sentence that says what is
 * missing, and where there is one, the way around. Everything here goes when its capability lands; COMPATIBILITY.md
 * lists the same.
 */
import { ShoalError } from "../lib/errors.ts";
import type { ContainerSpec, ServiceSpec } from "./types.ts";
import { isJob } from "./validate-service.ts";

/** @throws ShoalError Unimplemented, in the Engine's words, for the first member of the spec that is not supported */
export function requireSupported(spec: ServiceSpec): void {
  const { ContainerSpec: container, Runtime: runtime } = spec.TaskTemplate ?? {};
  if (isJob(spec)) refuse("jobs (replicated-job, global-job) are not supported yet");
  if (runtime === "plugin" || !container) refuse("plugin services are not supported yet");
  if (container.Secrets?.length) refuse("secrets are not supported yet");
  if (container.Configs?.length) refuse("configs are not supported yet");
  if (container.Mounts?.some((mount) => mount.Type === "cluster")) {
    refuse("cluster volumes (CSI) are not supported; use a volume or bind mount");
  }
  if (templatedTexts(container).some((text) => text?.includes("{{"))) {
    refuse("templates ({{...}}) in env, hostname and mounts are not supported yet");
  }
}

/** The texts that Swarm expands on the node. */
function templatedTexts({ Env: env = [], Hostname: hostname, Mounts: mounts = [] }: ContainerSpec) {
  const texts: (string | undefined)[] = [...env, hostname];
  for (const { Source: source, Target: target, VolumeOptions: volume } of mounts) {
    texts.push(source, target, ...Object.values(volume?.Labels ?? {}));
    texts.push(...Object.values(volume?.DriverConfig?.Options ?? {}));
  }
  return texts;
}

function refuse(message: string): never {
  throw new ShoalError("Unimplemented", message);
}
