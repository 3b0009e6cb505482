#!/usr/bin/env node
// Brings in what Shoal needs on this machine: Debian packages by apt, npm packages (and with them Node 24) by npm ci.
// Plain JavaScript for the machine's own Node 20, since it runs before anything is installed. Only what is missing is
// installed; a second run changes nothing. Where it cannot install (not root, no apt) it says exactly what is missing.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const prerequisites = JSON.parse(readFileSync(join(root, "scripts/prerequisites.json"), "utf8"));
const isRoot = process.getuid?.() === 0;

/** Administrators' programs are not on everybody's PATH. */
const searchPath = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

function find(name) {
  return searchPath
    .filter((directory) => directory !== "")
    .map((directory) => join(directory, name))
    .find((path) => existsSync(path));
}

function hasProgram(name) {
  return find(name) !== undefined;
}

/** Whether a program runs without libraries, as it must in an image that holds nothing else: no PT_INTERP in its ELF. */
function isStatic(path) {
  const elf = readFileSync(path);
  const headers = Number(elf.readBigUInt64LE(32));
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  return !Array.from({ length: count }, (_, index) => elf.readUInt32LE(headers + index * size)).includes(3);
}

/** The prerequisites that this machine lacks: { what, package, cost }. */
function missing() {
  const programs = [...prerequisites.programs, ...prerequisites.tests];
  const lacking = programs
    .filter(({ program }) => !hasProgram(program))
    .map(({ program, package: name, cost }) => ({ what: program, package: name, cost }));
  for (const { file, package: name, cost } of prerequisites.files) {
    if (!existsSync(file)) lacking.push({ what: file, package: name, cost });
  }
  const busybox = find("busybox");
  if (busybox !== undefined && !isStatic(busybox)) {
    lacking.push({ what: "a static busybox", package: "busybox-static", cost: "no sample image without a registry" });
  }
  // An Engine on a kernel with AppArmor loads its profile with this program, or starts no container.
  if (appArmorIsOn() && !hasProgram("apparmor_parser")) {
    lacking.push({ what: "apparmor_parser", package: "apparmor", cost: "the Engine starts no container" });
  }
  return lacking;
}

function appArmorIsOn() {
  const file = "/sys/module/apparmor/parameters/enabled";
  return existsSync(file) && readFileSync(file, "utf8").startsWith("Y");
}

function refuse(lacking, why) {
  console.error(`shoal: this machine lacks what Shoal needs, and ${why}:`);
  for (const { what, package: name, cost } of lacking) console.error(`  ${what} (package ${name}): without it ${cost}`);
  process.exit(1);
}

function apt(...args) {
  const result = spawnSync("apt-get", ["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120", ...args], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
  return result.status === 0;
}

/** Docker's CLI is part of docker.io on older releases and docker-cli on newer ones. */
function packagesOf(lacking) {
  const names = new Set(lacking.map((entry) => entry.package));
  if (names.has("docker-cli") && !isInAPackageList("docker-cli")) {
    names.delete("docker-cli");
    names.add("docker.io");
  }
  return [...names].sort();
}

function isInAPackageList(name) {
  const shown = spawnSync("apt-cache", ["show", "--no-all-versions", name], { stdio: ["ignore", "pipe", "ignore"] });
  return shown.status === 0 && shown.stdout.length > 0;
}

/** Debian's packages would start these as services of the machine: only their programs are wanted, which we run. */
const unwantedServices = { "etcd-server": "etcd.service", "docker-registry": "docker-registry.service" };

function withoutServices(packages, install) {
  const units = packages.map((name) => unwantedServices[name]).filter((unit) => unit !== undefined);
  if (units.length === 0 || !existsSync("/run/systemd/system")) return install();
  const systemctl = (...args) => spawnSync("systemctl", [...args, ...units], { stdio: "ignore" });
  systemctl("mask", "--runtime");
  try {
    return install();
  } finally {
    systemctl("unmask", "--runtime");
    systemctl("disable");
  }
}

function installPackages() {
  const lacking = missing();
  if (lacking.length === 0) return;
  if (!isRoot) refuse(lacking, "only root can install it");
  if (!hasProgram("apt-get")) refuse(lacking, "there is no apt-get to install it with");
  console.error(`shoal: installing what is missing: ${lacking.map(({ what }) => what).join(", ")}`);
  if (!apt("-qq", "update"))
    console.error("shoal: apt-get update failed; trying with the package lists that are there");
  const packages = packagesOf(lacking);
  const installed = withoutServices(packages, () =>
    apt("-qq", "install", "--yes", "--no-install-recommends", ...packages),
  );
  if (!installed) refuse(missing(), `apt-get install ${packages.join(" ")} failed`);
  const left = missing();
  if (left.length > 0) refuse(left, "the packages that were installed did not bring it");
}

/** Whether node_modules holds exactly what package-lock.json says (as far as it is meant for this platform). */
function nodeModulesAreCurrent() {
  const marker = join(root, "node_modules/.package-lock.json"); // written by npm at the end of an install
  if (!existsSync(marker)) return false;
  const installed = JSON.parse(readFileSync(marker, "utf8")).packages;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const same = (path) => installed[path]?.version === wanted[path]?.version;
  return (
    Object.keys(installed).every((path) => existsSync(join(root, path)) && same(path)) &&
    Object.entries(wanted).every(([path, entry]) => path === "" || entry.optional || same(path))
  );
}

/** The Node that the optional dependency brings; npm leaves it out silently when it cannot be fetched. */
function hasOwnNode() {
  return existsSync(join(root, `node_modules/node-linux-${process.arch}/bin/node`));
}

function installNodeModules() {
  if (nodeModulesAreCurrent() && hasOwnNode()) return;
  console.error("shoal: npm ci");
  // npm tells its scripts what it runs as: the machine's own Node, not the one that it is about to replace.
  const { npm_execpath: npm, npm_node_execpath: node = process.execPath } = process.env;
  const [program, args] = npm?.endsWith(".js") ? [node, [npm]] : ["npm", []];
  execFileSync(program, [...args, "ci", "--ignore-scripts", "--include=optional", "--include=dev", "--loglevel=warn"], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!hasOwnNode()) {
    console.error(
      `shoal: npm ci brought no Node for linux-${process.arch} (the optional package node-linux-${process.arch}): ` +
        "it could not be fetched, or there is none for this machine",
    );
    process.exit(1);
  }
}

/** Installs what is missing; ends the process with status 1, and the reason, where it cannot. */
export function setUp() {
  installPackages();
  try {
    installNodeModules();
  } catch (error) {
    console.error(`shoal: npm ci failed: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setUp();
