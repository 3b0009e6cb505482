/**
 * The one nftables table that a network has, `table ip shoal`, and a copy of it in memory. A full replace and a change
 * are one transaction of the kernel each: no packet ever sees half of it. A change costs what has changed: the copy says
 * what the kernel has already, and only the differences are sent.
 *
 * The audit doesn't compare with what we have written but with what the kernel makes of it: the table as it should be
 * is loaded in an empty namespace of its own and listed there by the same program, so that neither the version of nft
 * nor its way to print things makes a difference.
 */
import { assert } from "../lib/errors.ts";
import type { Commands } from "./commands.ts";

const table = "ip shoal";

/** A map or a set, whose elements come and go. */
export interface NftCollection {
  readonly kind: "map" | "set";
  /** As in `type ipv4_addr : verdict`. */
  readonly type: string;
}

/** A chain that the kernel calls. */
export interface NftHook {
  /** As in `type nat hook prerouting priority dstnat; policy accept;`. */
  readonly hook: string;
  readonly rules: readonly string[];
}

/** What stays the same as long as the table is there. */
export interface NftFrame {
  readonly collections: Readonly<Record<string, NftCollection>>;
  readonly hooks: Readonly<Record<string, NftHook>>;
}

/** What comes and goes. A chain or an element is changed by setting it again, and taken away by `undefined`. */
export class NftTable {
  readonly #frame: NftFrame;
  /** By name; the rules as one text. */
  readonly #chains = new Map<string, string>();
  /** By collection and key; the value is "" in a set. */
  readonly #elements = new Map<string, Map<string, string>>();
  readonly #changedChains = new Map<string, string | undefined>();
  readonly #changedElements = new Map<string, Map<string, string | undefined>>();

  constructor(frame: NftFrame) {
    this.#frame = frame;
    for (const name of Object.keys(frame.collections)) {
      this.#elements.set(name, new Map());
      this.#changedElements.set(name, new Map());
    }
  }

  setChain(name: string, rules: readonly string[] | undefined): void {
    note(this.#chains, this.#changedChains, name, rules?.join("\n"));
  }

  /** @param value "" in a set */
  setElement(collection: string, key: string, value: string | undefined): void {
    const elements = this.#elements.get(collection);
    const changed = this.#changedElements.get(collection);
    assert(elements && changed, `no collection ${collection}`);
    note(elements, changed, key, value);
  }

  /** The whole table, also what has changed since the last `takeChanges`, to take the place of any that is there. */
  render(): string {
    const { collections, hooks } = this.#frame;
    const lines = [`add table ${table}`, `delete table ${table}`, `table ${table} {`];
    for (const [name, { kind, type }] of Object.entries(collections)) {
      const elements = [...merged(this.#elements.get(name)!, this.#changedElements.get(name)!)].map(element);
      lines.push(`${kind} ${name} {`, type);
      if (elements.length > 0) lines.push(`elements = { ${elements.join(", ")} }`);
      lines.push("}");
    }
    for (const [name, rules] of merged(this.#chains, this.#changedChains)) lines.push(`chain ${name} {`, rules, "}");
    for (const [name, { hook, rules }] of Object.entries(hooks)) lines.push(`chain ${name} {`, hook, ...rules, "}");
    return `${[...lines, "}"].join("\n")}\n`;
  }

  /**
   * What leads the kernel's table from the last `takeChanges` to now; "" where nothing has changed. Chains are there
   * before an element leads to them, and go after the last one has.
   */
  renderChanges(): string {
    const lines: string[] = [];
    const gone: string[] = [];
    for (const [name, rules] of this.#changedChains) {
      if (rules === undefined) {
        gone.push(`flush chain ${table} ${name}`, `delete chain ${table} ${name}`);
        continue;
      }
      lines.push(`${this.#chains.has(name) ? "flush" : "add"} chain ${table} ${name}`);
      for (const rule of rules.split("\n")) lines.push(`add rule ${table} ${name} ${rule}`);
    }
    for (const [name, changed] of this.#changedElements) {
      const before = this.#elements.get(name)!;
      const [removed, added]: [string[], string[]] = [[], []];
      for (const [key, value] of changed) {
        if (before.has(key)) removed.push(key);
        if (value !== undefined) added.push(element([key, value]));
      }
      if (removed.length > 0) lines.push(`delete element ${table} ${name} { ${removed.join(", ")} }`);
      if (added.length > 0) lines.push(`add element ${table} ${name} { ${added.join(", ")} }`);
    }
    lines.push(...gone);
    return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
  }

  /** The kernel has been told: from here on changes are counted anew. */
  takeChanges(): void {
    take(this.#chains, this.#changedChains);
    for (const [name, changed] of this.#changedElements) take(this.#elements.get(name)!, changed);
  }
}

/** Differences between the kernel's table and what it should be, one line each. Run where the table is. */
export async function auditTable(commands: Commands, wanted: NftTable): Promise<string[]> {
  const list = "nft list table ip shoal";
  // What is not there is listed as nothing.
  const found = blocks(
    await commands.run("sh", ["-c", `nft list tables | grep -qxF "table ${table}" || exit 0; ${list}`]),
  );
  const truth = blocks(await commands.run("unshare", ["--net", "sh", "-c", `nft -f - && ${list}`], wanted.render()));
  const differences: string[] = [];
  for (const [name, body] of truth) {
    const there = found.get(name);
    if (there === undefined) differences.push(`${name} is missing`);
    else if (there !== body) differences.push(`${name} is ${brief(there, body)}`);
  }
  for (const name of found.keys()) if (!truth.has(name)) differences.push(`${name} should not be there`);
  return differences;
}

/** Takes the table away; repeatable. */
export async function removeTable(commands: Commands): Promise<void> {
  await commands.run("nft", ["-f", "-"], `add table ${table}\ndelete table ${table}\n`);
}

/** The maps, sets and chains of a listed table, as "chain pre" to its text. */
function blocks(listing: string): Map<string, string> {
  const found = new Map<string, string>();
  let name: string | undefined;
  let body: string[] = [];
  for (const line of listing.split("\n").slice(1)) {
    const text = line.trim();
    if (name === undefined) {
      if (text.endsWith("{")) name = text.slice(0, -1).trim();
    } else if (line === "\t}") {
      found.set(name, body.join("\n"));
      name = undefined;
      body = [];
    } else body.push(text);
  }
  return found;
}

/** Where two texts differ, short enough for a line. */
function brief(there: string, wanted: string): string {
  const [a, b] = [pieces(there), pieces(wanted)];
  const [more, less] = [a.filter((piece) => !b.includes(piece)), b.filter((piece) => !a.includes(piece))];
  const say = (list: readonly string[]) => (list.length === 0 ? "nothing" : list.slice(0, 3).join("; "));
  return `different: it has ${say(more)} instead of ${say(less)}`;
}

/** Elements and rules. */
function pieces(text: string): string[] {
  return text
    .replace("elements = {", "")
    .split(/,?\n/)
    .map((piece) => piece.replace(/\}$/, "").trim());
}

function element([key, value]: readonly [string, string]): string {
  return value === "" ? key : `${key} : ${value}`;
}

function note<T>(
  known: ReadonlyMap<string, T>,
  changed: Map<string, T | undefined>,
  key: string,
  value: T | undefined,
) {
  if (known.get(key) === value) changed.delete(key);
  else changed.set(key, value);
}

function merged(known: ReadonlyMap<string, string>, changed: ReadonlyMap<string, string | undefined>) {
  const all = new Map(known);
  for (const [key, value] of changed) {
    if (value === undefined) all.delete(key);
    else all.set(key, value);
  }
  return all;
}

function take(known: Map<string, string>, changed: Map<string, string | undefined>): void {
  for (const [key, value] of changed) {
    if (value === undefined) known.delete(key);
    else known.set(key, value);
  }
  changed.clear();
}
