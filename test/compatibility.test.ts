/**
 * Keeps COMPATIBILITY.md whole and honest: its tables have every flag that the docker CLIs print and every key of their
 * compose schema (as scripts/client-surface.mjs wrote them down), and each row names tests that are there.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

interface Surface {
  readonly composeKeys: readonly string[];
  /** By version and command. */
  readonly flags: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

/** A row of a table, with the headings above it. */
interface Row {
  readonly line: number;
  readonly section: string;
  readonly topic: string;
  readonly cells: readonly string[];
}

/** Sections whose tables have a column of tests, their last one. */
const proven = ["Endpoints", "Commands", "Compose files", "Service specs"] as const;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const page = readFileSync(join(root, "COMPATIBILITY.md"), "utf8");
const surface = JSON.parse(readFileSync(join(root, "test/clients/surface.json"), "utf8")) as Surface;
const rows = rowsOf(page);

test("every row of what works names tests, and they are there", () => {
  const wrong: string[] = [];
  for (const section of proven) {
    const own = rows.filter((row) => row.section === section);
    if (own.length === 0) wrong.push(`there is no table in the section "${section}"`);
    for (const { line, cells } of own) {
      const named = testsIn(cells.at(-1) ?? "");
      if (named.length === 0) wrong.push(`COMPATIBILITY.md:${line}: no test is named`);
      for (const { file, name } of named) {
        const problem = problemOf(file, name);
        if (problem) wrong.push(`COMPATIBILITY.md:${line}: ${problem}`);
      }
    }
  }
  assertNone(wrong);
});

test("every flag of the CLIs' commands is in a table", () => {
  const wrong = new Set<string>();
  for (const [version, commands] of Object.entries(surface.flags)) {
    for (const [command, flags] of Object.entries(commands)) {
      const own = rows.filter(({ section, topic }) => section === "Commands" && commandsIn(topic).includes(command));
      if (own.length === 0) wrong.add(`docker ${command} has no table (${version})`);
      const listed = new Set(own.flatMap(({ cells }) => [...(cells[0] ?? "").matchAll(/--[a-z0-9-]+/g)].map(String)));
      for (const flag of flags)
        if (!listed.has(flag)) wrong.add(`docker ${command} ${flag} is not listed (${version})`);
    }
  }
  assertNone([...wrong]);
});

test("every endpoint is in the table once", () => {
  const listed = rows
    .filter(({ section }) => section === "Endpoints")
    .flatMap(({ cells }) => [...(cells[0] ?? "").matchAll(/`([^`]+)`/g)].map(([, text = ""]) => text));
  const twice = listed.filter((endpoint, index) => /^[A-Z]+ \//.test(endpoint) && listed.indexOf(endpoint) !== index);
  assert.deepEqual(twice, []);
  const missing = routes().filter((route) => !listed.includes(route));
  assert.deepEqual(missing, []);
});

test("every key of compose files is in a table", () => {
  const listed = new Set(
    rows
      .filter(({ section }) => section === "Compose files")
      .flatMap(({ topic, cells }) => keysOfRow(topic, cells[0] ?? "")),
  );
  const missing = surface.composeKeys.filter((key) => key.includes(".") && !listed.has(key));
  assert.deepEqual(missing, []);
  const unknown = [...listed].filter((key) => !surface.composeKeys.includes(key));
  assert.deepEqual(unknown, []);
});

test("the compose files of clients/keys have every key of the schema", () => {
  const found = keysIn(read("test/clients/stacks/keys/accepted.json"));
  const refused = read("test/clients/stacks/keys/refused.json") as unknown as readonly { readonly file: Json }[];
  for (const { file } of refused) for (const key of keysIn(file)) found.add(key);
  const missing = surface.composeKeys.filter((key) => key !== "version" && !found.has(key));
  assert.deepEqual(missing, []);
});

/** Rows of all tables, without the tables' heads. */
function rowsOf(text: string): Row[] {
  const found: Row[] = [];
  let [section, topic] = ["", ""];
  const lines = text.split("\n");
  lines.forEach((line, index) => {
    const [, level, heading] = /^(##+) (.+)$/.exec(line) ?? [];
    if (level === "##") [section, topic] = [heading!, ""];
    else if (level) topic = heading!;
    if (!line.startsWith("|") || /^\|[ :|-]+$/.test(line) || /^\|[ :|-]+$/.test(lines[index + 1] ?? "")) return;
    const cells = line
      .slice(1, line.lastIndexOf("|"))
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim());
    found.push({ line: index + 1, section, topic, cells });
  });
  return found;
}

/** `clients/flags`: name of a test<br>`api/nodes`: name of another */
function testsIn(cell: string): { file: string; name: string }[] {
  return cell.split("<br>").flatMap((part) => {
    const [, file, name] = /^`([^`]+)`: (.+)$/.exec(part.trim()) ?? [];
    return file && name ? [{ file, name }] : [];
  });
}

function problemOf(file: string, name: string): string | undefined {
  const path = ["test", "src"].map((top) => `${top}/${file}.test.ts`).find((one) => existsSync(join(root, one)));
  if (!path) return `there is no ${file}.test.ts in test or src`;
  const text = readFileSync(join(root, path), "utf8");
  const names = [...text.matchAll(/\b(?:test|it)\(\s*("(?:[^"\\\n]|\\.)*"|`[^`]*`)/g)];
  const hasIt = names.some(([, quoted = ""]) => matches(quoted, name));
  return hasIt ? undefined : `${path} has no test "${name}"`;
}

/** Whether a test's name, as it stands in the code, is this one: `${kind}: its labels` is "secret: its labels". */
function matches(quoted: string, name: string): boolean {
  if (quoted.startsWith('"')) return (JSON.parse(quoted) as string) === name;
  const parts = quoted.slice(1, -1).split(/\$\{[^}]*\}/);
  const escaped = parts.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${escaped.join(".+")}$`).test(name);
}

/** A heading: "docker service create, docker service update" */
function commandsIn(topic: string): string[] {
  return topic.split(", ").map((one) => one.replace(/^docker /, ""));
}

/** Paths that the API's routes answer, as the table writes them. */
function routes(): string[] {
  const files = ["attach", "events", "logs", "networks", "nodes", "services", "swarm", "system", "tasks"];
  const found = files.flatMap((file) => {
    const text = readFileSync(join(root, `src/api/${file}.ts`), "utf8");
    return [...text.matchAll(/method: "([A-Z]+)",\s*path: "([^"]+)"/g)];
  });
  return found.map(([, method, path]) => `${method} ${path!.replaceAll(/:(\w+)/g, "{$1}")}`);
}

/** A row under the heading `services.deploy` with `replicas`, `update_config.order` lists two keys. */
function keysOfRow(topic: string, cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, key = ""]) => (key === topic ? key : `${topic}.${key}`));
}

function read(path: string): Json {
  return JSON.parse(readFileSync(join(root, path), "utf8")) as Json;
}

/** The schema's paths of what is in a compose file: names that a user chooses are left out, or are `*`. */
function keysIn(file: Json): Set<string> {
  const known = new Set(surface.composeKeys);
  const found = new Set<string>();
  const visit = (value: Json, path: readonly string[]): void => {
    if (value === null || typeof value !== "object") return;
    if (Array.isArray(value)) {
      for (const one of value) visit(one, path);
      return;
    }
    for (const [name, inner] of Object.entries(value)) {
      const key = [...path, name].join(".");
      const isListOfNamed = path.length === 0;
      if (!known.has(key)) visit(inner, [...path, "*"]);
      else {
        found.add(key);
        if (isListOfNamed) for (const one of Object.values(inner as object)) visit(one as Json, [name]);
        else visit(inner, [...path, name]);
      }
    }
  };
  visit(file, []);
  return found;
}

function assertNone(wrong: readonly string[]): void {
  assert.equal(wrong.length, 0, `\n${wrong.join("\n")}\n`);
}
