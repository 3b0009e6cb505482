/**
 * Keeps the house in order by reading its source: imports go down only, no cycles, no dead files, no clock, randomness
 * or timers below the composition root, no words that have no place here. Each violation is a line `file:line: what`.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Imports go from a later floor to an earlier one. Folders of one floor may use each other's types only. */
const floors: readonly (readonly string[])[] = [
  ["lib"],
  ["model"],
  ["store", "ca", "rpc", "engine"],
  ["manager", "agent", "network"],
  ["api", "dashboard"],
  ["daemon", "playground"],
  ["cli"],
];
/** Written by protoc-gen-es, not by us. */
const generated = ["src/rpc/gen/", "src/store/etcd/gen/"] as const;
/** They meet on the wire, so they do not know each other's types either. */
const strangers = [["manager", "agent"]] as const;
/** Who may read the clock, roll dice and start timers. */
const composers = new Set(["lib", "daemon", "playground", "cli"]);

const impure: readonly RegExp[] = [
  /\bDate\.now\b/,
  /\bnew Date\(\s*\)/,
  /\bDate\(\s*\)/,
  /\bset(?:Timeout|Interval|Immediate)\b/,
  /\bMath\.random\b/,
  /\brandom(?:Bytes|UUID|Int|FillSync|Fill)\b/,
  /\bgetRandomValues\b/,
  /\bperformance\.now\b/,
  /\bprocess\.(?:hrtime|uptime)\b/,
  /\bAbortSignal\.timeout\b/,
  /"node:timers(?:\/promises)?"/,
];

/** Written in pieces, so that this file does not hold them itself. */
const forbiddenWords: readonly RegExp[] = [
  new RegExp(["TO", "DO"].join("")),
  new RegExp(["FIX", "ME"].join("")),
  new RegExp(`\\b${["X", "XX"].join("")}\\b`),
  new RegExp(`@ts-${["ig", "nore"].join("")}`),
  new RegExp(`@ts-${["no", "check"].join("")}`),
  new RegExp(`(?<![\\w.])/${["wo", "rk"].join("")}/`),
  new RegExp(`\\b${["reg", "istry"].join("")}\\.npm`),
  new RegExp(`\\bCo-${["Auth", "ored"].join("")}`, "i"),
  new RegExp(`\\b(?:${["Cla", "ude"].join("")}|${["Anth", "ropic"].join("")}|${["Chat", "GPT"].join("")})\\b`, "i"),
  new RegExp(
    `\\b(?:test|it|describe|suite)\\.(?:${["sk", "ip"].join("")}|${["on", "ly"].join("")}|${["to", "do"].join("")})\\(`,
  ),
  new RegExp(`\\b(?:${["sk", "ip"].join("")}|${["on", "ly"].join("")}|${["to", "do"].join("")}): true`),
  new RegExp(`\\bcatch(?: \\(\\w+\\))? \\{${["\\", "s*"].join("")}\\}`),
];

interface Import {
  readonly line: number;
  /** Path from the root of the project. */
  readonly target: string;
  readonly typeOnly: boolean;
}

interface Source {
  readonly path: string;
  readonly text: string;
  /** Without comments; strings are kept. Same length and lines as `text`. */
  readonly code: string;
  /** Without comments and without what is in strings. */
  readonly bare: string;
  readonly imports: readonly Import[];
}

const sources = readTree();

test("imports go down only", () => {
  const wrong: string[] = [];
  for (const source of sources.values()) {
    const from = folderOf(source.path);
    if (from === undefined || isTest(source.path)) continue;
    for (const { target, line, typeOnly } of source.imports) {
      const to = folderOf(target);
      const at = `${source.path}:${line}`;
      if (to === from) continue;
      if (to === undefined) {
        if (target.endsWith(".ts")) wrong.push(`${at}: src imports ${target}, which is outside of it`);
        continue;
      }
      const difference = floorOf(from, at) - floorOf(to, at);
      if (strangers.some((pair) => pair.includes(from as never) && pair.includes(to as never))) {
        wrong.push(`${at}: ${from} imports ${target}: they meet on the wire`);
      } else if (difference < 0) {
        wrong.push(`${at}: ${from} imports ${target}, which is on a floor above`);
      } else if (difference === 0 && !typeOnly) {
        wrong.push(`${at}: ${from} imports ${target} of the same floor, not only its types`);
      }
    }
  }
  assertNone(wrong);
});

test("every import of ours leads to a file", () => {
  const wrong: string[] = [];
  for (const source of sources.values()) {
    for (const { target, line } of source.imports) {
      if (!existsSync(join(root, target))) wrong.push(`${source.path}:${line}: there is no ${target}`);
    }
  }
  assertNone(wrong);
});

test("there are no import cycles", () => {
  const wrong: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (name: string) => {
    if (done.has(name)) return;
    path.push(name);
    for (const { target, line } of sources.get(name)?.imports ?? []) {
      const start = path.indexOf(target);
      if (start >= 0) wrong.push(`${name}:${line}: cycle ${[...path.slice(start), target].join(" -> ")}`);
      else visit(target);
    }
    path.pop();
    done.add(name);
  };
  for (const name of sources.keys()) visit(name);
  assertNone(wrong);
});

test("there are no dead files", () => {
  // A file that only its own unit test reaches is dead, so unit tests are no entry points; for test/ they are.
  const entryPoints = [...sources.keys()].filter(
    (path) => path === "src/cli/main.ts" || path === "test/bench/main.ts" || (path.startsWith("test/") && isTest(path)),
  );
  assert.ok(entryPoints.includes("src/cli/main.ts"));
  const reached = new Set<string>();
  const visit = (path: string) => {
    if (reached.has(path)) return;
    reached.add(path);
    for (const { target } of sources.get(path)?.imports ?? []) visit(target);
    for (const program of programsOf(path)) visit(program);
  };
  for (const path of entryPoints) visit(path);
  // What only unit tests share (a fake clock, fixtures) says so in its name.
  for (const path of sources.keys()) if (path.startsWith("src/") && isTest(path)) visitTestSupport(path, reached);
  const dead = [...sources.keys()].filter((path) => !reached.has(path) && !isGenerated(path));
  assertNone(dead.map((path) => `${path}:1: nothing uses this file`));
});

test("nothing below the composition root reads a clock, rolls dice or starts a timer", () => {
  const wrong: string[] = [];
  for (const source of sources.values()) {
    const folder = folderOf(source.path);
    if (folder === undefined || composers.has(folder) || isTest(source.path)) continue;
    eachLine(source.bare, (line, number) => {
      for (const pattern of impure) {
        const found = pattern.exec(line)?.[0];
        if (found) wrong.push(`${source.path}:${number}: ${found}: take a Clock or a Random instead`);
      }
    });
    for (const { line, target } of nodeModulesImports(source)) {
      if (/^node:timers/.test(target)) wrong.push(`${source.path}:${line}: ${target}: take a Clock instead`);
    }
  }
  assertNone(wrong);
});

test("no file holds words that have no place here", () => {
  const wrong: string[] = [];
  for (const path of listFiles()) {
    if (path === "package-lock.json" || isGenerated(path)) continue;
    const bytes = readFileSync(join(root, path));
    if (bytes.includes(0)) continue; // not text
    eachLine(bytes.toString("utf8"), (line, number) => {
      for (const pattern of forbiddenWords) {
        const found = pattern.exec(line)?.[0];
        if (found) wrong.push(`${path}:${number}: "${found}"`);
      }
    });
  }
  assertNone(wrong);
});

test("the lock file names no host", () => {
  const wrong: string[] = [];
  eachLine(readFileSync(join(root, "package-lock.json"), "utf8"), (line, number) => {
    if (/"resolved":/.test(line)) wrong.push(`package-lock.json:${number}: ${line.trim()}`);
  });
  assertNone(wrong);
});

test("the scanner sees code, and not what only looks like it", () => {
  const source = [
    "// Date.now() in a comment",
    'const a = "Date.now()"; /* setTimeout',
    "Math.random() */ const b = Date.now();",
    "const c = `text $" + "{Date.now()} Math.random`; const d = /[\"'`/]/.test(e) ? f / g : h;",
    "const i = 'it\\'s'; setTimeout(j);",
  ].join("\n");
  const { bare, code } = scan(source);
  const lines = bare.split("\n");
  assert.deepEqual(
    lines.map((line) => [/Date\.now/.test(line), /setTimeout/.test(line), /Math\.random/.test(line)]),
    [
      [false, false, false],
      [false, false, false],
      [true, false, false],
      [true, false, false],
      [false, true, false],
    ],
  );
  assert.equal(bare.length, source.length);
  assert.match(code, /"Date\.now\(\)"/);
  assert.match(lines[3]!, /const d = .*\.test\(e\) \? f \/ g : h;/);
});

/** Files that another one starts as programs of their own: `new URL("program.ts", import.meta.url)`. */
function programsOf(path: string): string[] {
  const { code = "" } = sources.get(path) ?? {};
  const found = code.matchAll(/new URL\(\s*"([^"]+\.ts)",\s*import\.meta\.url\)/g);
  return [...found].map(([, program = ""]) => normalize(join(dirname(path), program)));
}

/** Files beside unit tests whose names say that tests use them: `fake-*.ts`, `harness.ts`, `*-fixture.ts`, `testing/*.ts`. */
function visitTestSupport(path: string, reached: Set<string>): void {
  for (const { target } of sources.get(path)?.imports ?? []) {
    const isSupport = /(?:^|\/)(?:fake-[^/]*|harness|[^/]*-fixtures?|testing\/.*)\.ts$/.test(target);
    if (isSupport && !reached.has(target)) {
      reached.add(target);
      visitTestSupport(target, reached);
    }
  }
  reached.add(path);
}

function assertNone(wrong: readonly string[]): void {
  assert.equal(wrong.length, 0, `\n${wrong.join("\n")}\n`);
}

/** What git knows or would add: neither node_modules nor what a build left. */
function listFiles(): string[] {
  const options = { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 } as const;
  const listed = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], options);
  return listed.split("\n").filter((path) => path !== "" && existsSync(join(root, path)));
}

function readTree(): Map<string, Source> {
  const tree = new Map<string, Source>();
  for (const path of listFiles()) {
    if (!/^(?:src|test)\/.*\.ts$/.test(path)) continue;
    const text = readFileSync(join(root, path), "utf8");
    const { code, bare } = scan(text);
    tree.set(path, { path, text, code, bare, imports: importsOf(path, code) });
  }
  assert.ok(tree.size > 0, "no source files found");
  return tree;
}

function isGenerated(path: string): boolean {
  return generated.some((folder) => path.startsWith(folder));
}

function isTest(path: string): boolean {
  return path.endsWith(".test.ts");
}

/** The folder of src that a file is in. */
function folderOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function floorOf(folder: string, at: string): number {
  const floor = floors.findIndex((folders) => folders.includes(folder));
  assert.ok(floor >= 0, `${at}: src/${folder} is on no floor: add it to DESIGN's house and to this test`);
  return floor;
}

/** Our own files that this one imports, re-exports, loads later or starts (`new URL("./x.ts", import.meta.url)`). */
function importsOf(path: string, code: string): Import[] {
  const pattern =
    /\b(import|export)\b(\s+type\b)?[^"';]*?\bfrom\s*"(\.[^"]+)"|\bimport\s*\(?\s*"(\.[^"]+)"|\bnew URL\(\s*"(\.[^"]+\.ts)"/g;
  return [...code.matchAll(pattern)].map((match) => ({
    line: lineAt(code, match.index),
    target: normalize(join(dirname(path), match[3] ?? match[4] ?? match[5]!)),
    typeOnly: match[2] !== undefined,
  }));
}

function nodeModulesImports(source: Source): { line: number; target: string }[] {
  return [...source.code.matchAll(/\b(?:from|import)\s*\(?\s*"(node:[^"]+)"/g)].map((match) => ({
    line: lineAt(source.code, match.index),
    target: match[1]!,
  }));
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

function eachLine(text: string, look: (line: string, number: number) => void): void {
  text.split("\n").forEach((line, index) => {
    look(line, index + 1);
  });
}

/**
 * Blanks out comments (`code`), and also the contents of strings, templates and regular expressions (`bare`). Code in
 * a template's placeholders stays. A slash begins a regular expression where an operand may stand.
 */
function scan(text: string): { code: string; bare: string } {
  const code = [...text.split("")];
  const bare = [...code];
  const blank = (output: string[], from: number, to: number) => {
    for (let index = from; index < to; index++) if (output[index] !== "\n") output[index] = " ";
  };
  /** Depth of braces inside each open placeholder. */
  const placeholders: number[] = [];
  let index = 0;
  let before = ""; // the last token's end: tells a division from a regular expression
  const template = (from: number) => {
    let end = from;
    while (end < text.length && text[end] !== "`" && !text.startsWith("${", end)) end += text[end] === "\\" ? 2 : 1;
    blank(bare, from, end);
    if (text[end] === "`") {
      index = end + 1;
      before = "`";
    } else {
      placeholders.push(0);
      index = end + 2;
      before = "{";
    }
  };
  while (index < text.length) {
    const character = text[index]!;
    const two = text.slice(index, index + 2);
    if (two === "//" || two === "/*") {
      const found = text.indexOf(two === "//" ? "\n" : "*/", index + 2);
      const end = found < 0 ? text.length : found + (two === "//" ? 0 : 2);
      blank(code, index, end);
      blank(bare, index, end);
      index = end;
    } else if (character === '"' || character === "'") {
      let end = index + 1;
      while (end < text.length && text[end] !== character) end += text[end] === "\\" ? 2 : 1;
      blank(bare, index + 1, end);
      index = end + 1;
      before = character;
    } else if (character === "`") {
      template(index + 1);
    } else if (character === "/" && !/[\w)\]}"'`]$/.test(before)) {
      let end = index + 1;
      let inClass = false;
      while (end < text.length && (inClass || text[end] !== "/")) {
        if (text[end] === "[") inClass = true;
        if (text[end] === "]") inClass = false;
        end += text[end] === "\\" ? 2 : 1;
      }
      blank(bare, index + 1, end);
      index = end + 1;
      before = "/)"; // an operand has ended
    } else {
      if (placeholders.length > 0) {
        const depth = placeholders.at(-1)!;
        if (character === "}" && depth === 0) {
          placeholders.pop();
          template(index + 1);
          continue;
        }
        if (character === "{") placeholders[placeholders.length - 1] = depth + 1;
        if (character === "}") placeholders[placeholders.length - 1] = depth - 1;
      }
      if (!/\s/.test(character)) {
        before = /\w/.test(character) && /\w$/.test(before) ? before + character : character;
        // After these words an operand follows, though they end in a letter.
        if (
          /^(?:return|typeof|case|in|of|await|yield|void|else|do|throw|new)$/.test(before) &&
          !/\w/.test(text[index + 1] ?? "")
        ) {
          before = "(";
        }
      }
      index++;
    }
  }
  return { code: code.join(""), bare: bare.join("") };
}
