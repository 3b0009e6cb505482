/** Settings of a namespace's IPv4, below `/proc/sys/net/ipv4`: set there, so that it needs no program. */
import type { Commands } from "./commands.ts";

/** Value by name (`conf/all/rp_filter`). */
export type Settings = Readonly<Record<string, string>>;

/** The files are those of the namespace of whoever opens them. */
export async function setSettings(commands: Commands, settings: Settings): Promise<void> {
  const lines = Object.entries(settings).map(([name, value]) => `echo ${value} > /proc/sys/net/ipv4/${name}`);
  await commands.run("sh", ["-ec", lines.join("\n")]);
}

/** Those that have another value, one line each. */
export async function wrongSettings(commands: Commands, settings: Settings): Promise<string[]> {
  const names = Object.keys(settings);
  const files = names.map((name) => `/proc/sys/net/ipv4/${name}`).join(" ");
  // A link that is missing has no settings, and is told of by itself.
  const found = await commands.run("sh", ["-c", `for file in ${files}; do cat $file 2>/dev/null || echo; done`]);
  const values = found.split("\n");
  return names.flatMap((name, index) =>
    values[index] === settings[name] || values[index] === "" ? [] : [`net.ipv4.${name} is ${values[index]}`],
  );
}
