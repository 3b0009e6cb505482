/**
 * Expands a secret or config whose spec asks for it (`Templating: {Name: "golang"}`). Its template knows what others
 * know, and may besides read secrets, configs and the environment of the task that it is for: never anything else.
 *
 * Differs from Swarm, whose Engine forgets to tell such templates the node's hostname and platform.
 */
import { ShoalError } from "../lib/errors.ts";
import { fromBytes, toBytes } from "../lib/gotemplate/bytes.ts";
import type { TemplateFunction } from "../lib/gotemplate/functions.ts";
import { Expander, templateSubject } from "./expand.ts";
import { expandContainer } from "./expand-container.ts";
import type { AssignedTask, NodeDescription } from "./types.ts";

/** What a payload's template may ask for. */
export interface PayloadSource {
  /** As it was assigned: its own templates not yet expanded. */
  readonly task: AssignedTask;
  readonly node: NodeDescription | undefined;
  /** The data as it is stored (never expanded), by id; undefined where the node has none such. */
  secret(id: string): Uint8Array | undefined;
  config(id: string): Uint8Array | undefined;
}

/**
 * @param templating of the secret's or config's spec; without it the payload is as it is
 * @returns `sensitive`: a secret is part of it now
 * @throws ShoalError InvalidArgument with Go's text, or `unrecognized template type`
 */
export function expandPayload(
  payload: Uint8Array,
  templating: { readonly Name?: string } | undefined,
  source: PayloadSource,
): { data: Uint8Array; sensitive: boolean } {
  if (!templating) return { data: payload, sensitive: false };
  if (templating.Name !== "golang") throw new ShoalError("InvalidArgument", "unrecognized template type");
  const { task, node } = source;
  const container = task.Spec.ContainerSpec ?? {};
  const subject = templateSubject(task, node);
  let sensitive = false;
  let env: readonly string[] | undefined;
  const functions = new Map([
    [
      "secret",
      lookUp((target) => {
        const reference = container.Secrets?.find(({ File }) => File?.Name === target);
        const data = reference?.SecretID === undefined ? undefined : source.secret(reference.SecretID);
        if (!data) throw notFound("secret", target);
        sensitive = true;
        return fromBytes(data);
      }),
    ],
    [
      "config",
      lookUp((target) => {
        const reference = container.Configs?.find(({ File }) => File?.Name === target);
        const data = reference?.ConfigID === undefined ? undefined : source.config(reference.ConfigID);
        if (!data) throw notFound("config", target);
        return fromBytes(data);
      }),
    ],
    [
      "env",
      lookUp((variable) => {
        env ??= expandContainer(container, subject).Env ?? [];
        return environmentValue(env, variable);
      }),
    ],
  ]);
  const data = toBytes(new Expander(subject, functions).expand(fromBytes(payload)));
  return { data, sensitive };
}

function lookUp(find: (name: string) => string): TemplateFunction {
  return { parameters: ["string"], call: (name) => find(String(name)) };
}

function notFound(kind: string, target: string): ShoalError {
  return new ShoalError("InvalidArgument", `${kind} target ${target} not found`);
}

/** "" where it is not set. */
function environmentValue(env: readonly string[], variable: string): string {
  const pair = env.find((entry) => entry.startsWith(`${variable}=`));
  return pair?.slice(variable.length + 1) ?? "";
}
