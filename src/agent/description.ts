/** The node as its Engine describes it, in the form that managers store. */
import type { SystemInfo } from "@docker/node-sdk";
import { mergeGenericResources } from "../model/generic-resources.ts";
import type { GenericResource, NodeDescription } from "../model/types.ts";

/**
 * @param info the Engine's `/info`
 * @param declared generic resources besides those that the Engine itself was started with
 * @returns hostname, platform, resources, and the Engine with its labels and plugins (sorted by type, then name)
 */
export function nodeDescription(info: SystemInfo, declared: readonly GenericResource[] = []): NodeDescription {
  const generic = mergeGenericResources(info.GenericResources ?? [], declared);
  return {
    Hostname: info.Name,
    Platform: { Architecture: info.Architecture, OS: info.OSType },
    Resources: {
      NanoCPUs: (info.NCPU ?? 0) * 1e9,
      MemoryBytes: info.MemTotal ?? 0,
      ...(generic.length > 0 ? { GenericResources: generic } : {}),
    },
    Engine: { EngineVersion: info.ServerVersion, Labels: labels(info.Labels ?? []), Plugins: plugins(info) },
  };
}

/** "key=value" lines; a label without a value is empty. */
function labels(lines: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const equals = line.indexOf("=");
      return equals < 0 ? [line, ""] : [line.slice(0, equals), line.slice(equals + 1)];
    }),
  );
}

function plugins({ Plugins = {} }: SystemInfo): { Type: string; Name: string }[] {
  const byType = {
    Authorization: Plugins.Authorization ?? [],
    Log: Plugins.Log ?? [],
    // The only driver that spans nodes is always there, also where the Engine does not list it.
    Network: [...new Set(["overlay", ...(Plugins.Network ?? [])])],
    Volume: Plugins.Volume ?? [],
  };
  return Object.entries(byType).flatMap(([Type, names]) => [...names].sort().map((Name) => ({ Type, Name })));
}
