#!/usr/bin/env node
// Writes down what docker CLIs offer for swarms, as COMPATIBILITY.md has to answer for it: every flag that `--help`
// shows, and every key of the compose file's schema that the newest CLI carries inside. To be run where there are CLIs
// of several versions: `node scripts/client-surface.mjs docker /usr/local/bin/docker`.
import { execFileSync } from "node:child_process";
import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const groups = ["swarm", "node", "service", "stack", "secret", "config", "network"];
const output = fileURLToPath(new URL("../test/clients/surface.json", import.meta.url));
const newestSchema = "config_schema_v3.13.json";

/** Without a daemon the CLI shows all that it knows, and hides nothing that this daemon or its swarm lacks. */
function help(program, ...command) {
  const env = { ...process.env, DOCKER_HOST: "unix:///nonexistent/docker.sock", DOCKER_CLI_HINTS: "false" };
  return execFileSync(program, [...command, "--help"], { env, encoding: "utf8" });
}

/** Command to its flags: { "service create": ["--cap-add", ...] }. */
function flagsOf(program) {
  const flags = {};
  for (const group of groups) {
    const [, commands = ""] = help(program, group).split(/^Commands:$/m);
    for (const [, name] of commands.matchAll(/^ {2}([a-z-]+) /gm)) {
      const found = help(program, group, name).matchAll(/^ {2}(?:-\w, | {4})(--[a-z0-9-]+)/gm);
      flags[`${group} ${name}`] = [...found].map(([, flag]) => flag).sort();
    }
  }
  return flags;
}

/** The schema of compose files lies in the CLI's program as text. */
function schemaOf(program) {
  const bytes = readFileSync(realpathSync(program));
  const found = bytes.indexOf(`"id": "${newestSchema}"`);
  if (found < 0) return undefined;
  const start = bytes.lastIndexOf("{", found);
  let depth = 0;
  for (let at = start; at < bytes.length; at++) {
    if (bytes[at] === 0x7b) depth++;
    if (bytes[at] === 0x7d && --depth === 0) return JSON.parse(bytes.toString("utf8", start, at + 1));
  }
  throw new Error(`${program}: ${newestSchema} has no end`);
}

/** Dotted paths of all keys, names of the user's as `*`, and items of lists under the list's own name. */
function keysOf(schema) {
  const keys = new Set();
  const visit = (part, path) => {
    if (part.$ref?.startsWith("#/definitions/")) visit(schema.definitions[part.$ref.slice(14)], path);
    for (const one of [...(part.oneOf ?? []), ...(part.anyOf ?? [])]) visit(one, path);
    if (part.items && !Array.isArray(part.items)) visit(part.items, path);
    for (const [name, one] of Object.entries(part.properties ?? {})) {
      keys.add([...path, name].join("."));
      visit(one, [...path, name]);
    }
    for (const [pattern, one] of Object.entries(part.patternProperties ?? {})) {
      if (pattern !== "^x-") visit(one, path.length === 1 ? path : [...path, "*"]);
    }
  };
  visit(schema, []);
  return [...keys].sort();
}

const programs = process.argv.slice(2);
const surface = { composeSchema: newestSchema, composeKeys: [], flags: {} };
for (const program of programs) {
  const version = /version ([^ ,]+)/.exec(execFileSync(program, ["--version"], { encoding: "utf8" }))[1];
  surface.flags[version] = flagsOf(program);
  const schema = schemaOf(program);
  if (schema) surface.composeKeys = keysOf(schema);
}
if (surface.composeKeys.length === 0) throw new Error(`none of ${programs} carries ${newestSchema}`);
writeFileSync(output, `${JSON.stringify(surface, undefined, 2)}\n`);
