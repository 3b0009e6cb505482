/**
 * Cuts between two nodes of a playground, both of which still reach everybody else: a set of pairs of ports whose frames
 * the switch drops. Kept by the kernel alone, so that every command sees what an earlier one has cut.
 */
import type { PlaygroundLayout } from "./layout.ts";
import { namespaceExists } from "./network.ts";
import { run } from "./process.ts";

/** Two ports of the switch; a cut of a pair holds in both directions. */
export type Pair = readonly [string, string];

const table = "bridge partition";

const chainRules = `
add table ${table}
add set ${table} cut { type ifname . ifname; }
add chain ${table} forwarding { type filter hook forward priority 0; policy accept; }
flush chain ${table} forwarding
add rule ${table} forwarding iifname . oifname @cut drop
`;

/** Makes these the only pairs that are cut. */
export async function setCuts(layout: PlaygroundLayout, pairs: readonly Pair[]): Promise<void> {
  const elements = pairs.flatMap(([one, other]) => [`"${one}" . "${other}"`, `"${other}" . "${one}"`]);
  const fill = elements.length === 0 ? "" : `add element ${table} cut { ${[...new Set(elements)].join(", ")} }\n`;
  // One transaction: no frame meets a half of it.
  await nft(layout, ["-f", "-"], `${chainRules}flush set ${table} cut\n${fill}`);
}

/** The pairs that are cut, each once. */
export async function cuts(layout: PlaygroundLayout): Promise<Pair[]> {
  if (!namespaceExists(layout.switchNamespace)) return [];
  const answer = JSON.parse(await nft(layout, ["-j", "list", "ruleset"])) as { nftables: readonly RulesetEntry[] };
  const found = answer.nftables.find(({ set }) => set?.table === "partition" && set.name === "cut")?.set?.elem ?? [];
  return found.map(({ concat }) => concat).filter(([one, other]) => one < other);
}

interface RulesetEntry {
  readonly set?: {
    readonly table: string;
    readonly name: string;
    readonly elem?: readonly { readonly concat: Pair }[];
  };
}

function nft({ switchNamespace }: PlaygroundLayout, args: readonly string[], input = ""): Promise<string> {
  return run("nsenter", [`--net=/run/netns/${switchNamespace}`, "nft", ...args], { input });
}
