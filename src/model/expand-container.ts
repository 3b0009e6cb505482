/**
 * Expands the templates in the spec of a container, where Swarm does: in the values of its environment, its hostname,
 * the source and target of mounts, and the labels and driver options of volumes. Nowhere else.
 */
import { isShoalError, ShoalError } from "../lib/errors.ts";
import { quoteText } from "../lib/gotemplate/quote.ts";
import { Expander, type TemplateSubject } from "./expand.ts";
import type { ContainerSpec, Mount, ServiceSpec } from "./types.ts";

/** Characters of a faulty text that its message shows. */
const shownCharacters = 200;

/** Whether it has anything to expand. */
export function isTemplated({ Env: env = [], Hostname: hostname, Mounts: mounts = [] }: ContainerSpec): boolean {
  const texts: (string | undefined)[] = [...env, hostname];
  for (const { Source: source, Target: target, VolumeOptions: volume } of mounts) {
    texts.push(source, target, ...Object.values(volume?.Labels ?? {}));
    texts.push(...Object.values(volume?.DriverConfig?.Options ?? {}));
  }
  return texts.some((text) => text?.includes("{{"));
}

/** @throws ShoalError InvalidArgument in Swarm's words, which text it was and what is wrong with it */
export function expandContainer(spec: ContainerSpec, subject: TemplateSubject): ContainerSpec {
  const expander = new Expander(subject);
  const { Env: env, Hostname: hostname, Mounts: mounts } = spec;
  const expanded = { ...spec };
  if (env) expanded.Env = within("expanding env failed", () => expandEnv(env, expander));
  if (mounts) {
    expanded.Mounts = within("expanding mounts failed", () => mounts.map((mount) => expandMount(mount, expander)));
  }
  if (hostname) expanded.Hostname = within("expanding hostname failed", () => expander.expand(hostname));
  return expanded;
}

/**
 * As it will be on some node, for the checks before a service is taken. Swarm knows no labels here, and so refuses
 * `{{.Service.Labels.x}}` even where there is such a label; we look at those that the service has.
 * @throws ShoalError as `expandContainer`
 */
export function expandForChecks(container: ContainerSpec, { Name: name = "", Labels }: ServiceSpec): ContainerSpec {
  return expandContainer(container, {
    service: { id: "serviceid", name, labels: Labels ?? {} },
    node: { id: "nodeid", hostname: "nodeHostname", os: "os", architecture: "architecture" },
    task: { id: "taskid", name: "taskname", slot: "1" },
  });
}

/** Values only; an entry without one stays as it is. */
function expandEnv(env: readonly string[], expander: Expander): string[] {
  return env.map((pair) => {
    const equals = pair.indexOf("=");
    if (equals < 0) return pair;
    return within(`expanding env ${shown(pair)}`, () => {
      return pair.slice(0, equals + 1) + expander.expand(pair.slice(equals + 1));
    });
  });
}

function expandMount(mount: Mount, expander: Expander): Mount {
  const { Source: source, Target: target, VolumeOptions: volume } = mount;
  const expanded: Mount = { ...mount };
  if (source) expanded.Source = within(`expanding mount source ${shown(source)}`, () => expander.expand(source));
  if (target) expanded.Target = within(`expanding mount target ${shown(target)}`, () => expander.expand(target));
  if (!volume) return expanded;
  const { Labels: labels, DriverConfig: driver } = volume;
  expanded.VolumeOptions = { ...volume };
  if (labels) expanded.VolumeOptions.Labels = within("expanding volume labels", () => expandValues(labels, expander));
  const options = driver?.Options;
  if (options) {
    const Options = within("expanding volume driver config", () => expandValues(options, expander));
    expanded.VolumeOptions.DriverConfig = { ...driver, Options };
  }
  return expanded;
}

function expandValues(values: Readonly<Record<string, string>>, expander: Expander): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => {
      const entry = `${quoteText(key)}=${shown(value)}`;
      return [key, within(`expanding map entry ${entry}`, () => expander.expand(value))];
    }),
  );
}

function shown(text: string): string {
  return quoteText(text.length > shownCharacters ? `${text.slice(0, shownCharacters)}...` : text);
}

/** What fails in it says where. */
function within<T>(place: string, expand: () => T): T {
  try {
    return expand();
  } catch (error) {
    if (!isShoalError(error)) throw error;
    throw new ShoalError(error.code, `${place}: ${error.message}`, { cause: error });
  }
}
