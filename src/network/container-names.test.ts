import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { leadNames, leaveNames } from "./container-names.ts";

function setUp() {
  const directory = mkdtempSync(join(tmpdir(), "shoal-names-"));
  const resolvConf = join(directory, "resolv.conf");
  const ran: string[] = [];
  const commands = {
    run: async (program: string, args: readonly string[], input = "") => {
      ran.push([program, ...args].join(" "), input);
      return "";
    },
  };
  const container = { processId: 7, resolvConf };
  const naming = { ...container, nameserver: "10.0.1.1", address: "10.0.1.7" };
  return { commands, container, naming, ran, resolvConf, end: () => rmSync(directory, { recursive: true }) };
}

test("a container of the default bridge alone asks the swarm's server, and its own again afterwards", async () => {
  const { commands, container, naming, ran, resolvConf, end } = setUp();
  const before = "# made\nsearch example.org\nnameserver 127.0.0.11\noptions ndots:0\n";
  writeFileSync(resolvConf, before);
  await leadNames(commands, { ...naming, asksEngine: false, nameserver: "10.0.2.1" });
  await leadNames(commands, { ...naming, asksEngine: false });
  const lines = readFileSync(resolvConf, "utf8").split("\n");
  assert.deepEqual(
    lines.filter((line) => !line.startsWith("#")),
    ["nameserver 10.0.1.1", "search example.org", "options ndots:0", ""],
  );
  assert.deepEqual(ran, []);
  await leaveNames(commands, container);
  assert.equal(readFileSync(resolvConf, "utf8"), before);
  await leaveNames(commands, container);
  assert.equal(readFileSync(resolvConf, "utf8"), before);
  end();
});

test("one that needs the Engine's names keeps its server, whose questions are led to the swarm's", async () => {
  const { commands, naming, ran, resolvConf, end } = setUp();
  writeFileSync(resolvConf, "nameserver 127.0.0.11\n");
  await leadNames(commands, { ...naming, asksEngine: true });
  assert.equal(readFileSync(resolvConf, "utf8"), "nameserver 127.0.0.11\n");
  const [command, rules = ""] = ran;
  assert.equal(command, "nsenter --net=/proc/7/ns/net nft -f -");
  assert.match(rules, /dnat to 10\.0\.1\.1/);
  assert.match(rules, /snat to 10\.0\.1\.7/);
  end();
});
